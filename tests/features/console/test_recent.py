"""What a worker remembers for the console: bounded, and found by user, session or event."""

from collections.abc import Iterator
from itertools import count

from notifier.delivery import facts
from notifier.features.console.recent import ANSWERS, AT_ONCE, CLIENTS, STEP, STEPS, TROUBLE, Recent, merged_steps
from notifier.model.delivery import Delivery
from notifier.model.outcome import Cause, DeadReason, Delivered, Failed, Outcome, Reason
from tests.support.outcome_facts import attempted

ISS, OTHER = "https://id.example.com", "https://other.example.com"
NOW = 1_800_000_000.0


class Told:
    """A memory with a clock that is set by hand."""

    def __init__(self) -> None:
        self.now = NOW
        self.recent = Recent(lambda: self.now)
        self._ids: Iterator[int] = count()

    def attempted(self, client_id: str = "shop", outcome: Outcome | None = None, iss: str = ISS) -> Delivery:
        """An attempt for a user and a session of its own."""
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
        outcome = outcome or Failed(reason=Reason.SERVER_ERROR, status=503, text=f"no user-{number} here")
        self.recent.observe(attempted(delivery, outcome, at=self.now))
        return delivery


def test_a_row_shows_no_user() -> None:
    """It is found by its user, its session or its event, and shows neither of the first two."""
    told = Told()
    delivery = told.attempted()
    for wanted in ({"subject": "user-0"}, {"subject": "session-0"}, {"event_id": "e0"}):
        asked = {"subject": None, "event_id": None, "issuers": None, **wanted}
        [row] = told.recent.found(**asked)
        shown = row.document()
        assert (shown["client_id"], shown["kind"], shown["status"]) == ("shop", "failed", 503)
        assert str(delivery.sub) not in str(shown)
        assert str(delivery.sid) not in str(shown)
    assert not told.recent.found(event_id=None, subject="user", issuers=None)
    assert not told.recent.found(event_id="e0", subject=None, issuers=[OTHER])


def test_all_of_it_is_bounded() -> None:
    """By rows, by clients, by answers of each, and by counts."""
    told = Told()
    for number in range(TROUBLE + CLIENTS + 10):
        told.now += STEP
        told.attempted(f"c{number}")
    for _ in range(ANSWERS + 3):
        told.attempted("busy")
    recent = told.recent
    assert not list(recent.answers((ISS, "c0")))
    assert [row.number for row in recent.answers((ISS, "busy"))][-1] == recent.last
    assert len(list(recent.answers((ISS, "busy")))) == ANSWERS
    assert len(recent.steps(0)) == STEPS
    assert len(recent.after(0, well=True, issuers=None)) == AT_ONCE
    assert recent.since > NOW, "it says from when on it remembers everything"


def test_what_happened_after_an_answer_is_told_once() -> None:
    """Deliveries only if they are wanted, and nothing of other issuers."""
    told = Told()
    told.attempted(outcome=Delivered(status=200))
    told.attempted()
    told.attempted(iss=OTHER)
    recent, last = told.recent, told.recent.last
    assert [row.kind for row in recent.after(0, well=True, issuers=None)] == ["delivered", "failed", "failed"]
    assert [row.kind for row in recent.after(0, well=False, issuers=[OTHER])] == ["failed"]
    assert not recent.after(recent.last, well=True, issuers=None)
    recent.observe(facts.ClientFailing(iss=ISS, client_id="shop", next_try=NOW + 1))
    recent.observe(facts.ClientRecovered(iss=ISS, client_id="shop", outage=4.5))
    deferred = facts.Deferred(iss=ISS, client_id="shop", event_id="e", cause=Cause.SIGNING, due=NOW + 2)
    recent.observe(deferred)  # not the first of its kind: nothing new
    recent.observe(_first(deferred))
    buried = facts.Buried(iss=ISS, client_id="", event_id="e", reason=DeadReason.MALFORMED_EVENT, text="no JSON")
    recent.observe(buried)
    assert [row.kind for row in recent.after(last, well=True, issuers=None)] == [
        "down",
        "recovered",
        "put_off",
        "dead",
    ]


def test_a_worker_that_follows_one_of_its_name_goes_on_from_its_numbers() -> None:
    """A container that is restarted keeps host and process ID: whoever followed the one before misses nothing."""
    told = Told()
    for _ in range(3):
        told.attempted()
    after = told.recent.last
    told.now += 1
    told.recent = Recent(lambda: told.now)
    told.attempted()
    assert [row.event_id for row in told.recent.after(after, well=True, issuers=None)] == ["e3"]


def _first(deferred: facts.Deferred) -> facts.Deferred:
    return facts.Deferred(
        iss=deferred.iss, client_id=deferred.client_id, event_id="e", cause=deferred.cause, due=NOW, first=True
    )


def test_counts_of_workers_are_summed_up() -> None:
    """A step that one worker has and another has not is there, too."""
    assert merged_steps([[[7, 1, 2], [8, 1, 0]], [[8, 2, 2]]]) == [[7, 1, 2], [8, 3, 2]]
