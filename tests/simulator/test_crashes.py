"""What holds when workers are killed: limits, the speed of clients that are well, and who becomes a dead letter."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import pytest

from notifier.model.client import Client
from notifier.model.outcome import DeadReason, HttpResponse
from tests.simulator.clients import Behaviour, Step, client, hangs, names, steady
from tests.simulator.world import World

PROMPT = 0.1  # seconds from the start of a worker to its death


class DeadlyWorld(World):
    """One worker, restarted at once whenever it dies. `deadly`: the event whose attempt kills it after `after`."""

    def __init__(
        self, clients: Iterable[Client], behaviours: Mapping[str, Behaviour] | None = None, *, after: float = 0.0
    ) -> None:
        super().__init__(clients, behaviours)
        self._after = after
        self.deadly = ""
        self.deaths = 0

    def behave(self, name: str, event_id: str) -> Step:
        """Schedule the death of the process that made this request."""
        if event_id == self.deadly:
            life = self.deaths
            self.at(self.now + self._after, lambda: self.die() if self.deaths == life else None)
            return self._after + 1, HttpResponse(status=200)
        return super().behave(name, event_id)

    def die(self) -> None:
        """Kill the worker and start another one."""
        self.deaths += 1
        self.restart(0, kill=True)

    def die_soon_after_start(self, times: int, life: float = PROMPT) -> None:
        """Let so many workers die in a row, each with all that it has prefetched."""
        for _ in range(times):
            self.run(self.now + life)
            self.die()
        self.run(self.now)


def most_within(seconds: float, moments: Sequence[float]) -> int:
    """Return the largest number of these moments that lie within so many seconds."""
    return max(sum(start <= moment < start + seconds for moment in moments) for start in moments)


def delivered_twice(world: World) -> int:
    """Return how many logouts were sent more than once."""
    times = Counter[tuple[str, str]]()
    for (_, event, name), count in world.tally.delivered_by.items():
        times[event, name] += count
    return sum(count > 1 for count in times.values())


def test_limits_hold_after_three_deaths() -> None:
    """600 wait for a client of two a second, one at a time: it gets no more, whatever happened to the worker."""
    with DeadlyWorld([client("x", per_second=2, max_concurrent=1)], {"x": steady(PROMPT / 2)}) as world:
        for _ in range(600):
            world.publish(["x"])
        world.die_soon_after_start(3)
        tally = world.run(world.now + 30)
        assert len(tally.attempts["x"]) <= 2 * world.now + 1 + 3  # a worker that starts makes one attempt
        assert len(tally.attempts["x"]) >= 50
        assert most_within(1.0, [at for at in tally.attempts["x"] if at > 2]) <= 3
        assert tally.most_running["x"] == 1


@pytest.mark.full
def test_workers_that_start_together_share_a_rate() -> None:
    """Three are killed at once while 600 wait for a client of two a second: from then on it gets two a second."""
    with World([client("x", per_second=2)], workers=3) as world:
        for _ in range(600):
            world.publish(["x"])
        world.run(20)
        for number in range(3):
            world.restart(number, kill=True)
        after = [at - 20 for at in world.run(50).attempts["x"] if at >= 20]
        assert all(sum(at <= end for at in after) <= 2 * end + 1.01 for end in after)
        assert len(after) >= 50


def test_a_pause_holds_after_deaths() -> None:
    """Three workers die, then the client asks for five minutes: it is called again after them."""
    paused = HttpResponse(status=503, retry_after="300")
    with DeadlyWorld(
        [client("x")], {"x": lambda now, _: (0.01, paused if now < 200 else HttpResponse(status=200))}
    ) as world:
        for _ in range(600):
            world.publish(["x"])
        world.die_soon_after_start(3)
        tally = world.run(290)
        assert len(tally.attempts["x"]) <= 4  # one by each worker
        assert world.run_until_done(400).left == 0


def test_new_worker_reads_a_pause_from_a_parked_delivery() -> None:
    """The worker dies when all is deferred: the next one goes through the buckets and makes no request."""
    with DeadlyWorld([client("x")], {"x": steady(0.01, HttpResponse(status=503, retry_after="300"))}) as world:
        for _ in range(300):
            world.publish(["x"])
        world.run(20)
        world.die()
        tally = world.run(290)
        assert len(tally.attempts["x"]) == 1


@pytest.mark.full
@pytest.mark.parametrize("rate", [2, None])
def test_only_the_killing_delivery_dead_letters(rate: float | None) -> None:
    """Of 600 messages one kills the process a hundred times: it alone becomes a dead letter."""
    with DeadlyWorld([client("x", per_second=rate)]) as world:
        for _ in range(600):
            world.publish(["x"])
        world.deadly = "e40"
        tally = world.run_until_done(3000)
        assert (tally.left, world.deaths) == (0, 99)
        ((_, letter),) = tally.dead_letters
        assert (letter.event_id, letter.reason) == ("e40", DeadReason.DELIVERY_LIMIT)


@pytest.mark.full
def test_only_the_late_killing_delivery_dead_letters() -> None:
    """The process dies five seconds later, when a thousand others have been attempted."""
    with DeadlyWorld([client("x", timeout=20.0)], after=5.0) as world:
        for _ in range(1000):
            world.publish(["x"])
        world.deadly = "e40"
        tally = world.run_until_done(3000)
        assert [letter.event_id for _, letter in tally.dead_letters] == ["e40"]
        assert tally.left == 0


def test_hung_clients_delay_no_other() -> None:
    """400 clients, a tenth of which hang, and three deaths: healthy clients get all deliveries within ten seconds."""
    everyone = names(400)
    with DeadlyWorld(map(client, everyone), dict.fromkeys(everyone[::10], hangs)) as world:
        for name in everyone:
            world.publish([name])
        world.die_soon_after_start(3, life=0.004)  # before the first answer
        died_at = world.now
        world.run(died_at + 10)
        well = [name for name in everyone if name not in everyone[::10]]
        late = [name for name in well if not world.tally.delivered[name]]
        assert not late


def test_large_event_is_acked_part_by_part() -> None:
    """The worker dies at half of 5,000 clients: few are notified twice. A new event waits for 500 at most."""
    everyone = names(5000)
    with DeadlyWorld(map(client, [*everyone, "new"]), dict.fromkeys(everyone, steady(0.1))) as world:
        world.publish(everyone)
        while sum(map(len, world.tally.delivered.values())) < 2500:
            world.run(world.now + 0.01)
        before = sum(map(len, world.tally.attempts.values()))
        world.publish(["new"])
        while not world.tally.delivered["new"]:
            world.run(world.now + 0.001)
        assert sum(map(len, world.tally.attempts.values())) - before <= 500
        world.die()
        assert world.run_until_done(60).left == 0
        assert delivered_twice(world) <= 700


def test_a_worker_may_die_at_any_moment_while_probes_take_turns() -> None:
    """Outside of the bucket the broker holds at least one delivery of a client that is down: another worker's probe."""
    with World(
        [client("x")], {"x": lambda now, _chance: (0.01, HttpResponse(status=503 if now < 40 else 200))}
    ) as world:
        world.stream(5, 10, lambda _chance: ["x"])
        world.run(3)
        fewest, parked = 1, 0
        while world.now < 20 and fewest:
            world.run(world.now + 0.001)
            broker = world.broker
            in_bucket = sum(map(len, broker.parked_in.values()))
            fetched = sum(tag.bucket is not None for consumer in broker.consumers for tag in consumer.held)
            fewest = min(fewest, broker.waits.total() - in_bucket - fetched)
            parked = max(parked, in_bucket)
        assert (fewest, parked > 20) == (1, True)
        assert world.run(80).left == 0
        assert world.tally.failed["x"] <= 5
