"""What a worker remembers for the console: bounded, and found by user, session or event."""

import tracemalloc
from collections.abc import Iterator
from itertools import count
from types import SimpleNamespace
from typing import Any, cast

import pytest

from notifier.delivery import facts
from notifier.features.console.all_workers import merge_steps
from notifier.features.console.console_feature import CONSOLE
from notifier.features.console.recent import (
    MAX_ANSWERS,
    MAX_CLIENT_BYTES,
    MAX_CLIENTS,
    MAX_ROWS_PER_ANSWER,
    MAX_STEPS,
    MAX_TROUBLE_BYTES,
    MAX_TROUBLE_ROWS,
    MAX_WELL_BYTES,
    STEP_SECONDS,
    Recent,
)
from notifier.model.delivery import Delivery
from notifier.model.documents.cloudevents import MAX_ID_BYTES, MAX_TEXT_LENGTH
from notifier.model.documents.documents import dump_delivery
from notifier.model.egress import MAX_URI_LENGTH
from notifier.model.outcome import Cause, DeadReason, Delivered, Failed, Outcome, Reason
from notifier.model.record import copy_record
from tests.settings.whole_settings import SETTINGS
from tests.support.outcome_facts import attempted

ISS, OTHER = "https://id.example.com", "https://other.example.com"
NOW = 1_800_000_000.0


class Harness:
    """A memory with a clock that is set by hand."""

    def __init__(self) -> None:
        self.now = NOW
        self.recent = Recent(lambda: self.now)
        self._ids: Iterator[int] = count()

    def attempted(
        self, client_id: str = "shop", outcome: Outcome | None = None, iss: str = ISS, **more: str
    ) -> Delivery:
        """Record an attempt for a new user and session."""
        number = next(self._ids)
        delivery = Delivery(
            id=f"d{number}",
            event_id=f"e{number}",
            id_given=True,
            iss=iss,
            client_id=client_id,
            sub=f"user-{number}",
            sid=f"session-{number}",
        )
        delivery = copy_record(delivery, **more)
        outcome = outcome or Failed(reason=Reason.SERVER_ERROR, status=503, text=f"no user-{number} here")
        self.recent.observe(attempted(delivery, outcome, at=self.now))
        return delivery


def test_a_row_shows_no_user() -> None:
    """It is found by its user, its session or its event, and shows neither of the first two."""
    harness = Harness()
    delivery = harness.attempted()
    for wanted in ({"subject": "user-0"}, {"subject": "session-0"}, {"event_id": "e0"}):
        asked = {"subject": None, "event_id": None, "issuers": None, **wanted}
        [row] = harness.recent.find_rows(**asked)
        shown = row.document()
        assert (shown["client_id"], shown["kind"], shown["status"]) == ("shop", "failed", 503)
        assert str(delivery.sub) not in str(shown)
        assert str(delivery.sid) not in str(shown)
    assert not harness.recent.find_rows(event_id=None, subject="user", issuers=None)
    assert not harness.recent.find_rows(event_id="e0", subject=None, issuers=[OTHER])


def test_all_of_it_is_bounded() -> None:
    """By rows, by clients, by answers of each, and by counts."""
    harness = Harness()
    for number in range(MAX_TROUBLE_ROWS + MAX_CLIENTS + 10):
        harness.now += STEP_SECONDS
        harness.attempted(f"c{number}")
    for _ in range(MAX_ANSWERS + 3):
        harness.attempted("busy")
    recent = harness.recent
    assert not list(recent.answers((ISS, "c0")))
    assert [row.number for row in recent.answers((ISS, "busy"))][-1] == recent.last
    assert len(list(recent.answers((ISS, "busy")))) == MAX_ANSWERS
    assert len(recent.steps(0)) == MAX_STEPS
    assert len(recent.after(0, well=True, issuers=None)) == MAX_ROWS_PER_ANSWER
    assert recent.since > NOW, "`since` is the start of the complete record"


