"""Test keys of issuers that are duplicated, new, or published elsewhere."""

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
from notifier.tokens.published_keys import find_publication_fault
from tests.tokens.key_folder import ISS, NOW, OTHER, Folder
from tests.tokens.memory_place import MemoryPlace, SignerHarness
from tests.tokens.test_keys import claims

# ── Two keys of one issuer with one `kid`: refused at configuration, or once their signers report it ─────────────────


AT = f'issuers["{ISS}"].keys'


def elsewhere(nth: int, harness: SignerHarness | None = None, kid: str | None = None) -> ExternalKeyEntry:
    """Return the key of that number, in a signer in memory."""
    return ExternalKeyEntry(
        external_key=(harness or SignerHarness(MemoryPlace())).key, setting=f"{AT}[{nth}].memory", kid=kid
    )


def read(*sources: KeySource | ExternalKeyEntry) -> tuple[KeyRing, list[tuple[str, str]]]:
    """Return the ring of an issuer with these keys, and the errors."""
    ring, mistakes = examine_keys({ISS: sources, OTHER: sources[:1]}, clock=lambda: NOW)
    return ring, shown(mistakes)


def shown(mistakes: Sequence[InputIssue]) -> list[tuple[str, str]]:
    """Return path and text of each."""
    return [(each.path, each.text) for each in mistakes]


@pytest.mark.parametrize("first", ["file", "place"])
def test_duplicate_kid_is_refused_without_a_request(folder: Folder, first: str) -> None:
    """For keys in files and in signers. Another issuer may have the same."""
    one = folder.source("ES256", kid="k") if first == "file" else elsewhere(0, kid="k")
    _, mistakes = read(one, elsewhere(1, kid="other"), elsewhere(2, kid="k"))
    assert mistakes == [(f"{AT}[2].kid", "has the same kid 'k' as keys[0]; each key of an issuer needs its own")]


def test_duplicate_signer_is_refused_without_a_request() -> None:
    """It is one key, whatever its `kid` will be. With two names it is two."""
    harness = SignerHarness(MemoryPlace())
    _, mistakes = read(elsewhere(0, harness), elsewhere(1, harness, kid="named"), elsewhere(2, harness))
    assert mistakes == [(f"{AT}[2].memory", "is the same key as keys[0]; each key of an issuer needs its own")]


async def test_file_takes_precedence_over_its_imported_key(folder: Folder) -> None:
    """`check` names both settings. A running worker continues with the file, and refuses a reload."""
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


async def test_first_of_two_signers_with_one_key_signs() -> None:
    """Such as an alias and the ARN to which it resolves."""
    ring, _ = read(elsewhere(0), elsewhere(1))
    [(path, text)] = shown(await ring.check())
    assert (path, f"as {AT}[0].memory;" in text) == (f"{AT}[1].memory", True)
    assert [key.setting for key in ring.keys_of(ISS)] == [f"{AT}[0].memory"]


# ── The estimated start of a key's publication ───────────────────────────────────────────────────────────────────────


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
    """The known times of the file and the workers. Times are shown as hours ago."""
    made_at = None if file is None else STARTED - file * HOUR
    shown = re.sub(r"\{(-?\d+)\}", lambda hours: format_moment_for_people(STARTED - int(hours[1]) * HOUR), words)
    assert describe_first_day(made_at, by_worker, STARTED) == shown


def test_rewritten_file_makes_a_key_new() -> None:
    """A key was not published before its file was written, nor before it appeared: the later time counts."""
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
def test_observations_of_several_workers(found: list[SeenKey], counts: SeenKey) -> None:
    """A worker that saw it appear knows the time; behind a load balancer one server may have it later."""
    assert merge_seen_keys(found) == {("https://id.example", "k"): counts}


# ── Whether a receiver with the issuer's JWK Set can verify our signature ────────────────────────────────────────────


EC = {"kty": "EC", "crv": "P-256", "x": "AQID", "y": "BAUG", "kid": "k1", "use": "sig", "alg": "ES256"}


def fault(*keys: object, alg: str = "ES256") -> str | None:
    published = read_jwks({"keys": list(keys)})
    assert not isinstance(published, str)
    return find_publication_fault(EC, alg, published)


def test_the_same_key_under_the_same_kid_is_published() -> None:
    """`alg` and `use` are optional (RFC 7517 §4), others may be present, and leading zeros are insignificant."""
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
def test_obstacles_to_verification_are_reported(published: list[object], words: str) -> None:
    """Each with its own text and remedy."""
    assert words in (fault(*published) or "")


@pytest.mark.parametrize("document", [None, [], {}, {"keys": {}}, "keys"])
def test_document_that_is_not_a_jwk_set_is_reported(document: object) -> None:
    """An error page in JSON is not an empty set: our keys may be published."""
    assert isinstance(read_jwks(document), str)
