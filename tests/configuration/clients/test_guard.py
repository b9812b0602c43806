"""The guard of a registry source: an answer is taken client by client, and only losses may be held back."""

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
from tests.tokens.key_folder import ISS, pem


class Source:
    """A worker with one source, which answers as the test says."""

    def __init__(self, folder: Path, *, cache: bool = True) -> None:
        (folder / "key.pem").write_bytes(pem("RS256"))
        registry: dict[str, Any] = {"sources": [{"name": "own", "http": {"url": "https://id.example.com/list"}}]}
        document = {"issuers": {ISS: {"keys": [{"file": "key.pem"}]}}, "registry": registry}
        if cache:
            registry["cache"] = "cache"
        path = folder / "notifier.json"
        path.write_text(json.dumps(document))
        self.live = LiveConfiguration(path, {}, load(path, {}, FEATURES))
        self.settings = self.live.now.settings.registry

    def says(self, at: str, *names: str, when: float | None = None, accepted_by: str | None = None) -> AnswerResult:
        """It has these clients, each at its own address below `at`."""
        rows = [{"client_id": name, "backchannel_logout_uri": f"{at}/{name}"} for name in names]
        answer = SourceAnswer(rows=rows, at=time.time() if when is None else when, mark="7")
        return self.live.take_answer("own", answer, accepted_by=accepted_by)

    @property
    def told(self) -> Mapping[str, str | None]:
        """Where each client is told."""
        return {name: client.logout_uri for name, client in self.live.registry().clients_of(ISS).items()}


GOOD, EVIL = "https://good.example", "https://evil.example"
NAMES = tuple(f"c{nth}" for nth in range(10))


def at(where: str, *names: str) -> Mapping[str, str]:
    """Each of these clients there."""
    return {name: f"{where}/{name}" for name in names}


def test_the_honest_list_undoes_the_poisoned_one(tmp_path: Path) -> None:
    """Addresses come back at once, what the poisoned list brought goes, and what it took away never went."""
    source = Source(tmp_path)
    source.says(GOOD, *NAMES)
    poisoned = source.says(EVIL, *NAMES[:4], *(f"x{nth}" for nth in range(200)))
    assert poisoned.held_back is not None
    assert "6 of 10 clients" in poisoned.held_back
    assert {name: source.told[name] for name in NAMES} == {**at(EVIL, *NAMES[:4]), **at(GOOD, *NAMES[4:])}
    assert source.says(GOOD, *NAMES).held_back is None
    assert source.told == at(GOOD, *NAMES)


def test_without_a_cache_nobody_knows_since_when(tmp_path: Path) -> None:
    """So what a poisoned list brought is held back too, at its new address; an operator lets it go."""
    source = Source(tmp_path, cache=False)
    source.says(GOOD, *NAMES)
    source.says(EVIL, *NAMES, "x0", "x1", "x2")
    honest = source.says(GOOD, *NAMES)
    assert honest.held_back is not None
    assert "3 of 13 clients" in honest.held_back
    assert source.told == {**at(GOOD, *NAMES), **at(EVIL, "x0", "x1", "x2")}
    assert source.says(GOOD, *NAMES, accepted_by="alice").held_back is None
    assert source.told == at(GOOD, *NAMES)


@pytest.mark.parametrize("age", [0.0, 2 * DAY_SECONDS], ids=["new", "known for days"])
def test_new_clients_hide_no_loss_of_others(tmp_path: Path, age: float) -> None:
    """The share is that of the clients that are known for a day: a thousand new ones beside them change nothing."""
    source = Source(tmp_path)
    source.says(GOOD, *NAMES)
    source.says(GOOD, *NAMES, *(f"x{nth}" for nth in range(50)), when=time.time() - age)
    assert len(source.told) == 60
    lost = source.says(GOOD, *(f"x{nth}" for nth in range(50)))
    assert (lost.held_back is not None) is (age == 0.0)
    assert all(name in source.told for name in NAMES) is (age == 0.0)