@pytest.mark.parametrize("written", [False, True])
def test_the_longest_names_take_no_more_bytes(written: bool) -> None:
    """In characters of four bytes. Names written as JSON keep their UTF-8 form, as those of a retried delivery do."""
    harness, wide = Harness(), "\N{GRINNING FACE}"
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for number in range(2_000):
        harness.now += STEP_SECONDS
        event_id, name = f"{number:015}".ljust(MAX_ID_BYTES, "e"), f"{number:04}".ljust(MAX_TEXT_LENGTH, wide)
        outcome = Delivered(status=200) if number % 2 else Failed(reason=Reason.TIMEOUT, text="")
        iss = f"{ISS}/{number % 7}".ljust(MAX_URI_LENGTH, "i")
        delivery = harness.attempted(name, outcome, iss, event_id=event_id, sub=name, sid=name)
        if written:
            dump_delivery(delivery)
        deferred = _deferred(iss, name, event_id)
        harness.recent.observe(copy_record(deferred, first=True, text=name))
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 2**20 < after - before < MAX_TROUBLE_BYTES + MAX_WELL_BYTES + MAX_CLIENT_BYTES
    assert written or len(harness.recent.after(0, well=False, issuers=None)) == MAX_ROWS_PER_ANSWER


def test_many_answers_of_others_evict_no_client() -> None:
    """Where thousands are called all the time, each keeps fewer answers, and its minutes."""
    harness = Harness()
    for _ in range(MAX_ANSWERS + 1):
        for number in range(MAX_CLIENTS):
            harness.attempted(f"client-{number}", Failed(reason=Reason.TIMEOUT, text="x" * 200))
    for key in ((ISS, f"client-{number}") for number in range(MAX_CLIENTS)):
        assert 0 < len(list(harness.recent.answers(key))) < MAX_ANSWERS
        assert [failed for _, _, failed in harness.recent.minutes(key)] == [MAX_ANSWERS + 1]


OFF = {"listen": "127.0.0.1:0", "console": {"enabled": False}}


@pytest.mark.parametrize("settings", [{}, {"api": OFF}], ids=["no-api", "off"])
async def test_without_a_console_nothing_is_kept(settings: dict[str, Any]) -> None:
    """Not for the console of another worker either."""
    live = SimpleNamespace(current=SimpleNamespace(settings=SETTINGS.model_validate(settings)))
    running = CONSOLE.operate(cast("Any", SimpleNamespace(live=live, name="w")))
    assert (running.observe, running.acts) == (None, {})


def test_entries_after_an_answer_are_returned_once() -> None:
    """Deliveries only if they are wanted, and nothing of other issuers."""
    harness = Harness()
    harness.attempted(outcome=Delivered(status=200))
    harness.attempted()
    harness.attempted(iss=OTHER)
    recent, last = harness.recent, harness.recent.last
    assert [row.kind for row in recent.after(0, well=True, issuers=None)] == ["delivered", "failed", "failed"]
    assert [row.kind for row in recent.after(0, well=False, issuers=[OTHER])] == ["failed"]
    assert not recent.after(recent.last, well=True, issuers=None)
    recent.observe(facts.ClientFailing(iss=ISS, client_id="shop", next_try=NOW + 1))
    recent.observe(facts.ClientRecovered(iss=ISS, client_id="shop", outage=4.5))
    deferred = _deferred(ISS, "shop", "e")
    recent.observe(deferred)  # not the first of its kind: nothing new
    recent.observe(copy_record(deferred, first=True))
    dead = facts.DeadLettered(iss=ISS, client_id="", event_id="e", reason=DeadReason.MALFORMED_EVENT, text="no JSON")
    recent.observe(dead)
    assert [row.kind for row in recent.after(last, well=True, issuers=None)] == [
        "down",
        "recovered",
        "put_off",
        "dead",
    ]


def test_a_successor_of_the_same_name_continues_the_numbers() -> None:
    """A container that is restarted keeps host and process ID: whoever followed the one before misses nothing."""
    harness = Harness()
    for _ in range(3):
        harness.attempted()
    after = harness.recent.last
    harness.now += 1
    harness.recent = Recent(lambda: harness.now)
    harness.attempted()
    assert [row.event_id for row in harness.recent.after(after, well=True, issuers=None)] == ["e3"]


def _deferred(iss: str, client_id: str, event_id: str) -> facts.Deferred:
    return facts.Deferred(iss=iss, client_id=client_id, event_id=event_id, cause=Cause.SIGNING, due=NOW + 2)


def test_counts_of_workers_are_summed_up() -> None:
    """A step that one worker has and another has not is there, too."""
    assert merge_steps([[[7, 1, 2], [8, 1, 0]], [[8, 2, 2]]]) == [[7, 1, 2], [8, 3, 2]]
