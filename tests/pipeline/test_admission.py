"""Admission: who begins, who waits in memory, who is put off until when; and that its books always balance."""

from collections.abc import Iterator
from itertools import count, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notifier.domain.client import Client
from notifier.domain.message import Lane
from notifier.domain.outcome import Cause
from notifier.pipeline.admission import AT_ONCE, KEPT, MOST_KNOWN, Admission, Go, Later, Wait
from notifier.pipeline.client_standing import CircuitChange, Group, Mark
from notifier.pipeline.window import Window
from tests.pipeline.simulation import client

_numbers = count()


class TimedAdmission:
    """An admission with a clock; tickets are made here and known by their clients."""

    def __init__(self, window: int = 512, workers: int = 1) -> None:
        self.workers = workers
        self.changes: list[tuple[str, CircuitChange]] = []
        self.window = Window(window)
        self.admission: Admission[list[int]] = Admission(
            self.window, slot_wait=1.0, workers=lambda: self.workers,
            circuit_changed=lambda client, change: self.changes.append((client.client_id, change)),
        )  # fmt: skip
        self.now = 0.0
        self.running: list[tuple[Client, list[int]]] = []
        self.clients: dict[int, Client] = {}

    def ask(self, one: Client, lane: Lane = Lane.EVENTS, reserved: float | None = None) -> Go | Wait | Later:
        ticket = [next(_numbers)]
        self.clients[ticket[0]] = one
        answer = self.admission.ask(one, lane, ticket, self.now, reserved)
        if isinstance(answer, Go):
            self.running.append((one, ticket))
        return answer

    def end(self, one: Client, mark: Mark = Mark.ALIVE) -> int:
        """The oldest attempt at it ends; how many begin in its place."""
        found = next(pair for pair in self.running if pair[0].key == one.key)
        self.running.remove(found)
        return self._begun(self.admission.ended(one, found[1], mark, self.now))

    def tick(self) -> list[tuple[str, Later]]:
        off = [(self.clients[ticket[0]].client_id, later) for ticket, later in self.admission.put_off(self.now)]
        self._begun(self.admission.hand_out(self.now))
        return off

    def _begun(self, tickets: list[list[int]]) -> int:
        self.running += [(self.clients[ticket[0]], ticket) for ticket in tickets]
        return len(tickets)

    def attempt(self, one: Client, mark: Mark = Mark.ALIVE, seconds: float = 0.005) -> None:
        """One attempt from beginning to end."""
        assert isinstance(self.ask(one), Go)
        self.now += seconds
        self.end(one, mark)

    def prove(self, *clients: Client) -> None:
        """Five quick answers each: in good standing, and with a full cap."""
        for one in clients:
            for _ in range(5):
                self.attempt(one)

    def at(self, name: str) -> int:
        """How many run at it."""
        return sum(1 for one, _ in self.running if one.client_id == name)


A, B = client("a"), client("b")


def _kinds(answers: Iterator[Go | Wait | Later]) -> list[str]:
    return [type(answer).__name__ for answer in answers]


def test_a_new_client_gets_two_slots_and_its_flood_waits_for_the_first_answer() -> None:
    """Nothing is known of its pace yet."""
    timed = TimedAdmission()
    assert _kinds(timed.ask(A) for _ in range(5)) == ["Go", "Go", "Wait", "Wait", "Wait"]
    timed.now = 0.005
    assert timed.end(A) == 3  # the cap is 4 now


def test_the_limit_is_the_client_s_total_over_all_workers() -> None:
    """At least one slot each."""
    timed = TimedAdmission(workers=3)
    nine, two = client("nine", max_concurrent=9), client("two", max_concurrent=2)
    timed.prove(nine, two)
    assert _kinds(timed.ask(nine) for _ in range(4)) == ["Go"] * 3 + ["Wait"]
    assert _kinds(timed.ask(two) for _ in range(2)) == ["Go", "Wait"]


def test_no_client_gets_more_than_a_quarter_of_the_window() -> None:
    """Whatever its registration says: if it hangs, the others still have the rest."""
    timed, greedy = TimedAdmission(window=40), client("greedy", max_concurrent=500)
    timed.prove(greedy)
    for _ in range(20):
        timed.ask(greedy)
    assert timed.at("greedy") == 10


def test_a_well_client_s_deliveries_wait_while_that_takes_less_than_a_second() -> None:
    """One slot and 0.24 s an answer: four may wait, the next is put off."""
    timed, one = TimedAdmission(), client("one", max_concurrent=1)
    for _ in range(5):
        timed.attempt(one, seconds=0.24)
    assert _kinds(timed.ask(one) for _ in range(7)) == ["Go"] + ["Wait"] * 4 + ["Later"] * 2


