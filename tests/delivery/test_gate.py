"""What may be attempted, what waits in memory, in line, in a bucket or as a traveller, and whose buckets are wanted."""

from typing import Any

import pytest

from notifier.delivery import known_clients
from notifier.delivery.admission import StartNow, Ticket, Wait
from notifier.delivery.circuit import MAX_OPEN_SECONDS
from notifier.delivery.client_buckets import OVERDUE, PROBE_FAILURES, ROTATIONS, SHORT_LIVED
from notifier.delivery.facts import ClientFailing, ClientRecovered, ClientServed
from notifier.delivery.gate import TRIED
from notifier.delivery.known_client import FRESH, MAX_DEFERRAL_SECONDS
from notifier.delivery.ports import News
from notifier.delivery.verdict import Dead, Defer, RetryAt, WaitsAs
from notifier.model.client import RetryPolicy
from notifier.model.message import Lane
from notifier.model.outcome import Cause, Failed, Reason
from tests.delivery.desk import AHEAD, SIZE, Desk

AN_HOUR = Failed(reason=Reason.THROTTLED, status=429, retry_after=3600.0)

# ── slots ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_one_client_takes_half_of_what_is_free() -> None:
    """The next takes half of the rest, and a newcomer always finds a slot."""
    desk = Desk(proven=("a", "b", "c"), max_concurrent=1000)
    room = SIZE - 2 * (SIZE // 10)  # what one lane may hold
    assert [desk.as_many_as_run(name) for name in "abc"] == [room // 2, room // 4, room // 8 + 1]
    assert desk.ask("new") is StartNow


def test_bulk_for_a_client_leaves_room_for_its_fresh_logouts() -> None:
    """Each lane keeps a tenth of the window for each other."""
    desk = Desk(10, proven=tuple("abcdefgh"), max_concurrent=1000)
    for name in "abcdefgh":
        assert desk.ask(name, Lane.BULK) is StartNow
    assert (desk.gate.slots.has_room(Lane.BULK), desk.gate.slots.has_room(Lane.EVENTS)) == (False, True)
    assert desk.ask("fresh") is StartNow


def test_what_is_silent_leaves_the_window() -> None:
    """Within a tenth of a second, whatever its size. What is slow has a quarter of the window beside it."""
    names = tuple(f"c{number}" for number in range(SIZE))
    desk = Desk(proven=(*names, "shop"))
    assert [desk.ask(name) for name in names[:52]] == [StartNow] * 52
    assert not desk.gate.slots.has_room(Lane.EVENTS)
    desk.now += 0.15
    desk.tick()
    assert desk.gate.slots.has_room(Lane.EVENTS)
    assert desk.as_many_as_run("shop") == 26
    desk.now += 1.0
    answer = desk.put_off(names[0])  # the slots of slow ones are all taken
    assert (answer.waits_as, answer.cause) == (WaitsAs.DELAYED, Cause.SLOT)


def test_clients_that_hang_from_the_start_are_bounded() -> None:
    """Four windows of clients that nobody has tried yet, however many come."""
    desk = Desk(8)
    begun = 0
    for number in range(200):
        begun += desk.ask(f"c{number}") is StartNow
        desk.now += 0.15
        desk.tick()
    assert begun == TRIED * 8


# ── the line ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_delivery_waits_in_memory_only_if_its_turn_comes_soon() -> None:
    """Within a second; within less as memory fills. The others wait in the delay queues."""
    for fill, most in ((0.0, 9), (0.5, 4), (1.0, 0)):
        desk = busy(hold=0.1, fill=fill)
        answers = [desk.ask("shop") for _ in range(20)]
        assert answers.count(Wait) == most
        last = answers[-1]
        assert isinstance(last, Defer)
        assert (last.waits_as, last.cause) == (WaitsAs.DELAYED, Cause.SLOT)


def full() -> Desk:
    """Two attempts a second at a client, and as many wait in memory as may."""
    desk = busy(hold=0.5)
    while desk.ask("shop") is Wait:
        pass
    return desk


def busy(hold: float, fill: float = 0.0, limit: int = 1, attempts: int = 30) -> Desk:
    """A client that has had so many attempts of so many seconds, one by one. One runs."""
    desk = Desk(max_concurrent=limit, fill=fill)
    for _ in range(attempts):
        assert desk.ask("shop") is StartNow
        desk.now += hold
        desk.end("shop")
    assert desk.ask("shop") is StartNow
    return desk


def test_each_in_line_has_its_turn() -> None:
    """Behind the one before, at the client's pace. An old one waits for it in one go, as its message says."""
    desk = full()
    tickets = [desk.ticket("shop", Lane.RETRIES, first_taken_at=desk.wall() - 100) for _ in range(4)]
    answers = [desk.deferred(ticket) for ticket in tickets]
    waits = [defer.due - desk.wall() for _, defer in answers]
    assert waits == [waits[0] + number * 0.5 for number in range(4)]
    assert waits[0] >= 2.0  # behind those in memory
    turns = [delivery.turn for delivery, _ in answers]
    assert turns == [desk.wall() + wait for wait in waits]


def test_in_line_nobody_waits_for_longer_at_once_than_it_has_waited() -> None:
    """From a second to 64: until then the client may bear more. It has just begun."""
    desk = busy(hold=0.5, limit=64, attempts=3)
    while desk.ask("shop") in (StartNow, Wait):
        pass
    desk.gate.clients[desk.key("shop")].last_turn = desk.now + 1000
    for age, wait in ((0.0, 1.0), (5.0, 5.0), (5000.0, MAX_DEFERRAL_SECONDS)):
        ticket = desk.ticket("shop", Lane.RETRIES, first_taken_at=desk.wall() - age)
        delivery, answer = desk.deferred(ticket)
        assert (answer.due - desk.wall(), delivery.turn) == (wait, None)


def test_a_turn_is_kept() -> None:
    """Whoever comes back a little early for it waits in memory; earlier, in the delay queues until then."""
    desk = full()
    late = desk.put_off("shop", turn=desk.wall() + 30.0, first_taken_at=desk.wall() - 100)
    assert late.due == desk.wall() + 30
    assert desk.ask("shop", turn=desk.wall() + 0.9, first_taken_at=desk.wall() - 100) is Wait


def test_what_waits_in_memory_goes_first_come_first_served() -> None:
    """As slots come free, and retries behind fresh ones."""
    desk = busy(hold=0.1)
    tickets = [desk.waits(desk.ticket("shop", lane)) for lane in (Lane.RETRIES, Lane.EVENTS, Lane.EVENTS)]
    order: list[Ticket] = []
    for _ in tickets:
        desk.end("shop")
        order.append(*desk.running["shop"])
    assert order == [tickets[1], tickets[2], tickets[0]]


def test_when_a_client_goes_down_what_waited_in_memory_is_put_off() -> None:
    """The first as its traveller, if this worker has sent none."""
    desk = busy(hold=0.1)
    assert [desk.ask("shop") for _ in range(3)] == [Wait] * 3
    desk.now += 0.05
    desk.gate.on_peer_report(News(key=desk.key("shop"), up=False, rest=8.0))
    places = [defer.waits_as for _, (_, defer) in desk.tick()]
    assert sorted(waits_as.value for waits_as in places) == ["parked", "parked", "probe"]
    assert desk.gate.waiting == 0


def test_those_who_would_wait_longest_give_way_when_memory_is_full() -> None:
    """The newest of them."""
    desk = busy(hold=0.09)
    tickets = [desk.waits(desk.ticket("shop")) for _ in range(5)]
    assert [ticket for ticket, _ in desk.gate.free_memory()] == tickets[:0:-1]


def test_limits_are_shared_by_the_workers() -> None:
    """Attempts at a time, and those of a second, of which workers that start together have one at once."""
    desk = Desk(proven=("shop",), workers=4)
    assert desk.as_many_as_run("shop") == 32 // 4
    early, paced = Desk(workers=4, per_second=2.0), Desk(workers=4, per_second=2.0)
    early.now += 1.4
    assert early.ask("shop") is Wait
    paced.now += 1.5
    assert paced.ask("shop") is StartNow
    paced.end("shop")
    paced.now += 1.9
    assert paced.put_off("shop").cause is Cause.RATE
    paced.now += 0.1
    assert paced.ask("shop") is StartNow


def test_limits_are_shared_before_the_number_of_workers_is_known() -> None:
    """Several may have started together: each takes a quarter at first."""
    desk = Desk(workers=0, per_second=2.0)
    desk.now += 1.4
    assert desk.ask("shop") is Wait
    assert Desk(proven=("shop",), workers=0).as_many_as_run("shop") == 32 // 4


def test_a_first_attempt_far_away_is_not_waited_for_in_memory() -> None:
    """At a low rate its turn is minutes away in a worker that starts: nobody would see that it expires meanwhile."""
    desk = Desk(workers=4, per_second=0.01)
    assert desk.put_off("shop").cause is Cause.RATE


def test_a_worker_that_starts_has_no_burst() -> None:
    """A second's worth of tokens is there after a second: the worker before it may just have spent them."""
    desk = Desk(per_second=20.0)
    assert desk.ask("shop") is StartNow
    desk.end("shop")
    assert desk.ask("shop") is Wait
    later = Desk(per_second=20.0)
    later.now += 1
    for _ in range(20):
        assert later.ask("shop") is StartNow
        later.end("shop")
    assert later.ask("shop") is not StartNow


def test_a_pause_outlives_the_worker_that_was_asked_for_it() -> None:
    """A delivery records its end, which counts until this worker has attempted the client, or an operator forces."""
    fresh = Desk()
    until = fresh.wall() + 300
    put_off = fresh.put_off("shop", asked=True, asked_until=until)
    assert (put_off.cause, put_off.due) == (Cause.RETRY_AFTER, until)
    assert fresh.put_off("shop").due == until
    forced = Desk()
    forced.gate.buckets.try_now(forced.key("shop"), force=True)
    proven = Desk(proven=("shop",))
    over = Desk()
    over.now += 301
    for desk in (forced, proven, over):
        assert desk.ask("shop", asked=True, asked_until=until) is StartNow
    far = Desk(retry=RetryPolicy(max_delay=60.0)).put_off("shop", asked=True, asked_until=until)
    assert far.due == until - 240


# ── travellers ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_who_took_the_client_down_travels_and_the_others_are_parked() -> None:
    """While it cannot have come back. What runs at the same time is parked, too."""
    desk = Desk()
    traveller, _ = desk.fails("shop")
    assert (traveller.waits_as, traveller.due) == (WaitsAs.PROBE, desk.wall() + 1)
    parked = desk.put_off("shop")
    assert (parked.waits_as, parked.cause, parked.due) == (WaitsAs.PARKED, Cause.CIRCUIT, traveller.due)
    desk.now += 1
    assert desk.put_off("shop").waits_as is WaitsAs.PROBE  # the first may have come to another worker


def test_what_fails_beside_the_one_that_took_the_client_down_is_parked() -> None:
    """Its attempt is no try: it began before."""
    desk = Desk(proven=("shop",))
    assert [desk.ask("shop") for _ in range(2)] == [StartNow] * 2
    before = len(desk.running["shop"])
    last, _ = desk.fails("shop")
    while not list(desk.gate.clients.circuits()):
        last, _ = desk.fails("shop")
    assert last.waits_as is WaitsAs.PROBE
    assert len(desk.running["shop"]) == before
    beside = desk.end("shop", Failed(reason=Reason.TIMEOUT)).verdict
    assert isinstance(beside, RetryAt)
    assert beside.waits_as is WaitsAs.PARKED


def test_a_traveller_is_the_next_try_and_travels_on_if_it_fails() -> None:
    """However many others there are. One that finds another under way looks again soon."""
    desk = Desk()
    waits = []
    for _ in range(6):
        traveller, delivery = desk.fails("shop", leash=desk.wall())
        assert traveller.waits_as is WaitsAs.PROBE
        assert delivery.leash == traveller.due
        waits.append(traveller.due - desk.wall())
        desk.now = traveller.due - AHEAD
    assert waits == [1, 1, 1, 1, 2, 2]
    assert desk.ask("shop", leash=desk.wall()) is StartNow
    other = desk.put_off("shop", leash=desk.wall())
    assert (other.waits_as, other.due) == (WaitsAs.PROBE, desk.wall() + 2)
    third = desk.put_off("shop", leash=desk.wall())
    assert third.waits_as is WaitsAs.PARKED  # the second looks after it


def test_a_fresh_logout_may_try_a_client_that_rests_for_long() -> None:
    """Four seconds after the last try. One that has waited before may not."""
    desk = resting(for_long=True)
    desk.now += FRESH - 0.1
    assert desk.put_off("shop").waits_as is WaitsAs.PARKED
    desk.now += 0.1
    assert desk.put_off("shop", first_taken_at=desk.wall() - 10).waits_as is WaitsAs.PARKED
    assert desk.ask("shop") is StartNow


def resting(*, for_long: bool = False) -> Desk:
    """A client that is down, with something in its bucket."""
    desk = Desk()
    traveller, _ = desk.fails("shop")
    while for_long and traveller.due - desk.wall() < 32:
        desk.now = traveller.due - AHEAD
        traveller, _ = desk.fails("shop", leash=desk.wall())
    park(desk)
    return desk


@pytest.mark.parametrize(("others_take", "rest"), [(0.001, 4.0), (5.0, 64.0)])
def test_a_rest_is_longer_only_if_others_that_are_down_hang_too(others_take: float, rest: float) -> None:
    """Where all hang, each rests until all of them could have had a try, at most for 64 s. Refusals take no slot."""
    desk = Desk()
    for nth in range(3000):
        assert desk.ask(f"c{nth}") is StartNow
        desk.now += others_take
        desk.end(f"c{nth}", Failed(reason=Reason.TIMEOUT))
    waits = 0.0
    for _ in range(2):
        assert desk.ask("shop", leash=desk.wall()) is StartNow
        desk.now += 5
        traveller = desk.end("shop", Failed(reason=Reason.TIMEOUT)).verdict
        assert isinstance(traveller, RetryAt)
        waits = traveller.due - desk.wall()
        desk.now += waits
    assert waits == pytest.approx(rest)


def park(desk: Desk, name: str = "shop") -> None:
    """Something comes for it and is parked; the queue confirms it."""
    assert desk.put_off(name).waits_as is WaitsAs.PARKED
    desk.gate.buckets.on_parked(desk.key(name))


def test_what_has_little_time_left_is_not_parked() -> None:
    """It would expire unseen. It looks again after half of its age, and for its last attempt."""
    desk = resting(for_long=True)
    for age, wait in ((0.0, 1.0), (10.0, 5.0), (60.0, 28.5)):
        now = desk.wall()
        short = desk.put_off("shop", first_taken_at=now - age, not_after=now + SHORT_LIVED / 2 - 0.5)
        assert (short.waits_as, short.due - now) == (WaitsAs.DELAYED, wait)


def test_after_four_failures_a_parked_delivery_is_the_probe() -> None:
    """The former probe is parked once the other one is durable, and comes back with all others after the outage."""
    desk = resting()
    desk.now += 1
    key = desk.key("shop")

    def rotate() -> None:
        assert (set(desk.gate.buckets.requested), desk.gate.buckets.wanted(key)) == ({key}, 1)
        probe = desk.put_off("shop", pulled=True, first_taken_at=desk.wall() - 5)
        assert (probe.waits_as, probe.due) == (WaitsAs.PROBE, desk.wall() + 1)
        desk.gate.buckets.on_probe_sent(key)

    desk.rotate = rotate
    former, delivery = desk.fails("shop", leash=desk.wall(), attempts=PROBE_FAILURES - 1)
    assert (desk.rotates, former.waits_as, delivery.leash) == (1.0, WaitsAs.PARKED, None)
    assert desk.gate.buckets.wanted(key) is None


@pytest.mark.parametrize("end_of_pass", [True, False])
def test_a_probe_stays_the_probe_if_no_other_is_durable(end_of_pass: bool) -> None:
    """The bucket has nothing else of the client, or the queue does not confirm what was fetched."""
    desk = resting()
    desk.now += 1

    def rotate() -> None:
        if end_of_pass:
            desk.gate.buckets.on_pass(desk.key("shop"), pulling=False, empty=True)
        else:
            desk.put_off("shop", pulled=True)

    desk.rotate = rotate
    probe, delivery = desk.fails("shop", leash=desk.wall(), attempts=PROBE_FAILURES - 1)
    assert (desk.rotates, probe.waits_as, delivery.leash) == (1.0, WaitsAs.PROBE, probe.due)
    assert desk.put_off("shop").waits_as is WaitsAs.PARKED


def test_few_probes_wait_for_another_at_a_time() -> None:
    """Their messages are not acked meanwhile: with thousands of clients down the retries of others would not come."""
    desk = Desk()
    rotating: list[None] = []

    def fail_its_probe(name: str) -> None:
        assert desk.ask(name, leash=desk.wall(), attempts=PROBE_FAILURES - 1) is StartNow
        verdict = desk.end(name, Failed(reason=Reason.TIMEOUT)).verdict
        assert isinstance(verdict, RetryAt)
        assert verdict.waits_as is WaitsAs.PROBE

    def rotate() -> None:
        rotating.append(None)
        fail_its_probe(f"shop-{len(rotating)}")

    desk.rotate = rotate
    for _ in range(2):
        rotating.clear()
        fail_its_probe("shop-0")
        assert len(rotating) == ROTATIONS
        desk.now += 10


def test_a_probe_waits_for_another_for_half_of_the_longest_rest_at_most() -> None:
    """However long a pause is: the broker closes the channel of a message that stays unacked for half an hour."""
    desk = resting()
    desk.now += 1
    desk.fails("shop", AN_HOUR, leash=desk.wall(), attempts=PROBE_FAILURES - 1)
    assert desk.rotates == MAX_OPEN_SECONDS


def test_a_probe_is_parked_at_once_if_another_is_out() -> None:
    """Two were in flight as the client went down, so both are probes."""
    desk = resting()
    desk.now += 1
    assert desk.ask("shop", leash=desk.wall(), attempts=PROBE_FAILURES - 1) is StartNow
    assert desk.put_off("shop", leash=desk.wall()).waits_as is WaitsAs.PROBE
    verdict = desk.end("shop", Failed(reason=Reason.TIMEOUT)).verdict
    assert isinstance(verdict, RetryAt)
    assert (desk.rotates, verdict.waits_as) == (0.0, WaitsAs.PARKED)


def test_a_client_that_recovers_meanwhile_has_its_former_probe_at_once() -> None:
    """Another worker saw it recover. The failure is not charged to the delivery's backoff."""
    desk = resting()
    desk.now += 3
    desk.rotate = lambda: desk.gate.on_peer_report(News(key=desk.key("shop"), up=True))
    verdict, delivery = desk.fails("shop", leash=desk.wall(), attempts=PROBE_FAILURES - 1)
    assert (desk.rotates, verdict.waits_as, delivery.backoffs) == (1.0, WaitsAs.DELAYED, 0)
    assert verdict.due - desk.wall() < 1


def test_a_probe_is_not_replaced_before_its_fourth_failure_or_if_nothing_is_parked() -> None:
    """As far as this worker knows."""
    desk = resting()
    desk.now += 1
    desk.fails("shop", attempts=PROBE_FAILURES - 2, leash=desk.wall())
    assert (desk.rotates, set(desk.gate.buckets.requested)) == (0.0, set())
    alone = Desk()
    alone.fails("shop", attempts=PROBE_FAILURES - 1)
    assert (alone.rotates, set(alone.gate.buckets.requested)) == (0.0, set())


def test_a_worker_that_stops_replaces_no_probe() -> None:
    """It looks after no bucket any more. A probe that waits for another goes on."""
    desk = resting()
    desk.now += 1
    desk.rotate = desk.gate.buckets.leave
    assert desk.fails("shop", leash=desk.wall(), attempts=PROBE_FAILURES - 1)[0].waits_as is WaitsAs.PROBE
    desk.now += 1
    assert desk.fails("shop", leash=desk.wall(), attempts=PROBE_FAILURES - 1)[0].waits_as is WaitsAs.PROBE
    assert not desk.rotates


def test_a_traveller_that_ends_is_followed_by_another() -> None:
    """Expired, refused or skipped: what is parked must not wait for one that never comes."""
    desk = resting()
    desk.gate.buckets.on_probe_lost(desk.key("shop"))
    assert desk.gate.buckets.requested.keys() == {desk.key("shop")}
    assert desk.gate.buckets.wanted(desk.key("shop")) == 1
    assert desk.put_off("shop", pulled=True).waits_as is WaitsAs.PROBE
    last = resting()
    last.now += 1
    assert last.ask("shop", leash=last.wall(), not_after=last.wall() + 1.5) is StartNow
    assert isinstance(last.end("shop", Failed(reason=Reason.TIMEOUT)).verdict, Dead)
    assert last.gate.buckets.requested.keys() == {last.key("shop")}


@pytest.mark.parametrize("asked", [None, AN_HOUR])
def test_a_traveller_that_comes_early_travels_on(asked: Failed | None) -> None:
    """An operator or a reload had it come. Parked, nobody would look after it; another traveller is parked."""
    desk = Desk()
    traveller, delivery = desk.fails("shop", asked)
    desk.now += 0.1
    ticket = desk.ticket("shop")
    ticket.delivery = delivery
    _, early = desk.deferred(ticket)
    assert early.waits_as is WaitsAs.PROBE
    assert early.due == pytest.approx(traveller.due, abs=0.5)
    assert desk.put_off("shop", leash=desk.wall()).waits_as is WaitsAs.PARKED


@pytest.mark.parametrize("paused", [False, True])
def test_an_overdue_traveller_is_replaced(paused: bool) -> None:
    """An operator may have taken it away: within a minute and a bit. Also that of a client that is up and paused."""
    desk, rest = resting(), 1
    if paused:
        desk, rest = Desk(proven=("shop",)), 10
        desk.fails("shop", Failed(reason=Reason.THROTTLED, status=429, retry_after=10.0))
        park(desk)
    desk.now += rest + OVERDUE
    desk.gate.buckets.look_after_overdue()
    assert not desk.gate.buckets.requested
    desk.now += 0.1
    desk.gate.buckets.look_after_overdue()
    assert desk.gate.buckets.requested.keys() == {desk.key("shop")}


def test_a_retry_after_is_not_forgotten() -> None:
    """Not even if nothing comes for the client meanwhile. Whoever was told of it travels for as long."""
    desk = Desk()
    traveller, delivery = desk.fails("shop", AN_HOUR)
    over = desk.wall() + 3600
    assert (traveller.waits_as, traveller.due, traveller.rounding) == (WaitsAs.PROBE, over, "up")
    assert (delivery.asked, delivery.backoffs) == (True, 0)
    for _ in range(35):
        desk.now += 100
        desk.tick()
    parked = desk.put_off("shop")
    assert (parked.waits_as, parked.cause, parked.due) == (WaitsAs.PARKED, Cause.RETRY_AFTER, over)
    desk.now = over - AHEAD - 0.9
    assert desk.put_off("shop").waits_as is WaitsAs.PROBE  # the last delay of the first may end early


# ── recovery ────────────────────────────────────────────────────────────────────────────────────────────────────


def recovers(desk: Desk, name: str = "shop") -> None:
    """Its traveller succeeds."""
    assert desk.ask(name, leash=desk.wall()) is StartNow
    desk.end(name)


def test_when_a_client_comes_up_its_bucket_is_wanted_at_its_pace() -> None:
    """As many at a time as it may have beside those that run and wait, or as its rate allows."""
    desk = resting()
    desk.now += 1
    recovers(desk)
    assert desk.gate.buckets.requested.keys() == {desk.key("shop")}
    assert desk.gate.buckets.wanted(desk.key("shop")) == 2
    assert desk.ask("shop") is StartNow
    assert desk.gate.buckets.wanted(desk.key("shop")) == 1
    limited = Desk(per_second=1.0)
    limited.fails("shop")
    park(limited)
    limited.now += 1
    recovers(limited)
    assert limited.gate.buckets.wanted(limited.key("shop")) == 0
    limited.now += 1
    assert limited.gate.buckets.wanted(limited.key("shop")) == 1


def test_of_what_is_parked_one_waits_among_those_that_come() -> None:
    """Where these fill the client's pace. It has its turn, and the next one is wanted."""
    desk = full()
    shop = desk.key("shop")
    assert desk.gate.buckets.wanted(shop) == 1
    parked = desk.waits(desk.ticket("shop", Lane.RETRIES, pulled=True))
    assert desk.gate.buckets.wanted(shop) == 0
    while parked not in desk.running["shop"]:
        desk.end("shop")
    desk.ask("shop")
    assert desk.gate.buckets.wanted(shop) == 1


def test_what_is_parked_during_a_pass_is_wanted_once_the_client_is_up() -> None:
    """The pass counted the bucket before: it ends without having seen what was parked again behind that."""
    for by_news in (False, True):
        desk = resting(for_long=True)
        shop = desk.key("shop")
        desk.gate.buckets.on_pass(shop, pulling=True)  # through all clients' deliveries, as after a loss
        desk.gate.buckets.on_parked(shop)
        assert not desk.gate.buckets.requested
        if by_news:
            desk.gate.on_peer_report(News(key=shop, up=True))
        else:
            desk.now += 64
            recovers(desk)
        assert desk.gate.buckets.requested.keys() == {shop}
        desk.gate.buckets.on_pass(shop, pulling=False, empty=True)
        assert desk.gate.buckets.is_held_up(shop)


def test_a_traveller_of_another_worker_says_that_something_may_be_parked() -> None:
    """There, while it was on its way."""
    desk = Desk()
    recovers(desk)
    assert desk.gate.buckets.requested.keys() == {desk.key("shop")}


def test_nothing_is_wanted_where_nothing_is_parked() -> None:
    """Not after a first success, nor after a recovery."""
    desk = Desk(proven=("shop",))
    desk.fails("down")
    desk.now += 2
    assert desk.ask("down") is StartNow
    desk.end("down")
    assert not desk.gate.buckets.requested


def test_what_is_parked_too_late_is_wanted() -> None:
    """Its confirm comes when the client is up, its cover over, or when nothing is known of the client any more."""
    desk = resting()
    desk.now += 1
    recovers(desk)
    desk.gate.buckets.requested.clear()
    desk.gate.buckets.on_pass(desk.key("shop"), pulling=True)
    desk.gate.buckets.on_parked(desk.key("shop"))  # perhaps too late for this pass
    assert desk.gate.buckets.requested.keys() == {desk.key("shop")}
    down = resting()
    down.now += 1
    down.gate.buckets.on_parked(down.key("shop"))
    assert down.gate.buckets.requested.keys() == {down.key("shop")}
    forgotten = Desk()
    forgotten.gate.buckets.on_parked(forgotten.key("shop"))
    assert forgotten.gate.buckets.requested.keys() == {forgotten.key("shop")}


def test_how_long_a_recovery_took_is_told_once() -> None:
    """When its bucket was gone through; not when it is gone through again."""
    desk = resting()
    desk.now += 1
    recovers(desk)
    desk.gate.buckets.requested.clear()
    desk.now += 2.5
    for _ in range(2):
        desk.gate.buckets.on_pass(desk.key("shop"), pulling=False, empty=True)
    assert [fact.seconds for fact in desk.facts if isinstance(fact, ClientServed)] == [2.5]
    assert not desk.gate.buckets.is_held_up(desk.key("shop"))


# ── whose failure it is ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_failure_of_a_client_that_is_up_is_the_deliverys_own() -> None:
    """If another delivery had more luck since it was last charged."""
    desk = Desk(proven=("shop",))
    own, delivery = desk.fails("shop")
    assert (own.waits_as, delivery.backoffs) == (WaitsAs.DELAYED, 1)
    again: dict[str, Any] = {"attempts": 1, "backoffs": 1, "charged_at": desk.wall()}
    desk.now += 1
    _, delivery = desk.fails("shop", **again)
    assert (delivery.attempts, delivery.backoffs) == (2, 1)
    assert desk.ask("shop") is StartNow
    desk.end("shop")
    _, delivery = desk.fails("shop", **again)
    assert delivery.backoffs == 2


def test_a_failure_in_an_outage_is_not_charged() -> None:
    """Neither one that seemed to be the delivery's own until its client went down."""
    desk = Desk(proven=("shop",))
    desk.now += 1
    _, delivery = desk.fails("shop")
    before = desk.wall() - 1
    last = delivery
    while not list(desk.gate.clients.circuits()):
        desk.now += 0.3
        _, last = desk.fails("shop")
    assert (delivery.backoffs, last.backoffs) == (1, 0)
    for charged_at, charged in ((delivery.charged_at, 0), (before, 1)):
        ticket = desk.ticket("shop", attempts=1, backoffs=1, charged_at=charged_at, first_taken_at=before)
        delivery, _ = desk.deferred(ticket)
        assert delivery.backoffs == charged


def test_a_brake_without_a_pace_is_the_deliverys_own() -> None:
    """One that is answered 429 waits for its own backoff; else it would be tried again at once, and 32 times."""
    desk = Desk(proven=("shop",))
    own, delivery = desk.fails("shop", Failed(reason=Reason.THROTTLED, status=429))
    assert (own.waits_as, own.due, delivery.backoffs) == (WaitsAs.DELAYED, desk.wall() + 2, 1)


# ── what is remembered ──────────────────────────────────────────────────────────────────────────────────────────


def test_many_clients_that_pause_hold_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than are remembered: each look is short, and none of the pauses is forgotten."""
    monkeypatch.setattr(known_clients, "MOST_KNOWN", 200)
    desk = Desk()
    names = [f"c{number}" for number in range(250)]
    for name in names:
        desk.fails(name, AN_HOUR)
    for _ in range(100):
        desk.tick()
    for name in names:
        assert desk.put_off(name).cause is Cause.RETRY_AFTER


def test_of_very_many_clients_the_quietest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """But none while anything of it is on its way."""
    monkeypatch.setattr(known_clients, "MOST_KNOWN", 200)
    desk = Desk(proven=("shop",))
    assert desk.ask("shop") is StartNow
    desk.prove("quiet")
    for number in range(250):
        assert desk.ask(f"c{number}") is StartNow
        desk.end(f"c{number}")
    for _ in range(100):
        desk.tick()
    desk.end("shop")
    assert desk.as_many_as_run("shop") > 1
    assert desk.as_many_as_run("quiet") == 1


# ── other workers ───────────────────────────────────────────────────────────────────────────────────────────────


def test_it_tells_what_it_sees() -> None:
    """That a client goes down, fails its try and recovers. A success or failure of one that is up is no news."""
    desk = Desk(proven=("shop",))
    desk.fails("shop")
    assert not desk.news
    desk.now += 1
    desk.fails("wiki")
    park(desk, "wiki")
    desk.now += 1
    desk.fails("wiki", leash=desk.wall())
    desk.now += 1
    recovers(desk, "wiki")
    key = desk.key("wiki")
    assert desk.news == [
        News(key=key, up=False, rest=1.0),
        News(key=key, up=False, failing=1.0, rest=1.0, parked=True),
        News(key=key, up=True, cap=2, parked=True),
    ]


def test_it_acts_on_what_it_hears() -> None:
    """As if it had seen it: the client rests, and its bucket is gone through when it is well."""
    desk = Desk(proven=("shop",))
    key = desk.key("shop")
    desk.now += 5
    desk.gate.on_peer_report(News(key=key, up=False, failing=1.0, rest=8.0))
    assert [*desk.gate.clients.circuits()] == [(*key, 2)]
    assert [*desk.gate.clients.next_tries()] == [(*key, desk.wall() + 8)]
    desk.now += 4
    desk.gate.on_peer_report(News(key=key, up=True, cap=4, parked=True))
    assert [*desk.gate.clients.circuits()] == []
    assert [fact.__class__.__name__ for fact in desk.facts] == [ClientFailing.__name__, ClientRecovered.__name__]
    assert desk.gate.buckets.requested.keys() == {key}


def test_what_another_worker_leaves_behind_is_gone_through() -> None:
    """One that stops says so of each client, also to those who know nothing of it."""
    desk = resting()
    desk.gate.buckets.leave()
    desk.now += 1
    recovers(desk)
    told, other = desk.news[-1], Desk()
    assert (told.up, told.parked, desk.gate.buckets.requested) == (True, True, {})
    other.gate.on_peer_report(told)
    assert other.gate.buckets.requested.keys() == {told.key}


def test_a_worker_that_stops_in_the_middle_of_a_pass_says_what_it_leaves() -> None:
    """As it stops, and again if a delivery is durable in the bucket only then: the others may have passed by."""
    desk = resting()
    desk.now += 1
    recovers(desk)
    key = desk.key("shop")
    desk.gate.buckets.on_pass(key, pulling=True)
    for leaves in (desk.gate.buckets.leave, lambda: desk.gate.buckets.on_parked(key)):
        desk.news.clear()
        leaves()
        assert [(told.key, told.up, told.parked) for told in desk.news] == [(key, True, True)]


def test_a_worker_that_stops_repeats_nothing_that_it_hears() -> None:
    """All have heard it: two workers that stop would tell it each other again and again."""
    desk = resting(for_long=True)
    desk.gate.buckets.leave()
    desk.news.clear()
    desk.gate.on_peer_report(News(key=desk.key("shop"), up=True, parked=True))
    assert [*desk.gate.clients.circuits()] == []
    assert not desk.news


def test_a_worker_that_stops_parks_nothing() -> None:
    """It looks after no bucket any more: what waits is delayed for half of its age, again and again."""
    desk = resting(for_long=True)
    desk.gate.buckets.leave()
    for age, wait in ((0.0, 1.0), (30.0, 15.0)):
        defer = desk.put_off("shop", first_taken_at=desk.wall() - age)
        assert (defer.waits_as, defer.due) == (WaitsAs.DELAYED, desk.wall() + wait)


def test_a_client_that_hangs_is_told_from_the_first_second_on() -> None:
    """Not one that is slow to answer for less, nor one that is down: that is told otherwise."""
    desk = Desk(proven=("shop",))
    assert desk.ask("shop") is StartNow
    desk.now += 0.9
    assert list(desk.gate.unresponsive()) == []
    desk.now += 1
    [(iss, client_id, seconds)] = desk.gate.unresponsive()
    assert (iss, client_id, round(seconds, 1)) == (*desk.key("shop"), 1.9)
    desk.end("shop")
    assert list(desk.gate.unresponsive()) == []


# ── operators ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_operator_has_a_client_tried() -> None:
    """At once, although a traveller is out; with `force` also against a pause, and if nothing is known of it."""
    desk = resting(for_long=True)
    key = desk.key("shop")
    assert desk.gate.buckets.standing(key).next_try == desk.wall() + 32
    desk.gate.buckets.try_now(key, force=False)
    assert (desk.gate.buckets.requested, desk.gate.buckets.wanted(key)) == ({key: None}, 1)
    desk.now += 1
    assert desk.ask("shop", pulled=True) is StartNow
    pauses = Desk()
    pauses.fails("shop", AN_HOUR)
    pauses.gate.buckets.try_now(key, force=False)
    assert (pauses.gate.buckets.requested, pauses.gate.buckets.standing(key).paused_until) == ({}, pauses.wall() + 3600)
    pauses.gate.buckets.try_now(key, force=True)
    assert (pauses.gate.buckets.requested, pauses.gate.buckets.standing(key).paused_until) == ({key: None}, None)
    unknown = Desk()
    unknown.gate.buckets.try_now(key, force=False)
    assert unknown.gate.buckets.requested.keys() == {key}
