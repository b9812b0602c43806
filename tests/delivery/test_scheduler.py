"""Whether a delivery starts, waits in memory or is deferred, its queue, and the buckets fetched from."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from notifier.delivery import scheduler
from notifier.delivery.client_state import Admission
from notifier.delivery.deferrals import OVERDUE_SECONDS
from notifier.delivery.facts import ClientFailing, ClientRecovered, ClientServed
from notifier.delivery.line_and_parking import AdmittedDelivery
from notifier.delivery.ports import ClientReport
from notifier.delivery.scheduler import STARTS_PER_TURN
from notifier.delivery.slots import MAX_HANGING_WINDOWS
from notifier.delivery.verdict import AttemptReport, Dead, Defer, RetryAt, WaitKind, report_fault
from notifier.model.client import RetryPolicy
from notifier.model.errors import InternalFault
from notifier.model.message import Lane
from notifier.model.outcome import Cause, Delivered, Failed, Reason, Signal
from tests.delivery.scheduler_harness import AHEAD, SIZE, SchedulerHarness

AN_HOUR = Failed(reason=Reason.THROTTLED, status=429, retry_after=3600.0)
TIMEOUT = Failed(reason=Reason.TIMEOUT)
KEY = SchedulerHarness.key("shop")
PARKED, PROBE, DELAYED = WaitKind.PARKED, WaitKind.PROBE, WaitKind.DELAYED
CIRCUIT, RETRY_AFTER, SLOT, RATE = Cause.CIRCUIT, Cause.RETRY_AFTER, Cause.SLOT, Cause.RATE
BY_PROBE = {"probe_due": 0.0}
MOMENTS = {"probe_due", "first_taken_at", "slot_at", "not_after", "delayed_until"}


# ── situations ──────────────────────────────────────────────────────────────────────────────────────────────────────


def answer(harness: SchedulerHarness, **members: Any) -> object:
    """The answer to a delivery whose moments are seconds from now: a type, or where it waits, why, and for how long."""
    moments = {name: harness.wall() + value for name, value in members.items() if name in MOMENTS}
    found = harness.ask("shop", **members | moments)
    return (found.wait_kind, found.cause, round(found.due - harness.wall(), 3)) if isinstance(found, Defer) else found


def fail_probe(harness: SchedulerHarness, outcome: Failed | None = None, **members: Any) -> tuple[RetryAt, Any]:
    """An attempt of the probe fails."""
    return harness.fails("shop", outcome, probe_due=harness.wall(), **members)


def step(name: str, *arguments: object, **options: object) -> Callable[[SchedulerHarness], object]:
    """An event of the client's bucket."""
    return lambda harness: getattr(harness.scheduler.deferrals, name)(*arguments, **options)


def wait(seconds: float) -> Callable[[SchedulerHarness], object]:
    """Return a step in which so many seconds pass."""

    def pass_time(harness: SchedulerHarness) -> None:
        harness.now += seconds

    return pass_time


END_FETCH = step("on_fetch", KEY, is_fetching=False, empty=True)


def park(harness: SchedulerHarness, name: str = "shop") -> None:
    """A delivery for it is parked; the queue confirms it."""
    assert harness.put_off(name).wait_kind is PARKED
    harness.scheduler.deferrals.on_parked(harness.key(name))


def succeed(harness: SchedulerHarness, name: str = "shop") -> None:
    """The probe succeeds."""
    assert harness.ask(name, probe_due=harness.wall()) is Admission.START
    harness.end(name)


def opened() -> SchedulerHarness:
    """The circuit has just opened; the probe is out."""
    harness = SchedulerHarness()
    harness.fails("shop")
    return harness


def resting(*, for_long: bool = False, later: float = 0.0) -> SchedulerHarness:
    """Return one `later` seconds after the circuit opened, for 1 s (`for_long`: 32 s), and a delivery was parked."""
    harness = SchedulerHarness()
    probe, _ = harness.fails("shop")
    while for_long and probe.due - harness.wall() < 32:
        harness.now = probe.due - AHEAD
        probe, _ = fail_probe(harness)
    park(harness)
    harness.now += later
    return harness


def half_open() -> SchedulerHarness:
    """The probe is due."""
    return resting(later=1.0)


def recovered() -> SchedulerHarness:
    """The probe has succeeded, and its bucket is not fetched from yet."""
    harness = half_open()
    succeed(harness)
    return harness


def paused(seconds: float) -> SchedulerHarness:
    """Return a scheduler so many seconds after the client requested a pause of an hour."""
    harness = SchedulerHarness()
    harness.fails("shop", AN_HOUR)
    harness.now += seconds
    return harness


def leaving(later: float = 0.0) -> SchedulerHarness:
    """This worker stops; the circuit is open."""
    harness = resting(for_long=True, later=later)
    harness.scheduler.deferrals.on_stop()
    return harness


def busy(hold: float, *, fill: float = 0.0, limit: int = 1, attempts: int = 30) -> SchedulerHarness:
    """Return a scheduler whose client has had so many attempts of `hold` seconds, one by one. Another is running."""
    harness = SchedulerHarness(max_concurrent=limit, fill=fill)
    for _ in range(attempts):
        assert harness.ask("shop") is Admission.START
        harness.now += hold
        harness.end("shop")
    assert harness.ask("shop") is Admission.START
    return harness


def full(limit: int = 1, attempts: int = 30) -> SchedulerHarness:
    """Return one with two attempts a second at a client, for which as many deliveries as possible wait in memory."""
    harness = busy(0.5, limit=limit, attempts=attempts)
    while harness.ask("shop") in (Admission.START, Admission.WAIT):
        pass
    return harness