def test_what_is_put_off_comes_one_by_one_at_the_client_s_pace() -> None:
    """And keeps its place if it comes back early."""
    timed, one = TimedAdmission(), client("one", max_concurrent=1)
    for _ in range(5):
        timed.attempt(one, seconds=0.24)
    later = [answer for answer in [timed.ask(one) for _ in range(25)] if isinstance(answer, Later)]
    dues = [answer.due - timed.now for answer in later]
    assert dues == pytest.approx([0.24 * number for number in range(20)])
    assert {answer.cause for answer in later} == {Cause.SLOT}
    timed.now += 0.05
    again = timed.ask(one, reserved=later[-1].due)
    assert again == Later(due=later[-1].due, cause=Cause.SLOT)


def test_who_comes_early_and_finds_a_slot_begins() -> None:
    """A reservation is a promise to the delivery, no bar."""
    timed = TimedAdmission()
    timed.prove(A)
    assert isinstance(timed.ask(A, Lane.RETRIES, reserved=timed.now + 500), Go)


def test_a_suspect_has_one_slot_and_nothing_waits_for_it() -> None:
    """What comes meanwhile is put off for as long as its attempts take."""
    timed = TimedAdmission()
    timed.prove(A)
    timed.attempt(A, seconds=2.0)
    assert isinstance(timed.ask(A), Go)
    answer = timed.ask(A)
    assert isinstance(answer, Later)
    assert 1.0 <= answer.due - timed.now <= 5.0


def test_deliveries_wait_for_the_one_slot_of_a_client_that_fails_quickly() -> None:
    """Its next answer may be a good one, and so short an attempt costs nobody: none is put off for a second."""
    timed, one = TimedAdmission(), client("quick to fail")
    timed.attempt(one)
    timed.attempt(one, Mark.DOWN, seconds=0.002)
    assert isinstance(timed.ask(one), Go)
    assert timed.ask(one) == Wait()
    assert timed.tick() == []
    assert timed.end(one, Mark.DOWN) == 1
    timed.now += 1.5
    assert [name for name, _ in timed.tick()] == []  # nobody waits by now
    assert isinstance(timed.ask(one), Later)  # and for one that hangs nobody does


def test_all_suspects_together_have_a_quarter_of_the_window_s_size() -> None:
    """And take nothing from it."""
    timed = TimedAdmission(window=40)
    slow = [client(f"slow{number}") for number in range(15)]
    for one in slow:
        timed.attempt(one, seconds=2.0)
    kinds = _kinds(timed.ask(one) for one in slow)
    assert kinds.count("Go") == 10
    assert sum(timed.window.in_flight.values()) == 0


def test_those_not_proven_leave_a_part_of_the_window_free() -> None:
    """A quarter for the well where they come with fresh events, half with retries."""
    for lane, most in ((Lane.EVENTS, 30), (Lane.RETRIES, 20), (Lane.BULK, 20)):
        timed = TimedAdmission(window=40)
        timed.prove(A)
        new = [client(f"new{number}") for number in range(50)]
        assert _kinds(timed.ask(one, lane) for one in new).count("Go") == most
        assert isinstance(timed.ask(A), Go)


def test_a_silent_client_gets_nothing_more_and_few_wait_for_it() -> None:
    """Silence of a tenth of a second, where 5 ms are usual: it may be short, so no one is condemned yet."""
    timed = TimedAdmission()
    timed.prove(A)
    assert isinstance(timed.ask(A), Go)
    timed.now += 0.2
    assert set(_kinds(timed.ask(A) for _ in range(32))) == {"Wait"}
    assert isinstance(timed.ask(A), Later)
    assert timed.tick() == []
    assert timed.end(A) == 32


def test_who_hangs_for_a_second_leaves_the_window_and_those_who_wait_are_put_off() -> None:
    """A few at a time, so that they hold nobody up now or when they come back."""
    timed = TimedAdmission(window=64)
    timed.prove(A)
    for _ in range(8):
        timed.ask(A)
    timed.now += 0.2
    for _ in range(32):
        timed.ask(A)
    waiting = timed.admission.waiting
    assert waiting >= AT_ONCE
    timed.now += 0.81
    assert len(timed.tick()) == AT_ONCE
    assert timed.admission.waiting == waiting - AT_ONCE
    assert sum(timed.window.in_flight.values()) == 0
    off = timed.tick()
    assert all(name == "a" and later.due >= timed.now + 5.0 for name, later in off)
    assert timed.admission.waiting == 0


