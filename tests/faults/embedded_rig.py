"""The same installation under load as `rig`'s, on the embedded queue: events come over HTTP, the queue is one file.

`flaky` fails at one event in twenty.
"""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from tests.faults.http_publisher import HttpPublisher
from tests.faults.rig import CLIENTS, PATIENCE, Rig, answers
from tests.rabbitmq_node import free_ports
from tests.system import ledger
from tests.system.clients import Clients
from tests.system.ledger import Account
from tests.system.waiting import until


class EmbeddedRig(Rig):
    """See the module. Made by `embedded`; `file` is the queue."""

    def __init__(self, folder: Path, file: Path, clients: Clients) -> None:
        super().__init__(folder, [f"sqlite:{file}"], "", clients)
        self.file = file
        [self.port] = free_ports(1)  # the same at each start: whoever publishes finds the next worker there
        self.site.config["api"]["listen"] = f"127.0.0.1:{self.port}"
        self.site.write()
        self.publisher: HttpPublisher = HttpPublisher(self.port, CLIENTS)

    async def until_settled(self, patience: float = PATIENCE, others: int = 0) -> None:
        """Wait until every delivery of every confirmed event was accepted, or is dead where it must die.

        `patience` is for the next that is accepted. `others`: how many were accepted of sessions that are not the
        publisher's.
        """
        alive = len(CLIENTS) * len(self.publisher.confirmed) - len(self.to_die) + others
        while (before := len(self.clients.accepted)) < alive:
            await self.clients.until(lambda before=before: len(self.clients.accepted) > before, patience)  # type: ignore[misc]

        async def rest() -> tuple[bool, int]:
            found = ledger.in_sqlite(self.file)
            return self.cast(found, cause="").holds, sum(each.queue != "dead" for each in found)

        await until(rest, lambda answer: answer == (True, 0), patience)

    async def account(self, *, cause: str = "redelivered") -> Account:
        """The account, once no worker runs. `cause` is what made the duplicates that the publisher did not."""
        return self.cast(ledger.in_sqlite(self.file), cause=cause)


@contextlib.asynccontextmanager
async def embedded(folder: Path, file: Path | None = None) -> AsyncIterator[EmbeddedRig]:
    """An installation whose queue is made by the first worker that starts: `queue.db` in the folder, or `file`."""
    async with Clients(answers(20)) as clients:
        made = EmbeddedRig(folder, file or folder / "queue.db", clients)
        try:
            yield made
        finally:
            await made.publisher.close()