def crowded() -> SchedulerHarness:
    """Return one that has deferred deliveries for a client until 63 s from now, soon after its first success."""
    harness = full(limit=64, attempts=3)
    while harness.put_off("shop", first_taken_at=harness.wall() - 1000).due < harness.wall() + 63:
        pass
    return harness


def tried_by_operator() -> SchedulerHarness:
    """An operator has the client called, against any pause."""
    harness = SchedulerHarness()
    harness.scheduler.probe_now(KEY, force=True)
    return harness


def started(seconds: float, **members: Any) -> SchedulerHarness:
    """A worker so long after its start."""
    harness = SchedulerHarness(**members)
    harness.now += seconds
    return harness


long_open = partial(resting, for_long=True)
OLD, SHORT_LIVED, PAUSE = {"first_taken_at": -10.0}, {"not_after": 29.5}, {"delayed_until": 300.0}
ANSWERS: dict[str, tuple[Callable[[], SchedulerHarness], dict[str, Any], object]] = {
    "parked while the probe is out": (opened, {}, (PARKED, CIRCUIT, 1.0)),
    "the probe may have come to another worker": (half_open, {}, (PROBE, CIRCUIT, 2.0)),
    "probe": (half_open, BY_PROBE, Admission.START),
    "fresh, soon after the last attempt": (partial(long_open, later=3.9), {}, (PARKED, CIRCUIT, 28.1)),
    "fresh, four seconds after it": (partial(long_open, later=4.0), {}, Admission.START),
    "not fresh, four seconds after it": (partial(long_open, later=4.0), OLD, (PARKED, CIRCUIT, 28.0)),
    "pause": (partial(paused, 3500.0), {}, (PARKED, RETRY_AFTER, 100.0)),
    "pause whose probe may be early": (partial(paused, 3599.1), {}, (PROBE, RETRY_AFTER, 1.0)),
    "recorded pause": (SchedulerHarness, PAUSE, (PROBE, RETRY_AFTER, 300.0)),
    "recorded pause before a success": (partial(SchedulerHarness, proven=("shop",)), PAUSE, Admission.START),
    "recorded pause that an operator ended": (tried_by_operator, PAUSE, Admission.START),
    "recorded pause that is over": (SchedulerHarness, {"delayed_until": -1.0}, Admission.START),
    "recorded pause over max_delay": (
        partial(SchedulerHarness, retry=RetryPolicy(max_delay=60.0)), PAUSE, (PROBE, RETRY_AFTER, 60.0)),
    "short-lived, for half of its age": (long_open, SHORT_LIVED | OLD, (DELAYED, CIRCUIT, 5.0)),
    "short-lived, until its last attempt": (
        long_open, SHORT_LIVED | {"first_taken_at": -60.0}, (DELAYED, CIRCUIT, 28.5)),
    "worker that stops": (leaving, {"first_taken_at": 0.0}, (DELAYED, CIRCUIT, 1.0)),
    "worker that stops, for half of its age": (leaving, OLD, (DELAYED, CIRCUIT, 5.0)),
    "until its recorded slot": (full, OLD | {"slot_at": 30.0}, (DELAYED, SLOT, 30.0)),
    "soon before its slot": (full, OLD | {"slot_at": 0.9}, Admission.WAIT),
    "slot far away, young": (crowded, {"first_taken_at": 0.0}, (DELAYED, SLOT, 1.0)),
    "slot far away, for as long as it is old": (crowded, OLD, (DELAYED, SLOT, 10.0)),
    "rate shared by workers": (partial(started, 1.4, workers=4, per_second=2.0), {}, Admission.WAIT),
    "rate shared by unknown workers": (partial(started, 1.4, workers=0, per_second=2.0), {}, (DELAYED, RATE, 1.0)),
    "token of a shared rate": (partial(started, 1.5, workers=4, per_second=2.0), {}, Admission.START),
    "first attempt far away": (partial(started, 0.0, workers=4, per_second=0.01), {}, (DELAYED, RATE, 1.0)),
}  # fmt: skip


@pytest.mark.parametrize(("situation", "delivery", "expected"), ANSWERS.values(), ids=ANSWERS)
def test_the_answer_to_a_delivery(
    situation: Callable[[], SchedulerHarness], delivery: dict[str, Any], expected: object
) -> None:
    """It depends on the client's circuit, pause and pace, and on the age and slot of the delivery."""
    assert answer(situation(), **delivery) == expected


def test_of_several_probes_one_runs_one_waits_the_rest_are_parked() -> None:
    """A probe that comes early, by an operator or a reload, stays the probe."""
    harness = half_open()
    answers = [answer(harness, **BY_PROBE) for _ in range(3)]
    assert answers == [Admission.START, (PROBE, CIRCUIT, 2.0), (PARKED, CIRCUIT, 0.0)]
    for outcome in (None, AN_HOUR):
        early = SchedulerHarness()
        probe, delivery = early.fails("shop", outcome)
        early.now += 0.1
        offer = early.offer("shop")
        offer.delivery = delivery
        _, again = early.deferred(offer)
        assert again.wait_kind is PROBE
        assert again.due == pytest.approx(probe.due, abs=0.5)


