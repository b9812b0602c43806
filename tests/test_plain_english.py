"""tools/plain_english.py: the names that a source file declares, and their odd parts."""

from pathlib import Path

import pytest

from tools.plain_english import declared, odd_parts

PYTHON = '''
class SessionTeller:
    """Tell nobody."""

    def __init__(self, keeper: object) -> None:
        self.said = hear(keeper)

    @deprecated_name("prepare")
    def ending(self) -> None:
        fate = "tell"
'''
JAVASCRIPT = """
import { heard } from './said.js'
const { teller, slip: renamed } = read('tell') // const keeper = 1
export function tell (seldom, { partings }) {
  this.#tally = told(seldom)
}
/** @deprecated use prepare */
export const ending = prepare
"""
JAVA = """
public final class Keeper<T> implements Slip {
    private final Map<String, Tally> partings = new HashMap<>();
    String tell(@Nullable String seldom) throws Told { return said(seldom); }
}
"""
C_SHARP = """
public sealed record Slip(string? Keeper)
{
    [Obsolete("Use NotifyClients.")]
    public bool TellClients { get; set; }
    public async Task TellAsync(CancellationToken fate) => await HearAsync(fate);
}
"""


@pytest.mark.parametrize(
    ("file", "text", "odd"),
    [
        ("teller.py", PYTHON, {"teller", "SessionTeller", "keeper", "said", "fate"}),
        ("a.js", JAVASCRIPT, {"teller", "tell", "seldom", "partings", "tally"}),
        ("A.java", JAVA, {"Keeper", "partings", "tell", "seldom"}),
        ("A.cs", C_SHARP, {"Slip", "Keeper", "TellAsync", "fate"}),
    ],
)
def test_declared_names_are_counted(file: str, text: str, odd: set[str]) -> None:
    """Not those that are used, in texts or comments, or deprecated."""
    names = [name for _, name in declared(Path(file), text)]
    assert {name for name in names if any(odd_parts(name))} == odd
    assert len(names) == len({*names})


@pytest.mark.parametrize(("name", "odd"), [("clientsToTell", ["Tell"]), ("SAID_AT", ["SAID"]), ("pending_intel", [])])
def test_a_name_is_split_into_words(name: str, odd: list[str]) -> None:
    """At capitals and underscores."""
    assert [word for _, word in odd_parts(name)] == odd
