"""Refused events: `notifier status` and the console list them first, by issuer and reason, for an hour."""

from notifier.delivery.facts import DeadLettered
from notifier.model.message import Depth, Lane
from notifier.model.outcome import DeadReason
from notifier.model.trouble import Trouble, TroubleKind
from notifier.operators.status.health_observer import MAX_REFUSAL_COUNTS, REFUSAL_SECONDS, RefusedEventCounts
from notifier.operators.status.service_status import WorkerState, dump_state, status_of, troubles_of

ISS = "https://id.example.com"


def refused(iss: str = ISS, reason: DeadReason = DeadReason.PUBLISHER_NOT_ALLOWED, client_id: str = "") -> DeadLettered:
    """Return a dead letter of a whole event, unless it has a client."""
    return DeadLettered(
        iss=iss, client_id=client_id, event_id="e-1", reason=reason, text="publisher 'guest' may not speak"
    )


def test_refused_events_are_counted_until_an_hour_without_any() -> None:
    """A dead letter of one client is not a refused event."""
    now = [0.0]
    events = RefusedEventCounts(lambda: now[0])
    for _ in range(50_000):
        events.observe(refused())
    events.observe(refused(client_id="shop"))
    now[0] = REFUSAL_SECONDS - 1
    events.observe(refused())
    now[0] += REFUSAL_SECONDS
    [trouble] = events.troubles()
    assert (trouble.kind, trouble.iss, trouble.subject, trouble.since) == (
        TroubleKind.EVENTS_REFUSED,
        ISS,
        "publisher_not_allowed",
        0.0,
    )
    assert trouble.count == 50_001
    assert "publisher 'guest' may not speak" in trouble.text
    now[0] += 1
    assert list(events.troubles()) == []


def test_invented_issuers_take_bounded_memory_and_lose_no_count() -> None:
    """Issuers over the limit share one count."""
    events = RefusedEventCounts(lambda: 0.0)
    for number in range(1000):
        events.observe(refused(f"https://{number}.example", DeadReason.UNKNOWN_ISSUER))
    troubles = list(events.troubles())
    assert len(troubles) == MAX_REFUSAL_COUNTS + 1
    assert sum(trouble.count for trouble in troubles) == 1000


def test_what_a_malformed_event_contains_is_not_shown() -> None:
    """Its errors may contain a user."""
    events = RefusedEventCounts(lambda: 0.0)
    events.observe(refused(reason=DeadReason.MALFORMED_EVENT))
    [trouble] = events.troubles()
    assert "guest" not in trouble.text
    assert trouble.text.endswith("`notifier dead-letters list --reason malformed_event`")


def test_refused_events_precede_other_problems() -> None:
    """Only an unreachable queue comes before them."""
    events = RefusedEventCounts(lambda: 0.0)
    events.observe(refused())
    key = Trouble(kind=TroubleKind.KEY_MISSING, text="no key", iss=ISS)
    state = WorkerState(
        worker="w", version="1", since=0.0, draining=False, in_flight=0, held={}, rates={}, clients=(),
        troubles=[key, *events.troubles()],
    )  # fmt: skip
    status = status_of({Lane.EVENTS: Depth(ready=0, consumers=1)}, [dump_state(state)], now=60.0)
    kinds = [shared.trouble.kind for shared in troubles_of(status)]
    assert kinds == [TroubleKind.EVENTS_REFUSED, TroubleKind.KEY_MISSING]