@pytest.mark.parametrize("seconds", [0.2, 30.0])
def test_a_probe_that_was_out_while_the_process_was_suspended_stays_the_probe(seconds: float) -> None:
    """The monotonic clock stops meanwhile, so the probe returns early. No other probe leads to the bucket."""
    desk = resting(for_long=True)
    probe = desk.offer("shop", probe_due=desk.scheduler.clients[KEY].available_at + desk.ahead)
    desk.now, desk.ahead = desk.now + 32 - seconds, desk.ahead + seconds
    _, again = desk.deferred(probe)
    assert again.wait_kind is PROBE


# ── slots ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_one_client_takes_half_of_what_is_free() -> None:
    """The next takes half of the rest, and a newcomer always finds a slot."""
    harness = SchedulerHarness(proven=("a", "b", "c"), max_concurrent=1000)
    room = SIZE - 2 * (SIZE // 10)  # what one lane may hold
    assert [harness.as_many_as_run(name) for name in "abc"] == [room // 2, room // 4, room // 8 + 1]
    assert harness.ask("new") is Admission.START


def test_unanswered_attempts_leave_the_window() -> None:
    """Within a tenth of a second, whatever its size. What is slow has a quarter of the window beside it."""
    names = tuple(f"c{number}" for number in range(SIZE))
    harness = SchedulerHarness(proven=(*names, "shop"))
    assert [harness.ask(name) for name in names[:52]] == [Admission.START] * 52
    assert not harness.scheduler.slots.has_room(Lane.EVENTS)
    harness.now += 0.15
    harness.tick()
    assert harness.scheduler.slots.has_room(Lane.EVENTS)
    assert harness.as_many_as_run("shop") == 26
    harness.now += 1.0
    assert harness.put_off(names[0]).cause is SLOT  # the slots of slow clients are all taken


def test_clients_that_hang_from_the_start_are_bounded() -> None:
    """Four windows of clients that nobody has tried yet, however many come."""
    harness = SchedulerHarness(8)
    begun = 0
    for number in range(200):
        begun += harness.ask(f"c{number}") is Admission.START
        harness.now += 0.15
        harness.tick()
    assert begun == MAX_HANGING_WINDOWS * 8


# ── in memory, and until a slot ─────────────────────────────────────────────────────────────────────────────────────


def test_a_delivery_waits_in_memory_only_if_its_slot_comes_soon() -> None:
    """Within a second; within less as memory fills. The others wait in the delay queues."""
    for fill, most in ((0.0, 9), (0.5, 4), (1.0, 0)):
        harness = busy(hold=0.1, fill=fill)
        answers = [harness.ask("shop") for _ in range(20)]
        assert answers.count(Admission.WAIT) == most
        assert harness.put_off("shop").cause is SLOT


def test_each_deferred_delivery_has_its_slot() -> None:
    """After the one before it, at the client's pace. An old delivery waits in a single delay, as its message states."""
    harness = full()
    offers = [harness.offer("shop", Lane.RETRIES, first_taken_at=harness.wall() - 100) for _ in range(4)]
    answers = [harness.deferred(offer)[1] for offer in offers]
    waits = [defer.due - harness.wall() for defer in answers]
    assert waits == [waits[0] + number * 0.5 for number in range(4)]
    assert waits[0] >= 2.0  # behind those in memory
    slots = [defer.slot_at for defer in answers]
    assert slots == [harness.wall() + wait for wait in waits]


@pytest.mark.parametrize(
    ("outcome", "takes_slot"),
    [
        (Failed(reason=Reason.THROTTLED, status=429), True),
        (Failed(reason=Reason.SERVER_ERROR, status=503), False),
        (Failed(reason=Reason.SERVER_ERROR, status=408, retry_after=5.0), False),
    ],
    ids=["429", "503", "408 with Retry-After"],
)
def test_a_failure_takes_a_slot_only_if_its_verdict_uses_it(outcome: Failed, *, takes_slot: bool) -> None:
    """Otherwise each failure would delay the other deliveries of a client whose rate is limited."""
    harness = SchedulerHarness()
    assert harness.ask("shop") is Admission.START
    harness.end("shop")
    harness.scheduler.on_peer_report(ClientReport(key=KEY, circuit_closed=True, spacing=10.0, former_share=0.5))
    harness.now += 30.0
    known = harness.scheduler.clients[KEY]
    before = known.line.last_slot_at
    _, delivery = harness.fails("shop", outcome, first_taken_at=harness.wall() - 60.0)
    assert (known.line.last_slot_at > before, delivery.progress.slot_at is not None) == (takes_slot, takes_slot)


def test_deliveries_in_memory_start_in_order() -> None:
    """As slots come free, and retries behind fresh ones."""
    harness = busy(hold=0.1)
    waiting = [harness.waits(harness.offer("shop", lane)) for lane in (Lane.RETRIES, Lane.EVENTS, Lane.EVENTS)]
    order: list[AdmittedDelivery] = []
    for _ in waiting:
        harness.end("shop")
        order.append(*harness.running["shop"])
    assert order == [waiting[1], waiting[2], waiting[0]]


def test_opening_circuit_defers_deliveries_in_memory() -> None:
    """The first as its probe, if this worker has sent none."""
    harness = busy(hold=0.1)
    assert [harness.ask("shop") for _ in range(3)] == [Admission.WAIT] * 3
    harness.now += 0.05
    harness.scheduler.on_peer_report(ClientReport(key=harness.key("shop"), circuit_closed=False, open_seconds=8.0))
    places = [defer.wait_kind for _, defer in harness.tick()]
    assert sorted(waits_as.value for waits_as in places) == ["parked", "parked", "probe"]
    assert harness.scheduler.waiting == 0


def test_the_cause_is_the_rate_only_if_the_registered_one_is_used_up() -> None:
    """To raise `per_second` would not help a client whose overload limits its rate further."""
    harness = SchedulerHarness(per_second=0.4)
    harness.now += 3.0
    assert harness.ask("shop") is Admission.START
    harness.end("shop")
    assert harness.put_off("shop").cause is RATE
    known = harness.scheduler.clients[KEY]
    harness.scheduler.on_peer_report(ClientReport(key=KEY, circuit_closed=True, spacing=10.0))
    assert known.rate.spacing > known.rate.registered_interval
    assert harness.put_off("shop").cause is SLOT


def test_deliveries_in_memory_start_by_turns_when_many_attempts_end_at_once() -> None:
    """Each turn, in a separate round of the event loop, starts few, so that others are not delayed by all of them."""
    names = tuple(f"c{number}" for number in range(40))
    harness = SchedulerHarness(proven=names, max_concurrent=1)
    for name in names:
        assert (harness.ask(name), harness.ask(name)) == (Admission.START, Admission.WAIT)
    for name in names:
        admitted = harness.running[name].pop()
        report = AttemptReport(
            before=admitted.delivery, after=admitted.delivery, outcome=Delivered(status=204), signal=Signal.RESPONSIVE
        )
        harness.scheduler.on_ended(admitted, report)
    assert harness.scheduler.start_turns == len(names)
    counts = [len(harness.scheduler.start_waiting()) for _ in names]
    assert counts == [STARTS_PER_TURN] * 5 + [0] * 35


def test_a_worker_that_starts_has_no_burst() -> None:
    """A second's worth of tokens is there after a second: the worker before it may just have spent them."""
    harness = SchedulerHarness(per_second=20.0)
    assert harness.ask("shop") is Admission.START
    harness.end("shop")
    assert harness.ask("shop") is Admission.WAIT
    later = SchedulerHarness(per_second=20.0)
    later.now += 1
    for _ in range(20):
        assert later.ask("shop") is Admission.START
        later.end("shop")
    assert later.ask("shop") is not Admission.START


@pytest.mark.parametrize(("workers", "count"), [(1, 1), (4, 0)])
def test_no_token_until_the_workers_are_counted(workers: int, count: int) -> None:
    """Then the workers, which may have started together, begin with one token for all of them."""
    harness = SchedulerHarness(per_second=1.0, workers=0)
    for _ in range(15):
        assert harness.put_off("shop").cause is RATE
        harness.now += 0.1
    harness.others.size = workers
    assert harness.burst("shop") == count


def test_larger_share_shortens_the_wait_for_a_token() -> None:
    """From the last attempt on, the new rate applies."""
    slow = SchedulerHarness(per_second=0.2, workers=2)
    slow.now += 5.0
    assert slow.burst("shop") == 1
    slow.others.size = 1
    slow.now += 4.9
    assert slow.burst("shop") == 0
    slow.now += 0.1
    assert slow.burst("shop") == 1


def test_limit_follows_the_number_of_workers_while_the_client_hangs() -> None:
    """The client's successes show that it can take more than its smallest share."""
    harness = SchedulerHarness(256, proven=("shop",), workers=0)
    assert harness.as_many_as_run("shop") == 1
    harness.others.size = 4
    harness.tick()
    assert len(harness.running["shop"]) == 2
    assert harness.as_many_as_run("shop") == 6
    harness.others.size = 1
    harness.tick()
    assert harness.as_many_as_run("shop") == 24 - 1


# ── failures ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_probe_is_the_next_attempt_after_1_1_1_1_2_seconds() -> None:
    """Half of the outage, in delay queues of powers of two."""
    harness, waits = SchedulerHarness(), []
    for _ in range(6):
        probe, delivery = fail_probe(harness)
        assert (probe.wait_kind, delivery.progress.probe_due) == (PROBE, probe.due)
        waits.append(probe.due - harness.wall())
        harness.now = probe.due - AHEAD
    assert waits == [1, 1, 1, 1, 2, 2]


def test_failure_beside_the_one_that_opened_the_circuit_is_parked() -> None:
    """It is not the probe: it began before."""
    harness = SchedulerHarness(proven=("shop",))
    assert [harness.ask("shop") for _ in range(2)] == [Admission.START] * 2
    last, _ = harness.fails("shop")
    while not list(harness.scheduler.clients.circuits()):
        last, _ = harness.fails("shop")
    assert last.wait_kind is PROBE
    beside = harness.end("shop", TIMEOUT)[1]
    assert isinstance(beside, RetryAt)
    assert beside.wait_kind is PARKED


def test_a_pause_that_a_client_requests_is_kept_and_not_charged() -> None:
    """The delivery is the probe, and its last delay ends no earlier."""
    harness = SchedulerHarness()
    probe, delivery = harness.fails("shop", AN_HOUR)
    assert (probe.wait_kind, probe.due, probe.rounding) == (PROBE, harness.wall() + 3600, "up")
    assert (delivery.progress.delayed_by_client, delivery.progress.backoffs) == (True, 0)


@pytest.mark.parametrize(("others_take", "rest"), [(0.001, 4.0), (5.0, 64.0)])
def test_a_circuit_opens_for_longer_only_if_other_open_clients_hang_too(others_take: float, rest: float) -> None:
    """Until each of them may have had a probe, at most for 64 s. Refusals take no slot."""
    harness = SchedulerHarness()
    for nth in range(3000):
        assert harness.ask(f"c{nth}") is Admission.START
        harness.now += others_take
        harness.end(f"c{nth}", TIMEOUT)
    wait = 0.0
    for _ in range(2):
        assert harness.ask("shop", probe_due=harness.wall()) is Admission.START
        harness.now += 5
        probe = harness.end("shop", TIMEOUT)[1]
        assert isinstance(probe, RetryAt)
        wait = probe.due - harness.wall()
        harness.now += wait
    assert wait == pytest.approx(rest)


def test_failure_is_charged_after_a_success_of_another_delivery() -> None:
    """The first failure is charged too, and each 429: otherwise the delivery would be attempted again at once."""
    harness = SchedulerHarness(proven=("shop",))
    own, delivery = harness.fails("shop")
    assert (own.wait_kind, delivery.progress.backoffs) == (DELAYED, 1)
    again: dict[str, Any] = {"attempts": 1, "backoffs": 1, "charged_at": harness.wall()}
    harness.now += 1
    assert harness.fails("shop", **again)[1].progress.backoffs == 1
    assert harness.ask("shop") is Admission.START
    harness.end("shop")
    assert harness.fails("shop", **again)[1].progress.backoffs == 2
    throttled, delivery = harness.fails("shop", Failed(reason=Reason.THROTTLED, status=429))
    assert (throttled.wait_kind, throttled.due, delivery.progress.backoffs) == (DELAYED, harness.wall() + 2, 1)


def test_a_failure_in_an_outage_is_not_charged() -> None:
    """Neither is a failure before the circuit opened, once it has."""
    harness = SchedulerHarness(proven=("shop",))
    harness.now += 1
    _, delivery = harness.fails("shop")
    before = harness.wall() - 1
    last = delivery
    while not list(harness.scheduler.clients.circuits()):
        harness.now += 0.3
        _, last = harness.fails("shop")
    assert (delivery.progress.backoffs, last.progress.backoffs) == (1, 0)
    for charged_at, charged in ((delivery.progress.charged_at, 0), (before, 1)):
        offer = harness.offer("shop", attempts=1, backoffs=1, charged_at=charged_at, first_taken_at=before)
        assert harness.deferred(offer)[0].progress.backoffs == charged


# ── rotation of the probe ───────────────────────────────────────────────────────────────────────────────────────────


def recover_elsewhere(harness: SchedulerHarness) -> None:
    """Another worker sees the client recover."""
    harness.scheduler.on_peer_report(ClientReport(key=KEY, circuit_closed=True))


overdue = partial(resting, later=3.0)


def rotating() -> SchedulerHarness:
    """The probe `former` has failed four times, and a fetch returns the next probe."""
    harness = half_open()
    verdict, _ = fail_probe(harness, id="former", attempts=3)
    assert (verdict.wait_kind, set(harness.scheduler.deferrals.requested)) == (PROBE, {KEY})
    harness.scheduler.deferrals.requested.clear()
    return harness


def fetch(harness: SchedulerHarness) -> None:
    """The fetch returns a parked delivery, `next`, which becomes a probe, too: half a second after the former."""
    harness.now += 0.5
    assert harness.scheduler.deferrals.fetchable_count(KEY) == 1
    assert harness.put_off("shop").wait_kind is PARKED  # it was not fetched
    assert answer(harness, fetched=True, id="next", **OLD) == (PROBE, CIRCUIT, 1.0)
    assert harness.scheduler.deferrals.fetchable_count(KEY) is None
    END_FETCH(harness)


def send_third(harness: SchedulerHarness) -> None:
    """Another probe, which returned early, is deferred."""
    assert answer(harness, id="third", probe_due=2.0) == (PROBE, CIRCUIT, 1.0)


BECOMES_DURABLE = step("on_probe_durable", KEY, "next")
FORMER_IS_DURABLE = step("on_probe_durable", KEY, "former")
ROTATIONS: dict[str, tuple[list[Callable[[SchedulerHarness], object]], WaitKind]] = {
    "the next probe is durable": ([fetch, BECOMES_DURABLE], PARKED),
    "the next probe is durable after a third": ([fetch, send_third, BECOMES_DURABLE], PARKED),
    "the next probe is not durable": ([fetch], PROBE),
    "another probe becomes durable": ([fetch, FORMER_IS_DURABLE], PROBE),
    "another probe becomes durable before the fetch": ([FORMER_IS_DURABLE, fetch], PROBE),
    "nothing else in the bucket": ([END_FETCH], PROBE),
    "not fetched yet": ([], PROBE),
    "worker stops": ([step("on_stop")], PROBE),
    "worker stops, and the next probe is durable": ([fetch, BECOMES_DURABLE, step("on_stop")], DELAYED),
}


@pytest.mark.parametrize(("meanwhile", "waits_as"), ROTATIONS.values(), ids=ROTATIONS)
def test_a_parked_delivery_replaces_a_probe_that_failed_four_times(
    meanwhile: list[Callable[[SchedulerHarness], object]], waits_as: WaitKind
) -> None:
    """At the next failure of the former probe, once the next one is durable: so there is a probe at any moment."""
    harness = rotating()
    due_at = harness.now + 1.0
    for happen in meanwhile:
        happen(harness)
    harness.now = due_at
    verdict, delivery = fail_probe(harness, id="former", attempts=4)
    assert (verdict.wait_kind, delivery.progress.backoffs) == (waits_as, 0)
    assert delivery.progress.probe_due == (verdict.due if waits_as is PROBE else None)


def test_a_former_probe_may_become_the_probe_again() -> None:
    """Its rotation has ended."""
    harness = rotating()
    fetch(harness)
    BECOMES_DURABLE(harness)
    harness.now += 0.5
    assert fail_probe(harness, id="former", attempts=4)[0].wait_kind is PARKED
    step("on_probe_lost", KEY)(harness)
    assert harness.put_off("shop", fetched=True, id="former").wait_kind is PROBE


def defer_former(harness: SchedulerHarness) -> None:
    """The former probe returns early."""
    harness.now += 0.5
    assert answer(harness, id="former", attempts=4, probe_due=0.5) == (PROBE, CIRCUIT, 1.0)


def fail_former(harness: SchedulerHarness) -> None:
    """The former probe fails again."""
    harness.now += 1.0
    assert fail_probe(harness, id="former", attempts=4)[0].wait_kind is PROBE


@pytest.mark.parametrize("happen", [defer_former, fail_former])
def test_a_probe_that_is_sent_again_does_not_replace_itself(happen: Callable[[SchedulerHarness], object]) -> None:
    """The rotation ends before the next probe is fetched: so no other delivery leads to the bucket."""
    harness = rotating()
    happen(harness)
    FORMER_IS_DURABLE(harness)
    harness.now += 1.0
    assert fail_probe(harness, id="former", attempts=5)[0].wait_kind is PROBE


def test_the_next_probe_stays_the_probe() -> None:
    """Also if it fails before the former probe."""
    harness = rotating()
    fetch(harness)
    BECOMES_DURABLE(harness)
    harness.now += 1.0
    assert fail_probe(harness, id="next")[0].wait_kind is PROBE


def test_a_second_rotation_begins_after_an_empty_fetch() -> None:
    """After eight failures. The first rotation ends with the fetch: until then, nothing is to be fetched."""
    harness = rotating()
    assert harness.scheduler.deferrals.fetchable_count(KEY) == 1
    END_FETCH(harness)
    assert harness.scheduler.deferrals.fetchable_count(KEY) is None
    harness.now += 1.0
    fail_probe(harness, id="former", attempts=7)
    assert (set(harness.scheduler.deferrals.requested), harness.scheduler.deferrals.fetchable_count(KEY)) == ({KEY}, 1)


def test_the_next_probe_returns_no_earlier_than_the_former() -> None:
    """It would find the circuit open. Its single delay queue has a power of two seconds: rounded up.

    If an operator returns it early, it is attempted, and stays the probe: the worker has sent no other.
    """
    harness = long_open(later=32.0)
    former, _ = fail_probe(harness, id="former", attempts=3)
    harness.now += 1.0
    later = harness.put_off("shop", fetched=True, id="next", first_taken_at=harness.wall() - 5.0)
    assert (later.wait_kind, later.due) == (PROBE, former.due + 1.0)
    harness.now = former.due - AHEAD
    assert harness.fails("shop", id="next", attempts=3, probe_due=later.due)[0].wait_kind is PROBE


def test_a_recovery_ends_the_rotation() -> None:
    """In the next outage each delivery starts anew."""
    harness = rotating()
    harness.now += 5.0
    recover_elsewhere(harness)
    assert harness.scheduler.clients[KEY].parking.rotation is None


@pytest.mark.parametrize(
    ("situation", "members"),
    [
        (half_open, {"attempts": 1} | BY_PROBE),
        (half_open, {"attempts": 2} | BY_PROBE),
        (partial(leaving, later=32.0), {"attempts": 3} | BY_PROBE),
        (SchedulerHarness, {"attempts": 3}),
    ],
    ids=["two failures", "three failures", "worker stops", "nothing parked"],
)
def test_no_rotation_begins(situation: Callable[[], SchedulerHarness], members: dict[str, Any]) -> None:
    """After three failures, nor at a worker that stops, nor if the failure opens the circuit: nothing is parked yet."""
    harness = situation()
    assert answer(harness, **members) is Admission.START
    delivery, verdict = harness.end("shop", TIMEOUT)
    assert isinstance(verdict, RetryAt)
    assert (verdict.wait_kind, delivery.progress.probe_due) == (PROBE, verdict.due)
    assert not harness.scheduler.deferrals.requested


def test_an_internal_fault_begins_no_rotation() -> None:
    """It is no evidence about the client."""
    harness = half_open()
    assert answer(harness, attempts=4, **BY_PROBE) is Admission.START
    admitted = harness.running["shop"].pop()
    report = report_fault(InternalFault(Cause.SIGNING, ""), admitted.delivery)
    harness.scheduler.on_ended(admitted, report)
    delivery, verdict = harness.scheduler.deferrals.decide_verdict(admitted, report)
    assert isinstance(verdict, Defer)
    assert (delivery.progress.probe_due, [*harness.scheduler.deferrals.requested]) == (verdict.due, [])


def test_a_failed_delivery_becomes_the_probe_if_none_is_out() -> None:
    """Such as a fresh one, after a peer reported the client: so the worker that parks has a probe."""
    harness = SchedulerHarness(proven=("shop",))
    harness.now += 5.0
    harness.scheduler.on_peer_report(ClientReport(key=KEY, circuit_closed=False, failing_seconds=1.0, open_seconds=8.0))
    harness.now += 4.0
    assert harness.fails("shop")[0].wait_kind is PROBE


def test_a_probe_is_parked_at_once_if_another_is_out() -> None:
    """Two were in flight as the circuit opened, so both are probes."""
    harness = half_open()
    assert harness.ask("shop", probe_due=harness.wall(), attempts=3) is Admission.START
    assert answer(harness, **BY_PROBE) == (PROBE, CIRCUIT, 2.0)
    verdict = harness.end("shop", TIMEOUT)[1]
    assert isinstance(verdict, RetryAt)
    assert (verdict.wait_kind, [*harness.scheduler.deferrals.requested]) == (PARKED, [])


# ── fetches from buckets ───────────────────────────────────────────────────────────────────────────────────────────


def expire(harness: SchedulerHarness) -> None:
    """The probe has its last attempt, and becomes a dead letter."""
    assert harness.ask("shop", probe_due=harness.wall(), not_after=harness.wall() + 1.5) is Admission.START
    assert isinstance(harness.end("shop", TIMEOUT)[1], Dead)


PARK_IN_FETCH = [step("on_fetch", KEY, is_fetching=True), step("on_parked", KEY)]
REQUESTS: dict[str, tuple[Callable[[], SchedulerHarness], list[Callable[[SchedulerHarness], object]], bool]] = {
    "recovered": (half_open, [succeed], True),
    "probe of another worker": (SchedulerHarness, [succeed], True),
    "nothing parked": (opened, [wait(2.0), lambda harness: harness.prove("shop")], False),
    "probe lost": (resting, [step("on_probe_lost", KEY)], True),
    "probe expired": (half_open, [expire], True),
    "parked late": (recovered, [lambda harness: harness.scheduler.deferrals.requested.clear(), *PARK_IN_FETCH], True),
    "parked as the probe is due": (half_open, [step("on_parked", KEY)], True),
    "parked for a forgotten client": (SchedulerHarness, [step("on_parked", KEY)], True),
    "parked during a fetch": (long_open, PARK_IN_FETCH, False),
    "parked during a fetch, then recovered": (half_open, [*PARK_IN_FETCH, succeed], True),
    "parked during a fetch, then a recovery elsewhere": (overdue, [*PARK_IN_FETCH, recover_elsewhere], True),
    "probe not overdue": (resting, [wait(1 + OVERDUE_SECONDS), step("request_overdue_fetches")], False),
    "probe overdue": (resting, [wait(1.1 + OVERDUE_SECONDS), step("request_overdue_fetches")], True),
    "pause just over": (
        partial(paused, 0.0),
        [park, wait(3600 + OVERDUE_SECONDS), step("request_overdue_fetches")],
        False,
    ),
    "pause long over": (
        partial(paused, 0.0),
        [park, wait(3601 + OVERDUE_SECONDS), step("request_overdue_fetches")],
        True,
    ),
}


@pytest.mark.parametrize(("situation", "events", "requested"), REQUESTS.values(), ids=REQUESTS)
def test_a_fetch_is_requested(
    situation: Callable[[], SchedulerHarness], events: list[Callable[[SchedulerHarness], object]], requested: bool
) -> None:
    """Whenever a delivery may be parked, and neither an attempt nor a probe will lead to it."""
    harness = situation()
    for event in events:
        event(harness)
    assert harness.scheduler.deferrals.requested.keys() == ({KEY} if requested else set())


def test_as_many_are_fetched_as_its_pace_allows() -> None:
    """Beside the attempts that run and wait, or as its rate allows."""
    harness = recovered()
    assert harness.scheduler.deferrals.fetchable_count(KEY) == 2
    assert harness.ask("shop") is Admission.START
    assert harness.scheduler.deferrals.fetchable_count(KEY) == 1
    limited = SchedulerHarness(per_second=1.0)
    limited.fails("shop")
    park(limited)
    limited.now += 1
    succeed(limited)
    assert limited.scheduler.deferrals.fetchable_count(KEY) == 0
    limited.now += 1
    assert limited.scheduler.deferrals.fetchable_count(KEY) == 1


def test_more_are_fetched_if_a_fetch_takes_long() -> None:
    """As many as start within twice that time, unless they would wait so long in memory that they are deferred."""
    harness = SchedulerHarness(per_second=20.0)
    harness.fails("shop")
    park(harness)
    harness.now += 1
    succeed(harness)
    harness.now += 1
    count = harness.scheduler.deferrals.fetchable_count
    assert [count(KEY, seconds) for seconds in (0.0, 0.01, 0.25, 10.0)] == [2, 2, 2 + 10, 2 + 20]


def test_one_fetched_delivery_waits_among_those_that_fill_the_pace() -> None:
    """The next is fetched when it has started."""
    harness = full()
    assert harness.scheduler.deferrals.fetchable_count(KEY) == 1
    parked = harness.waits(harness.offer("shop", Lane.RETRIES, fetched=True))
    assert harness.scheduler.deferrals.fetchable_count(KEY) == 0
    while parked not in harness.running["shop"]:
        harness.end("shop")
    harness.ask("shop")
    assert harness.scheduler.deferrals.fetchable_count(KEY) == 1


def test_the_length_of_a_recovery_is_reported_once() -> None:
    """When its bucket is empty; not when it is empty again."""
    harness = recovered()
    assert harness.scheduler.deferrals.is_blocked(KEY)
    harness.scheduler.deferrals.requested.clear()
    harness.now += 2.5
    for _ in range(2):
        END_FETCH(harness)
    assert [fact.seconds for fact in harness.facts if isinstance(fact, ClientServed)] == [2.5]
    assert not harness.scheduler.deferrals.is_blocked(KEY)


# ── clients that are stored ─────────────────────────────────────────────────────────────────────────────────────────


def test_clients_with_the_oldest_events_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """But none with a delivery in memory, and none that is paused."""
    monkeypatch.setattr(scheduler, "MAX_KNOWN_CLIENTS", 200)
    harness = SchedulerHarness(proven=("shop",))
    assert harness.ask("shop") is Admission.START
    harness.prove("quiet")
    harness.fails("paused", AN_HOUR)
    for number in range(250):
        assert harness.ask(f"c{number}") is Admission.START
        harness.end(f"c{number}")
    for _ in range(100):
        harness.tick()
    harness.end("shop")
    assert harness.as_many_as_run("shop") > 1
    assert harness.as_many_as_run("quiet") == 1
    assert harness.put_off("paused").cause is RETRY_AFTER


# ── other workers, and operators ────────────────────────────────────────────────────────────────────────────────────


def test_it_reports_openings_failed_probes_and_recoveries() -> None:
    """A success or failure while the circuit is closed is not reported."""
    harness = SchedulerHarness(proven=("wiki",))
    harness.fails("wiki")
    assert not harness.reports
    harness.now += 1
    harness.fails("shop")
    park(harness)
    harness.now += 1
    fail_probe(harness)
    harness.now += 1
    succeed(harness)
    assert harness.reports == [
        ClientReport(key=KEY, circuit_closed=False, open_seconds=1.0),
        ClientReport(key=KEY, circuit_closed=False, failing_seconds=1.0, open_seconds=1.0, parked=True),
        ClientReport(key=KEY, circuit_closed=True, concurrency=2, parked=True),
    ]


def test_it_applies_the_reports_of_others() -> None:
    """The circuit opens, and the bucket is gone through once it is closed."""
    harness = SchedulerHarness(proven=("shop",))
    harness.now += 5
    harness.scheduler.on_peer_report(ClientReport(key=KEY, circuit_closed=False, failing_seconds=1.0, open_seconds=8.0))
    assert [*harness.scheduler.clients.circuits()] == [(*KEY, 2)]
    assert [*harness.scheduler.clients.next_tries()] == [(*KEY, harness.wall() + 8)]
    harness.now += 4
    harness.scheduler.on_peer_report(ClientReport(key=KEY, circuit_closed=True, concurrency=4, parked=True))
    assert [*harness.scheduler.clients.circuits()] == []
    opened, closed = harness.facts
    assert isinstance(opened, ClientFailing)
    assert isinstance(closed, ClientRecovered)
    assert harness.scheduler.deferrals.requested.keys() == {KEY}


def test_a_worker_that_stops_reports_the_buckets_that_it_leaves() -> None:
    """As it stops, when a client recovers, and if a delivery is durable only then; workers that do not know it, too."""
    harness = recovered()
    harness.scheduler.deferrals.on_fetch(KEY, is_fetching=True)
    for leave in (harness.scheduler.deferrals.on_stop, lambda: harness.scheduler.deferrals.on_parked(KEY)):
        harness.reports.clear()
        leave()
        assert [(news.key, news.circuit_closed, news.parked) for news in harness.reports] == [(KEY, True, True)]
    other = SchedulerHarness()
    other.scheduler.on_peer_report(harness.reports[-1])
    assert other.scheduler.deferrals.requested.keys() == {KEY}


def test_a_cancelled_attempt_leaves_the_bucket_to_the_peers() -> None:
    """It has no verdict that leads back to the bucket."""
    harness = half_open()
    assert harness.ask("shop", probe_due=harness.wall()) is Admission.START
    harness.scheduler.deferrals.on_stop()
    harness.reports.clear()
    admitted = harness.running["shop"].pop()
    harness.scheduler.on_ended(
        admitted, report_fault(InternalFault(Cause.UNKNOWN, ""), admitted.delivery), is_cancelled=True
    )
    assert [(news.key, news.parked) for news in harness.reports] == [(KEY, True)]


def test_a_worker_that_stops_repeats_no_report() -> None:
    """All have received it: two workers that stop would report it to each other again and again."""
    harness = leaving()
    harness.reports.clear()
    harness.scheduler.on_peer_report(ClientReport(key=KEY, circuit_closed=True, parked=True))
    assert ([*harness.scheduler.clients.circuits()], harness.reports) == ([], [])


def test_a_client_that_hangs_is_reported_after_a_second() -> None:
    """Not while its attempts take less, nor after the answer."""
    harness = SchedulerHarness(proven=("shop",))
    assert harness.ask("shop") is Admission.START
    harness.now += 0.9
    assert list(harness.scheduler.unresponsive()) == []
    harness.now += 1
    assert [(*key, round(seconds, 1)) for *key, seconds in harness.scheduler.unresponsive()] == [(*KEY, 1.9)]
    harness.end("shop")
    assert list(harness.scheduler.unresponsive()) == []


def test_operator_request_starts_an_attempt() -> None:
    """At once, although a probe is out; with `force` also in a pause, and if the client is not stored."""
    harness = resting(for_long=True)
    assert harness.scheduler.deferrals.state_of(KEY)[1] == harness.wall() + 32
    harness.scheduler.probe_now(KEY, force=False)
    assert (harness.scheduler.deferrals.requested, harness.scheduler.deferrals.fetchable_count(KEY)) == ({KEY: None}, 1)
    harness.now += 1
    assert answer(harness, fetched=True) is Admission.START
    pauses = paused(0.0)
    for force, until in ((False, pauses.wall() + 3600), (True, None)):
        pauses.scheduler.probe_now(KEY, force=force)
        assert pauses.scheduler.deferrals.requested == ({KEY: None} if force else {})
        assert pauses.scheduler.deferrals.state_of(KEY)[2] == until
    assert tried_by_operator().scheduler.deferrals.requested.keys() == {KEY}
