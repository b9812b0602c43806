"""Keys of issuers that are doubled, new, or published elsewhere."""

import re
from collections.abc import Sequence

import pytest

from notifier.model.client import Algorithm
from notifier.model.durations import DAY_SECONDS
from notifier.model.errors import InputIssue
from notifier.model.moment import format_moment_for_people
from notifier.tokens.first_day import SeenKey, describe_first_day, earliest_publication, merge_seen_keys
from notifier.tokens.foreign_keys import read_jwks
from notifier.tokens.key_files import KeySource, examine_keys
from notifier.tokens.key_ring import ExternalKeyEntry, KeyRing
from notifier.tokens.published_keys import publication_fault
from tests.tokens.key_folder import ISS, NOW, OTHER, Folder
from tests.tokens.memory_place import MemoryPlace, Rig
from tests.tokens.test_keys import claims

# ── Two keys of one issuer with one `kid`: refused where the configuration shows it, or once their places tell it


AT = f'issuers["{ISS}"].keys'


def elsewhere(nth: int, rig: Rig | None = None, kid: str | None = None) -> ExternalKeyEntry:
    """The key of that number, in a place in memory."""
    return ExternalKeyEntry(external_key=(rig or Rig(MemoryPlace())).key, setting=f"{AT}[{nth}].memory", kid=kid)


def read(*sources: KeySource | ExternalKeyEntry) -> tuple[KeyRing, list[tuple[str, str]]]:
    """The ring of an issuer with these keys, and the mistakes."""
    ring, mistakes = examine_keys({ISS: sources, OTHER: sources[:1]}, clock=lambda: NOW)
    return ring, shown(mistakes)


def shown(mistakes: Sequence[InputIssue]) -> list[tuple[str, str]]:
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
    [found] = shown(await ring.check())
    assert found[0] == f"{AT}[0].memory"
    assert found[1].startswith("has the same kid ")
    assert found[1].endswith(f" as {AT}[1].file; each key of an issuer needs its own")
    assert [double.key for double in ring.duplicates()] == [sources[0]]
    assert len(ring.jwks(ISS)["keys"]) == 1
    asked = sources[0].external_key
    assert await ring.sign(ISS, Algorithm.ES256, None, claims())
    assert (asked.fault, [key.setting for key in ring.keys_of(ISS)]) == (None, [f"{AT}[1].file"])
    assert read(*sources)[1] == [found]


async def test_of_two_places_with_one_key_the_first_signs() -> None:
    """Such as an alias and the ARN that it leads to."""
    ring, _ = read(elsewhere(0), elsewhere(1))
    [(path, text)] = shown(await ring.check())
    assert (path, f"as {AT}[0].memory;" in text) == (f"{AT}[1].memory", True)
    assert [key.setting for key in ring.keys_of(ISS)] == [f"{AT}[0].memory"]


# ── What can be known of the moment at which a key began to be published ──────────────────────────────────────────


STARTED = 1_800_000_000.0
HOUR = 3600.0


def seen(hours_ago: float, *, appeared: bool = False) -> SeenKey:
    return SeenKey(iss="https://id.example", kid="k", since=STARTED - hours_ago * HOUR, appeared=appeared)


@pytest.mark.parametrize(
    ("file", "by_worker", "words"),
    [
        (None, None, "nobody saw since when"),
        (1, None, "since {1} at the earliest, when it was made; its first day lasts until {-23}"),
        (
            30,
            None,
            "since {30} at the earliest, when it was made; its first day is over, if it was there then",
        ),
        (30, seen(2), "since {2} or longer (made {30}); its first day is over by {-22}"),
        (30, seen(25), "since {25} or longer (made {30}); its first day is over"),
        (30, seen(2, appeared=True), "since {2}; its first day lasts until {-22}"),
        (None, seen(25, appeared=True), "since {25}; its first day is over"),
        (None, seen(2), "since {2} or longer; its first day is over by {-22}"),
    ],
)
def test_in_words(file: float | None, by_worker: SeenKey | None, words: str) -> None:
    """As much as the file's time and the workers tell, and no more. Moments stand as hours ago."""
    made_at = None if file is None else STARTED - file * HOUR
    shown = re.sub(r"\{(-?\d+)\}", lambda hours: format_moment_for_people(STARTED - int(hours[1]) * HOUR), words)
    assert describe_first_day(made_at, by_worker, STARTED) == shown


def test_a_file_that_was_written_anew_makes_a_key_new() -> None:
    """A key was not published before its file was written, nor before it appeared: the later counts."""
    assert earliest_publication(STARTED - HOUR, seen(DAY_SECONDS, appeared=True)) == STARTED - HOUR
    assert earliest_publication(STARTED - DAY_SECONDS, seen(1, appeared=True)) == STARTED - HOUR
    assert earliest_publication(STARTED - DAY_SECONDS, seen(1)) == STARTED - DAY_SECONDS
    assert earliest_publication(None, seen(1)) is None


@pytest.mark.parametrize(
    ("found", "counts"),
    [
        ([seen(5), seen(7), seen(6)], seen(7)),
        ([seen(5, appeared=True), seen(4, appeared=True)], seen(4, appeared=True)),
        ([seen(3), seen(5, appeared=True)], seen(5, appeared=True)),
        ([seen(5, appeared=True), seen(9)], seen(5, appeared=True)),
    ],
)
def test_what_several_workers_saw(found: list[SeenKey], counts: SeenKey) -> None:
    """Who saw it appear knows most; behind a balancer one of two issuers' servers may have it later."""
    assert merge_seen_keys(found) == {("https://id.example", "k"): counts}


# ── Whether a receiver that has the issuer's JWK Set can verify what a key of ours signs ──────────────────────────


EC = {"kty": "EC", "crv": "P-256", "x": "AQID", "y": "BAUG", "kid": "k1", "use": "sig", "alg": "ES256"}


def fault(*keys: object, alg: str = "ES256") -> str | None:
    published = read_jwks({"keys": list(keys)})
    assert not isinstance(published, str)
    return publication_fault(EC, alg, published)


def test_the_same_key_under_the_same_kid_is_published() -> None:
    """`alg` and `use` are optional (RFC 7517 §4), others may stand beside it, and leading zeros change no number."""
    assert fault(EC) is None
    assert fault({"kty": "oct", "kid": "k1"}, "no key", EC) is None
    assert fault({name: value for name, value in EC.items() if name not in ("alg", "use")}) is None
    assert fault({**EC, "x": "AAECAw", "key_ops": ["verify"]}) is None


@pytest.mark.parametrize(
    ("published", "words"),
    [
        ([], "not published"),
        ([{**EC, "kid": "k2"}], "kid 'k2'"),
        ([{**EC, "x": "AQIE"}], "another key"),
        ([{**EC, "use": "enc"}], '"use": "enc"'),
        ([{**EC, "key_ops": ["encrypt"]}], '"verify"'),
        ([{**EC, "alg": "ES384"}], "signs by ES256"),
        ([{**EC, "kid": 5, "x": None}], "not published"),
    ],
)
def test_what_keeps_a_receiver_from_verifying_is_named(published: list[object], words: str) -> None:
    """Each with its own sentence, since each has its own way out."""
    assert words in (fault(*published) or "")


@pytest.mark.parametrize("document", [None, [], {}, {"keys": {}}, "keys"])
def test_what_is_no_jwk_set_is_said(document: object) -> None:
    """An error page that is JSON is not an empty set: it says nothing of our keys."""
    assert isinstance(read_jwks(document), str)
