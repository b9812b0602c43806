"""The window of one queue, in virtual time."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress

import pytest

from notifier.model.errors import OneQueueUnavailable, QueueFull, QueueUnavailable
from notifier.queues.rabbitmq.queue_window import (
    CHANNEL_NACKS,
    LONG_REFUSAL_SECONDS,
    MANY_NACKS,
    MANY_PUBLISHES,
    MAX_WINDOW,
    MIN_WINDOW,
    PLACE_SECONDS,
    UNCONFIRMED_TRIAL_SECONDS,
    QueueWindow,
    describe_refusals,
)
from tests.simulator.virtual_time import VirtualLoop

PATIENCE = 2.0


class Broker:
    """Confirms or nacks publishes after `round_trip` seconds. `in_flight`: their number; `most`: its maximum."""

    def __init__(self, window: QueueWindow, round_trip: float = 0.01, *, confirms: bool = True) -> None:
        self.window, self.round_trip, self.confirms = window, round_trip, confirms
        self.in_flight = self.most = 0

    async def publish(self) -> None:
        """Publish by the rules of the window."""
        async with self.window:
            self.in_flight += 1
            self.most = max(self.most, self.in_flight)
            before = self.window.confirmed_count
            try:
                await asyncio.sleep(self.round_trip)
            finally:
                self.in_flight -= 1
            if self.confirms:
                self.window.on_confirmed(before)
            else:
                self.window.on_refused("full", is_nack=True)

    def start(self, count: int) -> "list[asyncio.Task[None]]":
        """Start so many publishes."""
        return [asyncio.create_task(self.publish()) for _ in range(count)]


def in_virtual_time(test: Callable[[], Coroutine[object, object, None]]) -> Callable[[], None]:
    """Run the test on a virtual loop."""

    def run() -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(test())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@in_virtual_time
async def test_silent_queue_holds_a_small_window() -> None:
    """RabbitMQ reads on while 32 publishes of a channel to one queue are unconfirmed, and not with one more."""
    broker = Broker(QueueWindow(), round_trip=3)
    publishes = broker.start(100)
    await asyncio.sleep(2)
    assert broker.most == MIN_WINDOW == 32
    await asyncio.gather(*publishes)


@in_virtual_time
async def test_long_round_trip_has_a_larger_window() -> None:
    """It grows while it is full, and shrinks while fewer publishes need it, a place for each."""
    broker = Broker(QueueWindow(), round_trip=0.5)
    await asyncio.gather(*broker.start(2000))
    assert broker.most == MAX_WINDOW
    for _ in range(MAX_WINDOW):
        await broker.publish()
    broker.most = 0
    publishes = broker.start(100)
    await asyncio.sleep(0.1)
    assert broker.most == MIN_WINDOW
    await asyncio.gather(*publishes)


@in_virtual_time
async def test_places_of_cancelled_publishes_are_free_again() -> None:
    """Whether the publish waited for its place, or had just got it."""
    broker = Broker(QueueWindow(), round_trip=1)
    publishes = broker.start(2 * MIN_WINDOW)
    await asyncio.sleep(0.5)
    for waiting in publishes[MIN_WINDOW:-1]:
        waiting.cancel()
    for sent in publishes[:MIN_WINDOW]:
        sent.cancel()
    await asyncio.wait(publishes)
    assert not publishes[-1].cancelled()
    broker.most = 0
    await asyncio.gather(*broker.start(MIN_WINDOW))
    assert broker.most == MIN_WINDOW


@in_virtual_time
async def test_patience_ends_when_a_queue_refuses() -> None:
    """Then a trial goes to it every half second, and one confirm restores the patience."""
    broker = Broker(QueueWindow(PATIENCE), confirms=False)
    while asyncio.get_running_loop().time() <= PATIENCE:
        await broker.publish()
        await asyncio.sleep(0.1)
    await broker.publish()  # the first trial
    with pytest.raises(QueueFull):
        await broker.publish()
    await asyncio.sleep(0.5)
    broker.confirms = True
    await broker.publish()
    await asyncio.gather(*broker.start(10))


@in_virtual_time
async def test_patience_ends_when_a_queue_is_silent() -> None:
    """Publishes without a place raise as well."""
    broker = Broker(QueueWindow(PATIENCE), round_trip=10)
    publishes = broker.start(MIN_WINDOW)
    await asyncio.sleep(0)
    with pytest.raises(OneQueueUnavailable) as failed:
        await broker.publish()
    assert not isinstance(failed.value, QueueFull)
    assert asyncio.get_running_loop().time() == PATIENCE
    await asyncio.gather(*publishes)


@in_virtual_time
async def test_publish_without_a_confirm_is_the_trial_of_a_silent_queue() -> None:
    """Each other trial would cost a delivery 10 s, again and again if there are few, and leave a copy in the queue."""
    window, late_confirms = QueueWindow(PATIENCE), list[asyncio.Future[object]]()
    clock = asyncio.get_running_loop().time

    async def publish() -> None:
        async with window:
            await asyncio.sleep(10)
            late_confirms.append(asyncio.get_running_loop().create_future())
            window.on_refused("no confirm", is_nack=False, late_confirm=late_confirms[-1])

    while clock() < 600:
        began_at = clock()
        try:
            await publish()
        except OneQueueUnavailable:
            assert clock() == began_at
            assert window.refused_at in {0, began_at}  # so that the status shows the refusal between two trials
            await asyncio.sleep(1)
    assert 600 / UNCONFIRMED_TRIAL_SECONDS <= len(late_confirms) <= 600 / UNCONFIRMED_TRIAL_SECONDS + 1
    for late_confirm in late_confirms:
        late_confirm.set_result(None)
    await asyncio.sleep(0)
    await asyncio.gather(*Broker(window).start(1))


@in_virtual_time
async def test_a_lost_confirm_does_not_delay_the_trials_of_a_queue_that_answers() -> None:
    """RabbitMQ 3.10 may lose one of those that it nacks: the next publish after a nack is tried within a second."""
    broker = Broker(QueueWindow(PATIENCE), confirms=False)
    never = asyncio.get_running_loop().create_future()

    async def lose() -> None:
        async with broker.window:
            await asyncio.sleep(10)
            broker.window.on_refused("no confirm", is_nack=False, late_confirm=never)

    lost = asyncio.create_task(lose())
    while not lost.done():
        with suppress(QueueFull):
            await broker.publish()
        await asyncio.sleep(0.1)
    broker.confirms, began_at = True, asyncio.get_running_loop().time()
    while broker.window.refusal is not None:
        with suppress(QueueFull):
            await broker.publish()
        await asyncio.sleep(0.1)
    assert asyncio.get_running_loop().time() - began_at < 1


@in_virtual_time
async def test_patience_ends_early_for_many_publishes() -> None:
    """So that those to one queue cannot fill a worker's memory within the two seconds."""
    refusing = Broker(QueueWindow(PATIENCE), confirms=False)
    await asyncio.gather(*refusing.start(MANY_NACKS))
    await asyncio.sleep(0.5)
    await refusing.publish()  # the first trial
    with pytest.raises(QueueFull):
        await refusing.publish()
    assert asyncio.get_running_loop().time() < PATIENCE
    silent = Broker(QueueWindow(PATIENCE), round_trip=10)
    publishes = silent.start(MANY_PUBLISHES)
    await asyncio.sleep(0.6)
    later = silent.start(10)
    await asyncio.sleep(0.1)
    assert not any(publish.done() for publish in publishes)
    assert sum(publish.done() for publish in later) == 10  # none is a trial
    await asyncio.gather(*publishes, *later, return_exceptions=True)


