"""Test the guard of a registry source: answers are applied per client, and only losses may be withheld."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from notifier.configuration.clients.answers import Cache
from notifier.configuration.clients.client_rows import DAY_SECONDS, AnswerResult, SourceAnswer
from notifier.configuration.clients.remote_rows import redirect_uris
from notifier.configuration.live_configuration import LiveConfiguration
from notifier.configuration.loading import load
from notifier.features import FEATURES
from notifier.model.defaults import MAX_LIST_BYTES
from tests.tokens.key_folder import ISS, pem


class Source:
    """A worker with one source, whose answer the test sets."""

    def __init__(self, folder: Path, *, cache: bool = True) -> None:
        (folder / "key.pem").write_bytes(pem("RS256"))
        registry: dict[str, Any] = {"sources": [{"name": "own", "http": {"url": "https://id.example.com/list"}}]}
        document = {"issuers": {ISS: {"keys": [{"file": "key.pem"}]}}, "registry": registry}
        if cache:
            registry["cache"] = "cache"
        path = folder / "notifier.json"
        path.write_text(json.dumps(document))
        self.live = LiveConfiguration(path, {}, load(path, {}, FEATURES))
        self.settings = self.live.current.settings.registry

    def apply(self, at: str, *names: str, when: float | None = None, accepted_by: str | None = None) -> AnswerResult:
        """Apply an answer with these clients, each at its own address below `at`."""
        rows = [{"client_id": name, "backchannel_logout_uri": f"{at}/{name}"} for name in names]
        answer = SourceAnswer(rows=rows, at=time.time() if when is None else when)
        return self.live.take_answer("own", answer, accepted_by=accepted_by)

    @property
    def addresses(self) -> Mapping[str, str | None]:
        """Return the address of each client."""
        return {name: client.logout_uri for name, client in self.live.registry().clients_of(ISS).items()}


GOOD, EVIL = "https://good.example", "https://evil.example"
NAMES = tuple(f"c{nth}" for nth in range(10))


def at(where: str, *names: str) -> Mapping[str, str]:
    """Return these clients with their addresses there."""
    return {name: f"{where}/{name}" for name in names}


def test_correct_list_reverts_a_poisoned_one(tmp_path: Path) -> None:
    """Addresses return at once, added clients are removed, and withheld removals never happened."""
    source = Source(tmp_path)
    source.apply(GOOD, *NAMES)
    poisoned = source.apply(EVIL, *NAMES[:4], *(f"x{nth}" for nth in range(200)))
    assert poisoned.held_back is not None
    assert "6 of 10 clients" in poisoned.held_back
    assert {name: source.addresses[name] for name in NAMES} == {**at(EVIL, *NAMES[:4]), **at(GOOD, *NAMES[4:])}
    assert source.apply(GOOD, *NAMES).held_back is None
    assert source.addresses == at(GOOD, *NAMES)


def test_without_a_cache_the_age_of_clients_is_unknown(tmp_path: Path) -> None:
    """So clients of a poisoned list are withheld too, at their new addresses; an operator accepts the loss."""
    source = Source(tmp_path, cache=False)
    source.apply(GOOD, *NAMES)
    source.apply(EVIL, *NAMES, "x0", "x1", "x2")
    honest = source.apply(GOOD, *NAMES)
    assert honest.held_back is not None
    assert "3 of 13 clients" in honest.held_back
    assert source.addresses == {**at(GOOD, *NAMES), **at(EVIL, "x0", "x1", "x2")}
    assert source.apply(GOOD, *NAMES, accepted_by="alice").held_back is None
    assert source.addresses == at(GOOD, *NAMES)


@pytest.mark.parametrize("age", [0.0, 2 * DAY_SECONDS], ids=["new", "known for days"])
def test_new_clients_do_not_hide_a_loss(tmp_path: Path, age: float) -> None:
    """The share is computed over clients known for a day: a thousand new ones do not change it."""
    source = Source(tmp_path)
    source.apply(GOOD, *NAMES)
    source.apply(GOOD, *NAMES, *(f"x{nth}" for nth in range(50)), when=time.time() - age)
    assert len(source.addresses) == 60
    lost = source.apply(GOOD, *(f"x{nth}" for nth in range(50)))
    assert (lost.held_back is not None) is (age == 0.0)
    assert all(name in source.addresses for name in NAMES) is (age == 0.0)


def test_answer_without_addresses_is_a_loss(tmp_path: Path) -> None:
    """Such a client keeps its old row, as does a client whose new row is invalid."""
    source = Source(tmp_path)
    source.apply(GOOD, *NAMES)
    rows = [
        {"client_id": name, "backchannel_logout_uri": None if nth % 2 else "ftp://x"} for nth, name in enumerate(NAMES)
    ]
    assert source.live.take_answer("own", SourceAnswer(rows=rows, at=time.time())).held_back is not None
    assert source.addresses == at(GOOD, *NAMES)


def large_rows(sign: str) -> list[Mapping[str, object]]:
    """Return clients whose names begin with the sign, with two thirds of the bytes that a list may have."""
    name = "n" * (MAX_LIST_BYTES // 15)
    return [{"client_id": f"{sign}{nth}", "backchannel_logout_uri": GOOD, "client_name": name} for nth in range(10)]


@pytest.mark.parametrize("cache", [True, False], ids=["with a cache", "without a cache"])
def test_withheld_clients_count_as_clients_of_the_list(tmp_path: Path, cache: bool) -> None:
    """Otherwise a list with new names in each answer takes more memory at each. An operator may accept the loss."""
    source = Source(tmp_path, cache=cache)
    first = source.live.take_answer("own", SourceAnswer(rows=large_rows("a"), at=time.time())).answer
    assert first is not None
    before = source.live.registry().clients_of(ISS)
    for sign in "bc":
        held = source.live.take_answer("own", SourceAnswer(rows=large_rows(sign), at=time.time()))
        assert held.held_back is not None
        assert "10 of 10 clients" in held.held_back
        assert "with them its list has more than 16 MiB of client metadata, so nothing of this" in held.held_back
        assert held.answer is not None
        assert held.answer.rows is first.rows
        assert source.live.registry().clients_of(ISS) == before
    accepted = SourceAnswer(rows=large_rows("d"), at=time.time())
    assert source.live.take_answer("own", accepted, accepted_by="alice").held_back is None
    assert list(source.addresses) == [f"d{nth}" for nth in range(10)]


def test_withheld_answer_is_requested_again(tmp_path: Path) -> None:
    """Nothing is applied twice."""
    source = Source(tmp_path)
    first = source.apply(GOOD, *NAMES).answer
    held = source.apply(GOOD, "c0").answer
    assert first is not None
    assert held is not None
    assert held.at == first.at
    again = source.live.take_answer("own", SourceAnswer(rows=[held.rows[0]], at=time.time()))
    assert again.held_back is not None
    assert again.answer is not None
    assert again.answer.rows is held.rows


def test_cache_contains_the_clients_in_force_and_their_age(tmp_path: Path) -> None:
    """So its successor accepts the honest list as this worker would."""
    before = Source(tmp_path)
    before.apply(GOOD, *NAMES)
    poisoned = before.apply(EVIL, "c0", "x0", "x1", "x2", "x3").answer
    assert poisoned is not None
    cache = Cache(before.settings.cache)
    cache.save(before.settings.sources[0], poisoned)
    kept = cache.load(before.settings.sources[0])
    assert kept is not None
    assert {str(row["client_id"]) for row in kept.rows} == {*NAMES, "x0", "x1", "x2", "x3"}
    assert [*kept.rows] == [*poisoned.rows]
    after = Source(tmp_path)
    after.live.take_answer("own", kept)
    assert after.addresses == {**at(EVIL, "c0", "x0", "x1", "x2", "x3"), **at(GOOD, *NAMES[1:])}
    assert after.apply(GOOD, *NAMES).held_back is None
    assert after.addresses == at(GOOD, *NAMES)


def test_many_moves_and_many_new_clients_are_reported(tmp_path: Path) -> None:
    """In numbers that would be too large for a loss. The first answer of a source is not a change."""
    source = Source(tmp_path)
    assert source.apply(GOOD, *NAMES).sudden_change is None
    assert source.apply(GOOD, *NAMES, "x0", "x1").sudden_change is None
    moved = source.apply(EVIL, *NAMES, *(f"x{nth}" for nth in range(9))).sudden_change
    assert moved is not None
    assert moved.startswith("besides 12 clients with an address before, 12 have another address: 'c0', 'c1'")
    assert "; 7 are new: 'x2', 'x3'" in moved
    assert source.apply(EVIL, *NAMES, *(f"x{nth}" for nth in range(9))).sudden_change is None


def test_explicit_issuer_does_not_make_a_client_new(tmp_path: Path) -> None:
    """Otherwise a poisoned list could add the issuer first, and then remove all clients."""
    source = Source(tmp_path)
    source.apply(GOOD, *NAMES)
    rows = [{"client_id": name, "issuer": ISS, "backchannel_logout_uri": f"{GOOD}/{name}"} for name in NAMES]
    source.live.take_answer("own", SourceAnswer(rows=rows, at=time.time()), accepted_by=None)
    assert source.apply(GOOD).held_back is not None
    assert source.addresses == at(GOOD, *NAMES)


# ── Which of a client's redirect URIs set an origin ──────────────────────────────────────────────────────────────────


CALLBACK = "https://a.example.com/cb"
FRONT = "https://b.example.com/fcl?x=1"


@pytest.mark.parametrize(
    ("given", "front_channel", "found"),
    [
        ([CALLBACK], FRONT, [CALLBACK]),
        ([CALLBACK, "com.example.app:/cb", "/cb", 5, None], FRONT, [CALLBACK]),
        ([CALLBACK, "*"], FRONT, [CALLBACK, "https://b.example.com"]),
        ([CALLBACK, "https://*.example.com/cb"], FRONT, [CALLBACK, "https://b.example.com"]),
        (["regexp=(https://a.example.com/cb|https://b.example.com/cb)"], FRONT, ["https://b.example.com"]),
        (["https://a.example.com/*"], FRONT, ["https://a.example.com/*"]),
        (["*"], None, None),
        ([], FRONT, None),
        (None, FRONT, None),
        ("https://a.example.com/cb", None, None),
        (5, None, None),
    ],
)
def test_exact_origins_count_and_the_own_uri_beside_a_pattern(
    given: object, front_channel: str | None, found: list[str] | None
) -> None:
    """Behind `*` may be any origin, and only the server can check F1 then."""
    assert redirect_uris(given, front_channel) == found
