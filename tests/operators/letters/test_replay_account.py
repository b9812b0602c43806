"""What a worker counts of the letters of a replay, and what all workers' counts come to."""

from dataclasses import replace

from notifier.delivery.facts import AlreadyDelivered, Attempted, Buried, Deferred, EventTaken, Skipped
from notifier.model.outcome import Cause, DeadReason, Failed, Reason
from notifier.operators.letters.replay_account import MOST, ReplayAccount, ReplayAccounts, question_of, requests_of
from notifier.operators.status.worker_requests import WorkerAnswer
from notifier.telemetry.observers import Observers
from tests.contract.letters import DELIVERY, ISS
from tests.support.outcome_facts import delivered


def taken(event_id: str, deliveries: int) -> EventTaken:
    """An event is done."""
    return EventTaken(result="accepted", event_id=event_id, iss=ISS, publisher=None, deliveries=deliveries, dated=False)


def buried(name: str, event_id: str = "e-1") -> Buried:
    """A delivery was given up."""
    delivery = replace(DELIVERY, id=name, event_id=event_id)
    return Buried(iss=ISS, client_id="shop", event_id=event_id, reason=DeadReason.EXPIRED, text="", delivery=delivery)


async def account(accounts: ReplayAccounts, id_: str = "r") -> ReplayAccount:
    """What the worker says."""
    said = await accounts.act(question_of(id_, "sre"))
    return ReplayAccount.sum_of([WorkerAnswer(worker="w", version="1", said=said)])


async def test_letters_that_are_followed_count_and_nothing_else() -> None:
    """Each comes to its end once, whatever copies of it do."""
    accounts = ReplayAccounts(lambda: 0.0, Observers())
    for request in requests_of("r", "sre", ["d-1", "d-2", "d-3"], ["e-9"]):
        await accounts.act(request)
    assert (await account(accounts)).waiting(3, 1) == 4
    one, two = (replace(DELIVERY, id=name) for name in ("d-1", "d-2"))
    failed = Failed(reason=Reason.SERVER_ERROR, status=503, text="no")
    accounts.observe(
        Attempted(delivery=two, number=1, jti="j", alg="ES256", outcome=failed, seconds=1, at=0, next_due=9)
    )
    for _ in range(2):
        accounts.observe(delivered(one))
    accounts.observe(delivered(replace(DELIVERY, id="other")))
    accounts.observe(Deferred(iss=ISS, client_id="shop", event_id="e-1", cause=Cause.CIRCUIT, due=9, delivery=two))
    accounts.observe(buried("d-3"))
    accounts.observe(buried("of-the-event", "e-9"))
    accounts.observe(Skipped(iss=ISS, client_id="none", event_id="e-9"))
    accounts.observe(taken("e-9", 2))
    known = await account(accounts)
    assert known.document() == {
        "delivered": 1,
        "failed": {"server_error": 1},
        "dead": {"expired": 2},
        "put_off": {"circuit": 1},
        "text": "503 no",
        "skipped": 1,
    }
    assert (known.waiting(3, 1), known.heard) == (2, 4)  # d-2, and one of the event's two


async def test_what_its_worker_had_delivered_waits_no_more() -> None:
    """A letter, and clients of an event: the broker gave them up although they had been told."""
    accounts = ReplayAccounts(lambda: 0.0, Observers())
    for request in requests_of("r", "sre", ["d-1"], ["e-9"]):
        await accounts.act(request)
    for _ in range(2):
        accounts.observe(AlreadyDelivered(delivery=replace(DELIVERY, id="d-1")))
    accounts.observe(delivered(replace(DELIVERY, id="new", event_id="e-9")))
    accounts.observe(replace(taken("e-9", 3), copies=2))
    known = await account(accounts)
    assert (known.fates.delivered, known.waiting(1, 1), known.heard) == (2, 0, 2)


async def test_a_bounded_number_of_replays_is_followed() -> None:
    """The eldest is forgotten, and each an hour after somebody asked for it."""
    now = 0.0
    observers = Observers()
    accounts = ReplayAccounts(lambda: now, observers)
    for number in range(MOST + 1):
        for request in requests_of(f"r{number}", "sre", [f"d-{number}"], []):
            await accounts.act(request)
    for number in range(MOST + 1):
        observers.observe(delivered(replace(DELIVERY, id=f"d-{number}")))
    assert [(await account(accounts, f"r{number}")).fates.delivered for number in (0, 1, MOST)] == [0, 1, 1]
    now = 3601.0
    accounts.forget()
    assert (await account(accounts, "r1")).fates.delivered == 0