@in_virtual_time
async def test_late_publish_keeps_its_place() -> None:
    """It counts at the broker until its confirm, though it has failed for its caller."""
    window, late_confirms = QueueWindow(), list[asyncio.Future[object]]()
    for _ in range(MIN_WINDOW):
        async with window:
            late_confirms.append(asyncio.get_running_loop().create_future())
            window.on_refused("no confirm", is_nack=False, late_confirm=late_confirms[-1])
    broker = Broker(window)
    publishes = broker.start(10)
    await asyncio.sleep(PLACE_SECONDS - 1)
    assert broker.most == 0
    late_confirms.pop().set_result(None)
    await asyncio.gather(*publishes)
    assert broker.most == 1


@in_virtual_time
async def test_publish_without_a_place_fails() -> None:
    """While late publishes keep all places, a caller without patience learns so in time, and the status too."""
    window, clock = QueueWindow(), asyncio.get_running_loop().time
    for _ in range(MIN_WINDOW):
        async with window:
            window.on_refused("no confirm", is_nack=False, late_confirm=asyncio.get_running_loop().create_future())
    for number in range(1, 4):
        with pytest.raises(QueueUnavailable) as failed:
            await Broker(window).publish()
        assert not isinstance(failed.value, OneQueueUnavailable)
        assert window.refused_at == clock() == number * PLACE_SECONDS
    assert window.refuses_long


