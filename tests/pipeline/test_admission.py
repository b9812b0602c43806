"""Who may be attempted, who waits in memory, who is parked, and who fetches what is parked."""

from collections.abc import Iterator
from typing import Any

import pytest

from notifier.domain.message import Lane
from notifier.domain.outcome import Cause
from notifier.domain.verdict import Place
from notifier.pipeline.admission import TIRED, Admission, Go, Later, Wait
from notifier.pipeline.drains import AT_ONCE
from notifier.pipeline.known_client import Key, Mark
from tests.pipeline.stage import client

SIZE = 64


class Desk:
    """An admission, its clock, and the tickets that run, by client."""

    def __init__(self, size: int = SIZE, *, proven: tuple[str, ...] = (), fill: float = 0.0, **limits: float) -> None:
        self.now, self.fill, self.limits = 1000.0, fill, limits
        self.admission: Admission[str] = Admission(size, slot_wait=1.0, fill=lambda: self.fill)
        self.running: dict[str, list[str]] = {}
        self._tickets: Iterator[str] = (f"ticket {number}" for number in range(10**6))
        for name in proven:
            for _ in range(40):  # enough for its cap to be its limit
                assert self.ask(name) == Go()
                self.end(name)

    def ask(self, name: str, lane: Lane = Lane.EVENTS, **more: float) -> Go | Wait | Later:
        limits: dict[str, Any] = {"max_concurrent": 32} | self.limits
        shop = client(name, **limits)
        ticket = next(self._tickets)
        answer = self.admission.ask(shop, lane, ticket, self.now, **more)  # type: ignore[arg-type]
        if answer == Go():
            self.running.setdefault(name, []).append(ticket)
        return answer

    def end(self, name: str, mark: Mark = Mark.ALIVE) -> list[str]:
        return self.admission.ended(self.key(name), self.running[name].pop(), mark, self.now)

    def fails(self, name: str, *, attempts: int = 1) -> Later | None:
        """An attempt at it fails. Where does its delivery wait?"""
        assert self.ask(name) == Go()
        self.end(name, Mark.DOWN)
        return self.admission.failed(self.key(name), self.now, braked=False, attempts=attempts)

    def park(self, name: str) -> None:
        """Something comes for it and is parked; the queue confirms it."""
        answer = self.ask(name)
        assert isinstance(answer, Later)
        assert answer.place is Place.PARKED
        self.admission.drains.parked(self.key(name), self.now)

    def fetches(self, *, fresh_waits: bool = False) -> list[tuple[str, int]]:
        return [(key[1], many) for key, many in self.admission.drains.fetches(self.now, fresh_waits=fresh_waits)]

    def as_many_as_run(self, name: str) -> int:
        """How many begin at it, if as many come as may."""
        count = 0
        while self.ask(name) == Go():
            count += 1
        return count

    @staticmethod
    def key(name: str) -> Key:
        return client(name).key


