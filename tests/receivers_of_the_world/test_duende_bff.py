"""The preset `duende_bff` fits the recorded answers of a real one, token by token.

`recorded/duende_bff-4.2.0.txt` has the answers of Duende's BFF 4.2.0 to each kind of token, and the remaining
sessions: two of alice's, S1 and S2, and one of bob's.
"""

import re
from pathlib import Path

from notifier.model.client import Algorithm
from notifier.model.presets import PRESETS
from tests.receivers_of_the_world.receivers import WORLD

RECORDED = Path(__file__).parent / "recorded/duende_bff-4.2.0.txt"
LINE = re.compile(r"(.+?) +(\d{3}) body '(.*)' left: S1 (\d) S2 (\d) bob (\d)")


def recorded() -> dict[str, tuple[int, str, list[int]]]:
    """Return by kind: status, body, and the counts of remaining sessions: S1, S2, bob's."""
    found = {}
    for line in RECORDED.read_text().splitlines():
        if (told := LINE.match(line)) is not None:
            name, status, body, *left = told.groups()
            found[name] = (int(status), body, [int(count) for count in left])
    return found


def test_the_preset_is_what_the_real_one_needs() -> None:
    """It refuses exactly the algorithms that the recorded receiver refused."""
    answers = {name.removeprefix("alg "): told[0] for name, told in recorded().items() if name.startswith("alg ")}
    preset = PRESETS["duende_bff"]
    answers["Ed25519"] = answers["EdDSA"]  # another name of it, by which the record does not ask
    assert preset.refuses == {alg for alg in Algorithm if answers.get(alg, 200) == 400}
    assert {alg for alg, status in answers.items() if status == 200} <= WORLD["duende_bff"].algs
    assert not preset.refuses & {Algorithm(alg) for alg in WORLD["duende_bff"].algs}