@in_virtual_time
async def test_late_publishes_do_not_enlarge_the_window() -> None:
    """Although they leave it while it should shrink, and their places are free after that."""
    broker, late_confirms = Broker(QueueWindow(), round_trip=0.5), list[asyncio.Future[object]]()
    await asyncio.gather(*broker.start(2000))
    await broker.publish()
    for _ in range(100):
        async with broker.window:
            late_confirms.append(asyncio.get_running_loop().create_future())
            broker.window.on_refused("no confirm", is_nack=False, late_confirm=late_confirms[-1])
    for late_confirm in late_confirms:
        late_confirm.set_result(None)
    await asyncio.gather(*broker.start(2000))
    assert broker.most == MAX_WINDOW


@in_virtual_time
async def test_nacks_in_a_row_need_another_channel() -> None:
    """At once; then after a quarter of the time of the refusal, 2 s to 60 s."""
    broker, clock = Broker(QueueWindow(), round_trip=0.1, confirms=False), asyncio.get_running_loop().time
    for _ in range(CHANNEL_NACKS):
        assert not broker.window.needs_channel(opened_at=-60)
        await broker.publish()
    opened_at, seconds = -60.0, list[float]()
    while clock() < 600:
        if broker.window.needs_channel(opened_at):
            seconds.append(clock() - opened_at)
            opened_at = clock()
        await broker.publish()
    assert len(seconds) < 30
    assert min(seconds) >= 2
    assert 59 < max(seconds) < 62
    broker.confirms = True
    await broker.publish()
    assert not broker.window.needs_channel(-60)


@in_virtual_time
async def test_short_refusal_is_no_problem() -> None:
    """A full queue that is read has room again. The problem is named after 10 s, until the queue confirms a publish."""
    broker, named_at = Broker(QueueWindow(), round_trip=1, confirms=False), list[int]()
    for second in range(1, 20):
        broker.confirms = second > 15
        await broker.publish()
        if broker.window.refuses_long:
            named_at.append(second)
    assert named_at == [*range(int(LONG_REFUSAL_SECONDS), 16)]


def test_problem_names_the_first_queue_and_counts_the_others() -> None:
    """The first by name, so that it is the same at each call, whichever refused last."""
    texts = {"n.parked-34": "b", "n.delay.8s": "a", "n.delay.16s": "c"}
    help_ = ": notifier explain NotifierQueueRefuses"
    assert describe_refusals(texts) == f"c, and 2 more refuse{help_}"
    assert describe_refusals({"n.delay.8s": "a"}) == f"a{help_}"
    assert describe_refusals({}) is None