def test_nobody_comes_back_to_one_that_hangs_before_more_can_be_known_of_it() -> None:
    """A pass for nothing: rounded down, 5 s are a delay queue of 4. The first, and those after, are not rounded up."""
    timed = TimedAdmission()
    timed.prove(A)
    assert isinstance(timed.ask(A), Go)
    timed.now += 1.1
    timed.tick()
    answers = [timed.ask(A) for _ in range(400)]
    later = [answer for answer in answers if isinstance(answer, Later)]
    assert len(later) == 400
    assert later[0].rounding == "down"
    assert later[0].due == timed.now + A.timeout
    for one in later[1:]:
        assert one.rounding == ("up" if one.due < timed.now + 7.99 else "down"), one
    assert later[-1].rounding == "down"


def test_what_waited_for_the_window_begins_when_what_hangs_leaves_it() -> None:
    """It need not wait until some attempt ends."""
    timed = TimedAdmission(window=4)
    well = client("well")
    hanging = [client(f"h{number}") for number in range(4)]
    timed.prove(well, *hanging)
    for one in hanging:
        timed.ask(one)
    assert isinstance(timed.ask(well), Wait)
    timed.now += 1.01
    timed.tick()
    assert timed.at("well") == 1


def test_a_flood_for_one_client_takes_no_slot_from_another() -> None:
    """Each has its own; the rest wait."""
    timed = TimedAdmission(window=12)
    timed.prove(A, B)
    for one in (A, B):
        for _ in range(5):
            timed.ask(one)
    assert (timed.at("a"), timed.at("b")) == (3, 3)


def test_the_largest_waiter_gives_way_to_another_client_never_to_itself() -> None:
    """Its newest, of its lowest lane."""
    timed = TimedAdmission(window=12)
    timed.prove(A, B)
    for lane in (Lane.EVENTS, Lane.EVENTS, Lane.EVENTS, Lane.BULK, Lane.EVENTS, Lane.EVENTS):
        timed.ask(A, lane)
    assert timed.admission.waiting == 3
    assert timed.admission.give_way(A.key, timed.now) is None
    given = timed.admission.give_way(B.key, timed.now)
    assert given is not None
    assert given[1].cause is Cause.SLOT
    assert timed.admission.waiting == 2


def test_a_rate_puts_off_at_its_pace() -> None:
    """Ten at once, then a tenth of a second each."""
    timed, one = TimedAdmission(), client("one", per_second=10.0, max_concurrent=200)
    timed.prove(one)
    timed.now += 10.0
    answers = [timed.ask(one) for _ in range(20)]
    later = [answer for answer in answers if isinstance(answer, Later)]
    assert len(later) == 10
    assert {answer.cause for answer in later} == {Cause.RATE}
    steps = [after.due - before.due for before, after in pairwise(later)]
    assert steps == pytest.approx([0.1] * 9)


def _open(timed: TimedAdmission, one: Client) -> None:
    timed.prove(one)
    while not timed.changes:
        timed.attempt(one, Mark.DOWN)


def test_an_open_circuit_puts_off_until_its_probe_and_the_first_in_line_comes_on_time() -> None:
    """The others come after it, and are rounded up: once is enough."""
    timed = TimedAdmission()
    _open(timed, A)
    first, second, third = (timed.ask(A) for _ in range(3))
    assert isinstance(first, Later)
    assert isinstance(second, Later)
    assert isinstance(third, Later)
    assert (first.due, first.rounding, first.cause) == (timed.now + 30, "down", Cause.CIRCUIT)
    assert timed.now + 30 < second.due < third.due < timed.now + 31
    assert second.rounding == "up"
    timed.now += 16
    assert timed.ask(A, reserved=first.due) == first
    timed.now = first.due
    assert isinstance(timed.ask(A, reserved=first.due), Go)
    assert isinstance(timed.ask(A, reserved=second.due), Later)


def test_a_change_of_the_circuit_is_told_once_and_seen() -> None:
    """Opened, half-open, closed."""
    timed = TimedAdmission()
    _open(timed, A)
    assert list(timed.admission.circuits()) == [(*A.key, 2)]
    timed.now += 30
    timed.ask(A)
    assert list(timed.admission.circuits()) == [(*A.key, 1)]
    timed.end(A)
    assert list(timed.admission.circuits()) == []
    assert timed.changes == [("a", CircuitChange.OPENED), ("a", CircuitChange.CLOSED)]