# ── slots ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_one_client_takes_half_of_what_is_free() -> None:
    """The next takes half of the rest, and a newcomer always finds a slot."""
    desk = Desk(proven=("a", "b", "c"), max_concurrent=1000)
    room = SIZE - 2 * (SIZE // 10)  # what one lane may hold
    assert [desk.as_many_as_run(name) for name in "abc"] == [room // 2, room // 4, room // 8 + 1]
    assert desk.ask("new") == Go()


def test_bulk_for_a_client_leaves_room_for_its_fresh_logouts() -> None:
    """Each lane keeps a tenth of the window for each other."""
    desk = Desk(10, proven=tuple("abcdefgh"), max_concurrent=1000)
    for name in "abcdefgh":
        assert desk.ask(name, Lane.BULK) == Go()
    assert (desk.admission.slots.has_slot(Lane.BULK), desk.admission.slots.has_slot(Lane.EVENTS)) == (False, True)
    assert desk.ask("fresh") == Go()


def test_what_is_silent_leaves_the_window() -> None:
    """Within a tenth of a second, whatever its size. What is slow has a quarter of the window beside it."""
    names = tuple(f"c{number}" for number in range(SIZE))
    desk = Desk(proven=(*names, "shop"))
    assert [desk.ask(name) for name in names[:52]] == [Go()] * 52
    assert not desk.admission.slots.has_slot(Lane.EVENTS)
    desk.now += 0.15
    list(desk.admission.put_off(desk.now))
    assert desk.admission.slots.hanging == 52
    assert desk.admission.slots.has_slot(Lane.EVENTS)
    assert desk.as_many_as_run("shop") == 26
    desk.now += 1.0
    answer = desk.ask(names[0])  # the slots of slow ones are all taken
    assert isinstance(answer, Later)
    assert (answer.place, answer.cause) == (Place.PARKED, Cause.SLOT)


def test_clients_that_hang_from_the_start_are_bounded() -> None:
    """Four windows of clients that nobody has tried yet, however many come."""
    desk = Desk(8)
    begun = 0
    for number in range(200):
        begun += desk.ask(f"c{number}") == Go()
        desk.now += 0.15
        list(desk.admission.put_off(desk.now))
    assert begun == 4 * 8


def test_a_delivery_waits_in_memory_only_if_its_turn_comes_soon() -> None:
    """Within a second; within less as memory fills. The others are parked."""
    for fill, most in ((0.0, 10), (0.5, 5), (1.0, 1)):
        desk = Desk(proven=("shop",), fill=fill, max_concurrent=1)
        assert desk.ask("shop") == Go()
        desk.now += 0.1
        desk.end("shop")
        desk.admission._known[desk.key("shop")].hold = 0.1
        answers = [desk.ask("shop") for _ in range(20)]
        assert answers[0] == Go()
        assert answers.count(Wait()) == most
        last = answers[-1]
        assert isinstance(last, Later)
        assert last.place is Place.PARKED


# ── rests and leashes ───────────────────────────────────────────────────────────────────────────────────────────


def test_the_first_is_the_leash_and_the_others_are_parked() -> None:
    """Who is parked has somebody who fetches it: without a leash on its way, the next becomes one."""
    desk = Desk()
    leash = desk.fails("shop")
    assert leash is not None
    assert (leash.place, leash.due) == (Place.LEASH, desk.now + 1)
    desk.park("shop")
    assert desk.fetches() == []
    desk.now += 0.95
    again = desk.ask("shop")  # the leash may have come to another worker
    assert isinstance(again, Later)
    assert again.place is Place.LEASH


def test_leashes_merge() -> None:
    """Several workers, or a pause, leave several. The last to come tries the client, and those before it are parked."""
    desk = Desk()
    desk.fails("shop")
    desk.admission.pause(desk.key("shop"), desk.now + 60)
    last = desk.ask("shop")
    assert isinstance(last, Later)
    assert last.place is Place.PARKED or last.due == desk.now + 60
    first = desk.now + 1
    desk.now += 1
    answer = desk.ask("shop", leash=first)
    assert isinstance(answer, Later)
    assert answer.due == pytest.approx(first + 59)


def test_a_leash_tries_its_client_when_it_comes() -> None:
    """Even a little early, since delays are rounded down. A fresh logout may try it after five seconds of rest."""
    desk = Desk()
    desk.fails("shop")
    leash = None
    for _ in range(16):
        state = desk.admission._known[desk.key("shop")]
        desk.now = max(state.next_try, desk.now + 1)
        leash = desk.fails("shop")
    assert leash is not None
    rest = leash.due - desk.now
    assert rest == 60
    assert isinstance(desk.ask("shop", fresh=True), Later)
    desk.now += 5
    assert desk.ask("shop", fresh=True) == Go()
    desk.end("shop", Mark.DOWN)
    desk.now = leash.due - rest / 8
    assert desk.ask("shop", leash=leash.due) == Go()


def test_a_fresh_leash_comes_back_soon() -> None:
    """Another worker may know already that the client is well: it waits a second, or half of its age."""
    desk = Desk()
    desk.fails("shop")
    for _ in range(12):
        desk.now += 60
        desk.fails("shop")
    desk.now += 55
    for age, wait in ((0.0, 1.0), (4.0, 2.0), (300.0, 5.0)):
        desk.admission._known[desk.key("shop")].leash_until = desk.now
        leash = desk.ask("shop", age=age)
        assert isinstance(leash, Later)
        assert (leash.place, leash.due) == (Place.LEASH, desk.now + wait)


def test_a_tired_leash_lets_another_take_its_place() -> None:
    """So that attempts are shared among those that wait."""
    desk = Desk()
    desk.fails("shop")
    desk.park("shop")
    desk.now += 1
    tired = desk.fails("shop", attempts=TIRED)
    assert tired is not None
    assert tired.place is Place.PARKED
    assert desk.fetches() == [("shop", 1)]
    another = desk.ask("shop", was_parked=True)
    assert isinstance(another, Later)
    assert another.place is Place.LEASH
    alone = Desk()
    alone.fails("shop")
    alone.now += 1
    still = alone.fails("shop", attempts=TIRED)
    assert still is not None
    assert still.place is Place.LEASH


def test_a_leash_that_ends_is_followed_by_another() -> None:
    """Expired, refused or skipped: what is parked must not wait for one that never comes."""
    desk = Desk()
    desk.fails("shop")
    desk.park("shop")
    desk.now += 1
    assert desk.ask("shop", leash=desk.now) == Go()
    desk.end("shop", Mark.DOWN)  # that was its last attempt
    assert desk.fetches() == [("shop", 1)]
    early = Desk()
    early.fails("shop")
    early.park("shop")
    early.admission.drains.leash_ends(early.key("shop"), early.now, early.now)
    assert early.fetches() == [("shop", 1)]


def test_a_retry_after_is_not_forgotten() -> None:
    """Not even if nothing comes for the client meanwhile."""
    desk = Desk()
    assert desk.ask("shop") == Go()
    desk.admission.pause(desk.key("shop"), desk.now + 3600)
    desk.end("shop", Mark.BRAKED)
    for _ in range(35):
        desk.now += 100
        list(desk.admission.put_off(desk.now))
    answer = desk.ask("shop", fresh=True)
    assert isinstance(answer, Later)
    assert (answer.cause, answer.due) == (Cause.RETRY_AFTER, 1000.0 + 3600)


# ── recovery ────────────────────────────────────────────────────────────────────────────────────────────────────


def down_with_parked(*names: str, **limits: float) -> Desk:
    """Each of these clients rests, and something is parked for it."""
    desk = Desk(**limits)  # type: ignore[arg-type]
    for name in names:
        desk.fails(name)
        desk.park(name)
    desk.now += 1
    return desk


def recover(desk: Desk, name: str, successes: int = 1) -> None:
    """Its leash succeeds."""
    for _ in range(successes):
        assert desk.ask(name) == Go()
        desk.end(name)


def test_a_bucket_is_drained_at_the_clients_pace() -> None:
    """As many at a time as the client may have, four of all clients on their way; one while a fresh one waits."""
    desk = down_with_parked("shop", "mail")
    recover(desk, "shop")
    assert desk.fetches() == [("shop", 2)]
    desk.admission.drains.fetched(desk.key("shop"), 2)
    recover(desk, "shop", 10)
    assert desk.fetches(fresh_waits=True) == [("shop", 1)]
    desk.admission.drains.fetched(desk.key("shop"), 1)
    recover(desk, "mail", 10)
    assert sum(many for _, many in desk.fetches()) == AT_ONCE
    assert desk.fetches() == []
    limited = down_with_parked("shop", per_second=1.0)
    recover(limited, "shop")
    assert limited.fetches() == []
    limited.now += 1
    assert limited.fetches() == [("shop", 1)]


def test_nothing_is_drained_above_half_of_memory() -> None:
    """What waits outside of memory does no harm. A leash is fetched, since it goes out again at once."""
    desk = down_with_parked("shop", "mail")
    recover(desk, "shop")
    desk.fill = 0.51
    assert desk.fetches() == []
    desk.fails("mail", attempts=TIRED)
    assert desk.fetches() == [("mail", 1)]


def test_clients_are_drained_in_turn() -> None:
    """However much the first has parked."""
    names = tuple(f"c{number}" for number in range(10))
    desk = down_with_parked(*names)
    for name in names:
        recover(desk, name, 10)
    served: list[str] = []
    for _ in range(20):
        for name, many in desk.fetches():
            served.append(name)
            desk.admission.drains.fetched(desk.key(name), many)
    assert set(served[:10]) == set(names)


def test_a_thousand_that_lack_a_leash_are_fetched_four_at_a_time() -> None:
    """They come into memory."""
    desk = down_with_parked(*(f"c{number}" for number in range(100)))
    for number in range(100):
        desk.admission.drains.leash_ends(desk.key(f"c{number}"), desk.now, desk.now)
    fetched: list[str] = []
    while found := desk.fetches():
        assert len(found) <= AT_ONCE
        for name, many in found:
            fetched.append(name)
            desk.admission.drains.fetched(desk.key(name), many)
    assert len(set(fetched)) == 100


def test_after_a_recovery_the_bucket_is_watched_for_a_minute() -> None:
    """Other workers park there until their own rest ends. How long the recovery took is told once."""
    told: list[float] = []
    desk = down_with_parked("shop")
    desk.admission.drains._drained = lambda _one, seconds: told.append(seconds)
    recover(desk, "shop")
    desk.now += 2.5
    desk.admission.drains.empty(desk.key("shop"), 1, desk.now)
    desk.admission.drains.empty(desk.key("shop"), 1, desk.now)
    assert told == [2.5]
    assert desk.admission.drains.watched(desk.now) == [desk.key("shop")]
    assert desk.admission.drains.watched(desk.now + 60) == []


def test_a_failure_in_an_outage_is_not_charged() -> None:
    """Neither one that seemed to be the delivery's own until its client went down."""
    desk = Desk(proven=("shop",))
    began = desk.now
    assert desk.fails("shop") is None
    assert desk.admission.charged(desk.key("shop"), None)
    assert not desk.admission.charged(desk.key("shop"), began)
    for _ in range(40):
        desk.now += 0.3
        if desk.fails("shop") is not None:
            break
    assert desk.admission.was_down(desk.key("shop"), began)
    assert not desk.admission.was_down(desk.key("shop"), began - 1)


def test_a_brake_without_a_pace_is_the_deliverys_own() -> None:
    """One that is answered 429 waits for its own backoff; else it would be tried again at once, and 32 times."""
    desk = Desk(proven=("shop",))
    assert desk.ask("shop") == Go()
    desk.end("shop", Mark.BRAKED)
    assert desk.admission.failed(desk.key("shop"), desk.now, braked=True, attempts=1) is None