def test_an_answer_without_addresses_loses_too(tmp_path: Path) -> None:
    """Such a client keeps its old row, and so does one whose new row cannot be used."""
    source = Source(tmp_path)
    source.says(GOOD, *NAMES)
    rows = [
        {"client_id": name, "backchannel_logout_uri": None if nth % 2 else "ftp://x"} for nth, name in enumerate(NAMES)
    ]
    assert source.live.take_answer("own", SourceAnswer(rows=rows, at=time.time())).held_back is not None
    assert source.told == at(GOOD, *NAMES)


def test_what_is_held_back_is_asked_for_again_and_again(tmp_path: Path) -> None:
    """Without the mark by which the source would say that nothing has changed; nothing is taken twice."""
    source = Source(tmp_path)
    first = source.says(GOOD, *NAMES).answer
    held = source.says(GOOD, "c0").answer
    assert first is not None
    assert held is not None
    assert (held.mark, held.at) == (None, first.at)
    again = source.live.take_answer("own", SourceAnswer(rows=[held.rows[0]], at=time.time()))
    assert again.held_back is not None
    assert again.answer is not None
    assert again.answer.rows is held.rows


def test_the_cache_knows_what_is_in_force_and_since_when(tmp_path: Path) -> None:
    """So the worker after it takes the honest list as this one would."""
    before = Source(tmp_path)
    before.says(GOOD, *NAMES)
    poisoned = before.says(EVIL, "c0", "x0", "x1", "x2", "x3").answer
    assert poisoned is not None
    cache = Cache(before.settings.cache)
    cache.save(before.settings.sources[0], poisoned)
    kept = cache.load(before.settings.sources[0])
    assert kept is not None
    assert {str(row["client_id"]) for row in kept.rows} == {*NAMES, "x0", "x1", "x2", "x3"}
    assert [*kept.rows] == [*poisoned.rows]
    after = Source(tmp_path)
    after.live.take_answer("own", kept)
    assert after.told == {**at(EVIL, "c0", "x0", "x1", "x2", "x3"), **at(GOOD, *NAMES[1:])}
    assert after.says(GOOD, *NAMES).held_back is None
    assert after.told == at(GOOD, *NAMES)


def test_many_moves_and_many_new_clients_are_told(tmp_path: Path) -> None:
    """As many as would be too many to lose. The first answer of a source is no change."""
    source = Source(tmp_path)
    assert source.says(GOOD, *NAMES).sudden_change is None
    assert source.says(GOOD, *NAMES, "x0", "x1").sudden_change is None
    moved = source.says(EVIL, *NAMES, *(f"x{nth}" for nth in range(9))).sudden_change
    assert moved is not None
    assert moved.startswith("besides 12 clients with an address before, 12 have another address: 'c0', 'c1'")
    assert "; 7 are new: 'x2', 'x3'" in moved
    assert source.says(EVIL, *NAMES, *(f"x{nth}" for nth in range(9))).sudden_change is None


def test_a_client_is_no_new_one_because_its_row_names_its_issuer(tmp_path: Path) -> None:
    """Else a poisoned list could spell the issuer out first, and lose all clients then."""
    source = Source(tmp_path)
    source.says(GOOD, *NAMES)
    rows = [{"client_id": name, "issuer": ISS, "backchannel_logout_uri": f"{GOOD}/{name}"} for name in NAMES]
    source.live.take_answer("own", SourceAnswer(rows=rows, at=time.time(), mark="8"), accepted_by=None)
    assert source.says(GOOD).held_back is not None
    assert source.told == at(GOOD, *NAMES)


# ── Which of a client's redirect URIs name an origin ──────────────────────────────────────────────────────────────


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
def test_only_exact_origins_count_but_beside_a_pattern_the_client_s_own_uri_does(
    given: object, front_channel: str | None, found: list[str] | None
) -> None:
    """Behind `*` may be any origin, and only the server can judge F1 then."""
    assert redirect_uris(given, front_channel) == found