def test_a_pause_that_the_client_asked_for_holds_until_then() -> None:
    """Also for those who wait in memory; the longer of two counts."""
    timed, one = TimedAdmission(), client("one", max_concurrent=1)
    timed.prove(one)
    timed.ask(one)
    timed.ask(one)
    until = timed.now + 60
    timed.admission.pause(one, until)
    timed.admission.pause(one, until - 30)
    [(_, later)] = timed.tick()
    assert later == Later(due=until, cause=Cause.RETRY_AFTER)
    timed.end(one, Mark.BRAKED)
    assert isinstance(timed.ask(one), Later)
    timed.now = until
    assert isinstance(timed.ask(one), Go)


def test_clients_not_heard_of_are_let_go_whatever_their_circuit() -> None:
    """But none of which anything is in memory."""
    timed = TimedAdmission()
    _open(timed, A)
    timed.prove(B)
    timed.ask(B)
    timed.now += KEPT + 1
    timed.tick()
    assert list(timed.admission._known) == [B.key]
    assert list(timed.admission.circuits()) == []
    timed.end(B)


def test_so_many_clients_are_remembered_and_no_more() -> None:
    """Inline clients can have any name."""
    timed = TimedAdmission()
    for number in range(MOST_KNOWN + 100):
        timed.attempt(client(f"c{number}"), seconds=0.0)
    timed.tick()
    assert len(timed.admission._known) == MOST_KNOWN


def test_a_drain_forgets_those_who_wait() -> None:
    """What runs goes on and ends in order."""
    timed = TimedAdmission()
    for _ in range(5):
        timed.ask(A)
    timed.admission.abandon()
    assert timed.admission.waiting == 0
    assert timed.end(A) == 0
    assert timed.end(A) == 0
    assert isinstance(timed.ask(A), Go)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask", "ask", "end", "tick", "pass", "pause", "give_way"]),
        st.integers(0, 5),
        st.sampled_from(list(Lane)),
        st.sampled_from(list(Mark)),
        st.sampled_from([0.0, 0.005, 0.3, 1.1, 6.0, 40.0]),
    ),
    max_size=120,
)


@given(STEPS, st.integers(1, 3))
@settings(max_examples=150, deadline=None)
def test_the_books_balance_whatever_happens(steps: list[tuple[str, int, Lane, Mark, float]], workers: int) -> None:
    """No cap, window or share is ever exceeded; all who wait begin or are put off in the end; counters end at zero."""
    timed = TimedAdmission(window=12, workers=workers)
    clients = [client(f"c{number}", max_concurrent=(1, 2, 3, 8, 100, 100)[number]) for number in range(6)]
    for step, which, lane, mark, seconds in steps:
        one, before = clients[which], sum(timed.window.in_flight.values())
        match step:
            case "ask":
                timed.ask(one, lane)
            case "end" if timed.at(one.client_id):
                timed.end(one, mark)
            case "tick":
                timed.tick()
            case "pause":
                timed.admission.pause(one, timed.now + seconds)
            case "give_way":
                timed.admission.give_way(one.key, timed.now)
            case _:
                timed.now += seconds
        _check(timed, clients, workers)
        # A suspect that answers comes back into the window with what runs at it, full or not; nothing else may.
        back = 2 if step == "end" else 0
        assert sum(timed.window.in_flight.values()) <= max(12, before + back)
    for _ in range(300):
        timed.now += 0.5
        timed.tick()
        for one in clients:
            if timed.at(one.client_id):
                timed.end(one)
    assert timed.running == []
    assert timed.admission.waiting == 0
    assert set(timed.window.in_flight.values()) == {0}
    assert set(timed.admission._window._running.values()) == {0}
    assert not timed.admission._busy
    assert not timed.admission._ready


def _check(timed: TimedAdmission, clients: list[Client], workers: int) -> None:
    admission = timed.admission
    for one in clients:
        assert timed.at(one.client_id) <= max(1, min(one.max_concurrent // workers, 3))
    by_group = admission._window._running
    assert sum(by_group.values()) == len(timed.running)
    assert by_group[Group.WELL] + by_group[Group.UNPROVEN] == sum(admission._window.in_flight.values())
    assert admission.waiting == sum(one.waiting for one in admission._known.values())


def test_the_line_of_a_client_that_fails_now_and_then_does_not_grow() -> None:
    """Each time that it is well again the line begins anew: nobody is put off for longer than one failure asks for."""
    timed = TimedAdmission()
    flaky = client("flaky")
    timed.prove(flaky)
    for _ in range(100):
        timed.attempt(flaky, Mark.BRAKED, seconds=0.1)
        for answer in [timed.ask(flaky) for _ in range(30)]:
            assert not isinstance(answer, Later) or answer.due - timed.now < 5.0
        timed.now += 0.1
        while timed.at("flaky"):
            timed.end(flaky)
