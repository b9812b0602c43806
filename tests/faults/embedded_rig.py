"""The same installation under load as `rig`'s, on the embedded queue: events come over HTTP, the queue is one file.

`flaky` fails at one event in twenty.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from tests.faults.http_publisher import HttpPublisher
from tests.faults.rig import Rig, answers
from tests.support.rabbitmq_node import free_ports
from tests.system import ledger
from tests.system.clients import Clients
from tests.system.ledger import Found
from tests.system.waiting import until


class EmbeddedRig(Rig):
    """See the module. Made by `embedded`; `file` is the queue."""

    def __init__(self, folder: Path, file: Path, clients: Clients) -> None:
        [self.port] = free_ports(1)  # the same at each start: whoever publishes finds the next worker there
        self.file = file
        super().__init__(folder, [f"sqlite:{file}"], "", clients)
        self.site.config["api"]["listen"] = f"127.0.0.1:{self.port}"
        self.site.write()

    def publish_for(self, clients: Sequence[str]) -> None:
        """Have all events be for these clients."""
        self.publisher: HttpPublisher = HttpPublisher(self.port, clients)

    async def _until_buried(self, patience: float) -> None:
        async def rest() -> tuple[bool, int]:
            found = await self.found()
            return self.cast(found).holds, sum(each.queue != "dead" for each in found)

        await until(rest, lambda answer: answer == (True, 0), patience)

    async def found(self, queues: Sequence[str] | None = None) -> list[Found]:
        """Return the messages of the file."""
        return [each for each in ledger.in_sqlite(self.file) if queues is None or each.queue in queues]


@contextlib.asynccontextmanager
async def embedded(folder: Path, file: Path | None = None) -> AsyncIterator[EmbeddedRig]:
    """An installation whose queue is made by the first worker that starts: `queue.db` in the folder, or `file`."""
    async with Clients(answers(20)) as clients:
        made = EmbeddedRig(folder, file or folder / "queue.db", clients)
        try:
            yield made
        finally:
            await made.publisher.close()
