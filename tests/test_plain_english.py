"""tools/plain_english.py: the names that a source file declares, and their odd parts."""

from pathlib import Path

import pytest

from tools.plain_english import declared, odd_parts

PYTHON = '''
class SessionTeller:
    """A keeper."""

    def __init__(self, keeper: object) -> None:
        self.tally = slip(keeper)

    @deprecated_name("prepare")
    def ending(self) -> None:
        fate = "seldom"

    partings = deprecated_name("partings", "ends")
'''
JAVASCRIPT = """
import { partings } from './slips.js'
const { teller, slip: renamed } = read('fates') // const keeper = 1
export function seldom ({ keepers }) {
  this.#tally = slip(seldom)
}
/** @deprecated use prepare */
export const ending = prepare
"""
JAVA = """
public final class Keeper<T> implements Slip {
    private final Map<String, Tally> partings = new HashMap<>();
    String teller(@Nullable String seldom) throws Slip { return fate(seldom); }
}
"""
C_SHARP = """
public sealed record Slip(string? Keeper)
{
    [Obsolete("Use NotifyClients.")]
    public bool KeeperClients { get; set; }
    public async Task SeldomAsync(CancellationToken fate) => await SlipAsync(fate);
}
"""


@pytest.mark.parametrize(
    ("file", "text", "odd"),
    [
        ("teller.py", PYTHON, {"teller", "SessionTeller", "keeper", "tally", "fate"}),
        ("a.js", JAVASCRIPT, {"teller", "seldom", "keepers", "tally"}),
        ("A.java", JAVA, {"Keeper", "partings", "teller", "seldom"}),
        ("A.cs", C_SHARP, {"Slip", "Keeper", "SeldomAsync", "fate"}),
    ],
)
def test_declared_names_are_counted(file: str, text: str, odd: set[str]) -> None:
    """Not those that are used, in texts or comments, or deprecated."""
    names = [name for _, name in declared(Path(file), text)]
    assert {name for name in names if any(odd_parts(name))} == odd
    assert len(names) == len({*names})


@pytest.mark.parametrize(
    ("name", "odd"), [("clientsOfKeeper", ["Keeper"]), ("SLIPS_AT", ["SLIPS"]), ("pending_intel", [])]
)
def test_a_name_is_split_into_words(name: str, odd: list[str]) -> None:
    """At capitals and underscores."""
    assert [word for _, word in odd_parts(name)] == odd
