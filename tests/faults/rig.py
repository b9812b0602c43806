"""One installation under load: three clients, an identity server that publishes without pause, and the ledger.

`healthy` takes everything. `flaky` answers 503 to the first request of every third event, so that retries are on their
way at any moment. `refusing` answers 403 to every seventh, so that dead letters are.
"""

import asyncio
import contextlib
import itertools
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from tests.system import ledger
from tests.system.broker import QUEUES, broker
from tests.system.clients import Clients, Hit
from tests.system.ledger import Account, Found
from tests.system.publisher import Publisher
from tests.system.site import Site, client
from tests.system.waiting import until
from tests.system.worker_process import WorkerProcess

CLIENTS = ("healthy", "flaky", "refusing")
ANSWER = 0.01  # seconds that a client takes
PATIENCE = 120.0  # seconds for the next delivery to arrive; a retry takes one, a broker that comes back up to fifteen
FORWARDED_AGAIN = 300.0  # the same after a broker's start: docs/reliability.md, When the broker restarts
LONG = os.environ.get("NOTIFIER_TEST_FAULTS") == "long"


def refuses(number: int) -> bool:
    """True if `refusing` refuses this event."""
    return number % 7 == 0


def answers(flaky_every: int, within: float = ANSWER) -> Callable[[Hit], Awaitable[int]]:
    """What a request is answered with. `flaky` fails at the first request of every nth event; 0: it never does."""

    async def judge(hit: Hit) -> int:
        await asyncio.sleep(within)
        if hit.path == "/refusing" and refuses(int(hit.who)):
            return 403
        fails = hit.path == "/flaky" and flaky_every and hit.nth == 1 and int(hit.who) % flaky_every == 0
        return 503 if fails else 200

    return judge


judge = answers(3)


async def kill(running: WorkerProcess) -> None:
    """By SIGKILL, and wait until it is gone."""
    running.send(signal.SIGKILL)
    await running.ended()


class Publishes(Protocol):
    """An identity server, however it publishes."""

    async def publish(self, numbers: Iterable[int], *, rate: float) -> None:
        """Publish so many events a second, and return when all are confirmed."""


@contextlib.asynccontextmanager
async def load(publisher: Publishes, rate: float, first: int = 0) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Publish events from number `first` on while the block lasts, however slow the machine.

    At the end, or when the yielded function is called, publishing stops, and every event is confirmed.
    """
    going = True
    numbers = itertools.takewhile(lambda _: going, itertools.count(first))
    publishing = asyncio.create_task(publisher.publish(numbers, rate=rate))

    async def end() -> None:
        nonlocal going
        going = False
        await publishing

    try:
        yield end
        await end()
    finally:
        publishing.cancel()


class Rig:
    """See the module. Made by `rig`; workers are the test's own to start and to kill.

    `expected`: the deliveries that must end as dead letters, with their reasons, where a test's clients have another
    `judge`.
    """

    def __init__(self, folder: Path, urls: Sequence[str], prefix: str, clients: Clients) -> None:
        self.clients = clients
        self.urls = urls
        self.prefix = prefix
        self.publish_for(CLIENTS)
        self.site = Site(folder, urls[0], prefix)
        if len(urls) > 1:
            self.site.config["queue"]["url"] = list(urls)
        self.expected: Mapping[ledger.Pair, str] | None = None
        # For failed tests. The long form has too many lines for it.
        self.site.config["log"] |= {"level": "info" if LONG else "debug", "subject": "raw"}
        self.site.write()
        self.register(clients.port)

    def publish_for(self, clients: Sequence[str]) -> None:
        """Have all events be for these clients."""
        self.publisher: Publisher = Publisher(self.urls, self.prefix, clients)

    def register(self, port: int) -> None:
        """Register the clients at this port: their own, or that of a proxy."""
        self.site.write_clients([client(name, f"http://127.0.0.1:{port}/{name}") for name in CLIENTS])

    @property
    def to_die(self) -> Mapping[ledger.Pair, str]:
        """The deliveries that must end as dead letters."""
        if self.expected is not None:
            return self.expected
        of = self.publisher.confirmed.items()
        return {(event, "refusing"): "refused" for event, named in of if "refusing" in named and refuses(int(event))}

    async def more(self, requests: int, patience: float = PATIENCE) -> None:
        """Wait for so many more requests."""
        wanted = len(self.clients.hits) + requests
        await self.clients.until(lambda: len(self.clients.hits) >= wanted, patience)

    async def until_settled(self, patience: float = PATIENCE, others: int = 0) -> None:
        """Wait until every delivery was accepted, or is the dead letter that it must become.

        `patience` is for the next one. `others`: how many were accepted of sessions that are not the publisher's.
        """
        owed = {
            (event, name) for event, named in self.publisher.confirmed.items() for name in named
        } - self.to_die.keys()
        alive, accepted = len(owed) + others, self.clients.accepted
        # Events whose confirm was lost are delivered, too, and are not owed.
        while (before := len(accepted)) < alive or any((f"/{name}", event) not in accepted for event, name in owed):
            await self.clients.until(lambda before=before: len(self.clients.accepted) > before, patience)  # type: ignore[misc]
        await self._until_buried(patience)

    async def settle(self, *workers: WorkerProcess, patience: float = PATIENCE, others: int = 0) -> None:
        """Wait for the same, and stop the workers in good order."""
        await self.until_settled(patience, others)
        for each in workers:
            assert await each.stop() == 0

    async def _until_buried(self, patience: float) -> None:
        """A lost confirm leaves a dead letter twice, so the number of messages is not enough."""

        if not self.to_die:
            return

        async def dead_lettered() -> int:
            async with broker(self.urls[0], self.prefix) as rabbit:
                if (await rabbit.depths(["dead"])).get("dead", 0) < len(self.to_die):
                    return 0
            return sum(self.cast(await self.found(["dead"])).dead.values())

        await until(dead_lettered, lambda count: count >= len(self.to_die), patience)

    async def found(self, queues: Sequence[str] | None = None) -> list[Found]:
        """Return the messages of the queues, except the messages that a worker holds."""
        return await ledger.in_rabbitmq(self.urls[0], self.prefix, queues or QUEUES)

    async def account(self, *, cause: str = "redelivered") -> Account:
        """The account, once no worker runs. `cause` explains duplicates that are not the publisher's."""
        return self.cast(await self.found(), cause=cause)

    def cast(self, found: Sequence[Found], *, cause: str = "") -> Account:
        """Return the account of the messages found in the queues."""
        publisher = self.publisher
        return ledger.account(
            publisher.confirmed, self.clients, found, to_die=self.to_die, resent=publisher.resent, cause=cause
        )


@contextlib.asynccontextmanager
async def rig(folder: Path, urls: str | Sequence[str], prefix: str) -> AsyncIterator[Rig]:
    """An installation whose queues are declared by the first worker that starts."""
    several = [urls] if isinstance(urls, str) else urls
    async with Clients(judge) as clients:
        made = Rig(folder, several, prefix, clients)
        try:
            yield made
        finally:
            await made.publisher.close()
