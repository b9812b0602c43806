"""Has a client tried at once whose address, TLS, egress or pause has changed in the registry, and what waits for it.

A client that is well gets no attempt for that. The others are tried once each, and served at their own pace.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping

import structlog

from notifier.domain.client import Client
from notifier.domain.errors import QueueError
from notifier.domain.message import DELAYED
from notifier.domain.registry import Registry
from notifier.domain.waiting_filter import WaitingFilter
from notifier.operations.queue_port import Queue
from notifier.operations.visits import RepairOptions
from notifier.operations.waiting_repair import DUE_RATE, make_due
from notifier.pipeline.known_client import Key
from notifier.pipeline.worker import Worker

LOOK_EVERY = 0.5  # seconds
SPREAD = 1.0  # seconds over which workers begin to walk: all of them reload at once
AT_ONCE = 100  # clients before other tasks of the loop get their chance


class FreedClients:
    """Watches the registry of one worker."""

    def __init__(self, registry: Callable[[], Registry], worker: Worker, queue: Queue) -> None:
        self._registry = registry
        self._worker = worker
        self._queue = queue
        self._last = registry()

    async def run(self) -> None:
        """Look for changes, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            registry = self._registry()
            if registry is self._last:
                continue
            changes = await asyncio.to_thread(changed_clients, self._last, registry)
            self._last = registry
            if changes:
                await self._free(changes)

    async def _free(self, changes: Mapping[Key, bool]) -> None:
        tried = 0
        for number, (key, moved) in enumerate(changes.items()):
            if self._worker.held_up(key):
                tried += 1
                self._worker.try_now(key, force=moved)
            if number % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0)
        due = await self._make_due(changes)
        if tried or due:
            structlog.get_logger().info("clients_freed", clients=tried, deliveries=due)

    async def _make_due(self, changes: Mapping[Key, bool]) -> int:
        """Make due what waits for these clients in delay queues. Another worker may be quicker."""
        await asyncio.sleep(SPREAD * random.random())  # noqa: S311  spreads the workers; no secret
        options = RepairOptions(clock=time.time, steady=time.monotonic, pause=asyncio.sleep, rate=DUE_RATE)
        due = 0
        try:
            depths = await self._queue.depths()
            if not any(depth.ready for name, depth in depths.items() if name.startswith(DELAYED)):
                return 0
            for force in (True, False):
                if keys := frozenset(key for key, moved in changes.items() if moved is force):
                    meant = WaitingFilter(keys=keys, parked=False)
                    due += (await make_due(self._queue.waiting(), meant, options, force=force)).done
        except QueueError:
            pass  # all of it comes when it is due
        return due


def changed_clients(before: Registry, now: Registry) -> dict[Key, bool]:
    """The clients that are reached in another way than before, and whether at another address. Runs in a thread."""
    changes: dict[Key, bool] = {}
    for iss, clients in now.clients.items():
        earlier = before.clients_of(iss)
        for client_id, client in clients.items():
            old = earlier.get(client_id)
            if old is not client and (old is None or _way(old) != _way(client)):
                changes[client.key] = old is None or old.told_at != client.told_at
    return changes


def _way(client: Client) -> tuple[object, ...]:
    return client.told_at, client.route, client.paused
