"""Two keys of one issuer with one `kid`: refused where the configuration shows it, or once their places tell it."""

from collections.abc import Sequence

import pytest

from notifier.model.client import Algorithm
from notifier.model.errors import Mistake
from notifier.tokens.key_files import KeySource, examine_keys
from notifier.tokens.key_ring import KeyElsewhere, KeyRing
from tests.tokens.key_folder import ISS, NOW, OTHER, Folder
from tests.tokens.memory_place import MemoryPlace, Rig
from tests.tokens.test_keys import claims

AT = f'issuers["{ISS}"].keys'


def elsewhere(nth: int, rig: Rig | None = None, kid: str | None = None) -> KeyElsewhere:
    """The key of that number, in a place in memory."""
    return KeyElsewhere(placed=(rig or Rig(MemoryPlace())).key, setting=f"{AT}[{nth}].memory", kid=kid)


def read(*sources: KeySource | KeyElsewhere) -> tuple[KeyRing, list[tuple[str, str]]]:
    """The ring of an issuer with these keys, and the mistakes."""
    ring, mistakes = examine_keys({ISS: sources, OTHER: sources[:1]}, clock=lambda: NOW)
    return ring, shown(mistakes)


def shown(mistakes: Sequence[Mistake]) -> list[tuple[str, str]]:
    """Path and text of each."""
    return [(each.path, each.text) for each in mistakes]


@pytest.mark.parametrize("first", ["file", "place"])
def test_a_kid_that_is_given_twice_is_refused_before_any_place_is_asked(folder: Folder, first: str) -> None:
    """Be the other key in a file or in a place. Another issuer may have the same."""
    one = folder.source("ES256", kid="k") if first == "file" else elsewhere(0, kid="k")
    _, mistakes = read(one, elsewhere(1, kid="other"), elsewhere(2, kid="k"))
    assert mistakes == [(f"{AT}[2].kid", "has the same kid 'k' as keys[0]; each key of an issuer needs its own")]


def test_a_place_that_is_named_twice_is_refused_before_it_is_asked() -> None:
    """It is one key, whatever its `kid` will be. Under two names it is two."""
    rig = Rig(MemoryPlace())
    _, mistakes = read(elsewhere(0, rig), elsewhere(1, rig, kid="named"), elsewhere(2, rig))
    assert mistakes == [(f"{AT}[2].memory", "is the same key as keys[0]; each key of an issuer needs its own")]


async def test_a_file_of_which_the_key_was_imported_signs_alone(folder: Folder) -> None:
    """`check` looks, and names both settings. A worker has started; it goes on with the file, and refuses a reload."""
    sources = elsewhere(0), folder.source("ES256")
    ring, mistakes = read(*sources)
    assert mistakes == []
    [found] = shown(await ring.look())
    assert found[0] == f"{AT}[0].memory"
    assert found[1].startswith("has the same kid ")
    assert found[1].endswith(f" as {AT}[1].file; each key of an issuer needs its own")
    assert [double.key for double in ring.doubles()] == [sources[0]]
    assert len(ring.jwks(ISS)["keys"]) == 1
    asked = sources[0].placed
    assert await ring.sign(ISS, Algorithm.ES256, None, claims())
    assert (asked.fault, [key.setting for key in ring.of(ISS)]) == (None, [f"{AT}[1].file"])
    assert read(*sources)[1] == [found]


async def test_of_two_places_with_one_key_the_first_signs() -> None:
    """Such as an alias and the ARN that it leads to."""
    ring, _ = read(elsewhere(0), elsewhere(1))
    [(path, text)] = shown(await ring.look())
    assert (path, f"as {AT}[0].memory;" in text) == (f"{AT}[1].memory", True)
    assert [key.setting for key in ring.of(ISS)] == [f"{AT}[0].memory"]
