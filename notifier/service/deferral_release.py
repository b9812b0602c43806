"""Makes deferred deliveries due when their cause has ended: a client's address has changed, or a fault is over.

A client whose address, TLS, egress or pause has changed in the registry is tried once, unless it is healthy, and its
limits stay in force. The end of a fault releases only the deliveries of that cause at that issuer or client.

A walk over the delay queues (`repair`) finds these deliveries, because a worker does not know the deferrals of others.
A walk delays deliveries that become due meanwhile. So causes that end together share a walk, and walks take at most
half of the time. Each worker walks for the changes that it detects. A second walk for an issuer's fault finds
deliveries whose attempt was in flight, at any worker, when the fault ended: they were deferred after the first walk.
"""

import asyncio
import math
import random
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress

import structlog

from notifier.configuration.live_configuration import LiveConfiguration
from notifier.delivery.client_buckets import Buckets
from notifier.delivery.pending_counts import DelayCounts
from notifier.model.client import Client, ClientKey
from notifier.model.defaults import SIGNATURE_TIMEOUT_SECONDS
from notifier.model.errors import QueueError
from notifier.model.message import DELAYED
from notifier.model.outcome import Cause
from notifier.model.registry import Registry
from notifier.operators.deliveries.repair import MAX_DUE_PER_SECOND, make_due
from notifier.operators.deliveries.repair_pass import RepairResult
from notifier.operators.deliveries.waiting_filter import WaitingFilter
from notifier.queues.passes import RepairOptions
from notifier.queues.queue_port import Queue

CHECK_INTERVAL_SECONDS = 0.5  # seconds
MAX_START_DELAY_SECONDS = 1.0  # seconds over which workers begin to walk: all of them reload at once
CLIENTS_PER_STEP = 100  # clients before other tasks of the loop get their chance
MIN_CLIENT_INTERVAL_SECONDS = 60.0  # between two releases for a client: its proxy may let through one in ten
SIGNATURE_RATE_SHARE = 0.5  # of a key's signatures a second: a delivery that waits for a signature is deferred again
MIN_WALK_INTERVAL_SECONDS = 0.5  # seconds, at least, until the next walk
REST_PER_WALK = 1.0  # times as long as a walk took, without its pauses, no other begins
DEFERRAL_STORE_SECONDS = 3.0  # seconds after a signature failed, in which the deferral of its delivery is stored


_EndedCause = tuple[str, str, str]
"""A cause, its issuer and its client (empty: all of the issuer's)."""


class DeferralRelease:
    """The deliveries that one worker frees. `run` looks for them until it is cancelled."""

    def __init__(self, live: LiveConfiguration, queue: Queue) -> None:
        self._live = live
        self._queue = queue
        self._registry, self._keys = live.current.registry, live.current.keys
        self._ended: set[_EndedCause] = set()
        self._second_walks: dict[_EndedCause, float] = {}  # when each is due
        self._not_before: dict[_EndedCause, float] = {}
        self._rests_until = float("-inf")
        self._change = asyncio.Event()

    def on_cause_end(self, cause: Cause, iss: str, client_id: str) -> None:
        """Release the deliveries deferred for this cause; an empty `client_id` means all clients. Never blocks."""
        ended = cause.value, iss, client_id
        self._ended.add(ended)
        if not client_id:
            self._second_walks[ended] = time.monotonic() + SIGNATURE_TIMEOUT_SECONDS + DEFERRAL_STORE_SECONDS
        self._change.set()

    async def run(self, buckets: Buckets, delayed: DelayCounts) -> None:
        """Release deliveries of ended causes until cancelled.

        `buckets` requests an attempt at each changed client. `delayed`: the worker's counts of what is released.
        """
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(CHECK_INTERVAL_SECONDS):
                    await self._change.wait()
            self._change.clear()
            await self._on_reload(buckets, delayed)
            now = time.monotonic()
            for ended in [ended for ended, due in self._second_walks.items() if due <= now]:
                del self._second_walks[ended]
                self._ended.add(ended)
            self._not_before = {ended: moment for ended, moment in self._not_before.items() if moment > now}
            if now >= self._rests_until and (ready := self._ended - self._not_before.keys()):
                self._ended -= ready
                await self._release_waiting(frozenset(ready))

    async def _on_reload(self, buckets: Buckets, delayed: DelayCounts) -> None:
        """Detect the changes of a reload or a refresh."""
        keys, registry = self._live.current.keys, self._live.current.registry
        if keys is not self._keys:
            for iss in self._live.current.settings.issuers:
                if keys.kids(iss) != self._keys.kids(iss):
                    self.on_cause_end(Cause.SIGNING, iss, "")
            self._keys = keys
        if registry is not self._registry:
            before, self._registry = self._registry, registry
            for iss in registry.issuers.keys() - before.issuers.keys():
                self.on_cause_end(Cause.UNKNOWN, iss, "")
            if changes := await asyncio.to_thread(changed_clients, before, registry):
                await self._release_clients(changes, buckets, delayed)

    async def _release_waiting(self, ended: frozenset[_EndedCause]) -> None:
        """Release the deliveries deferred for these causes. If that fails, try again later."""
        began = time.monotonic()
        self._not_before |= {ending: began + MIN_CLIENT_INTERVAL_SECONDS for ending in ended if ending[2]}
        issuers = {iss for _, iss, _ in ended}
        result = await self._make_due(WaitingFilter(ended=ended, parked=False), pace=lambda: self._pace(issuers))
        took = time.monotonic() - began
        self._rests_until = time.monotonic() + max(
            MIN_WALK_INTERVAL_SECONDS, REST_PER_WALK * (took - result.done / MAX_DUE_PER_SECOND)
        )
        if result.failed:
            self._ended |= ended
        if result.done:
            causes = dict(result.by_reason)
            structlog.get_logger().info(
                "deliveries_freed", causes=causes, deliveries=result.done, seconds=round(took, 1)
            )

    async def _release_clients(self, changes: Mapping[ClientKey, bool], buckets: Buckets, delayed: DelayCounts) -> None:
        tried = 0
        for number, (key, moved) in enumerate(changes.items()):
            if buckets.is_blocked(key):
                tried += 1
                buckets.probe_now(key, force=moved)
            if number % CLIENTS_PER_STEP == CLIENTS_PER_STEP - 1:
                await asyncio.sleep(0)
        await asyncio.sleep(MAX_START_DELAY_SECONDS * random.random())  # noqa: S311  spreads the workers; no secret
        due = 0
        for force in (True, False):
            if keys := frozenset(key for key, moved in changes.items() if moved is force):
                result = await self._make_due(WaitingFilter(keys=keys, parked=False), force=force)
                due += result.done
                if result.unfinished is None:
                    for key in keys.intersection([(iss, client_id) for iss, client_id, _, _ in delayed]):
                        delayed.forget(key)
        if tried or due:
            structlog.get_logger().info("clients_freed", clients=tried, deliveries=due)

    def _pace(self, issuers: Collection[str]) -> float:
        """Return how many deliveries a second the keys of these issuers can sign beside those of new logouts."""
        return min(
            MAX_DUE_PER_SECOND,
            *(SIGNATURE_RATE_SHARE * self._live.current.keys.signatures_per_second(iss) for iss in issuers),
        )

    async def _make_due(
        self, filter_: WaitingFilter, *, force: bool = False, pace: Callable[[], float] = lambda: math.inf
    ) -> RepairResult:
        """Make the delayed deliveries that match the filter due now. `force`, `pace`: see `repair.make_due`."""
        options = RepairOptions(clock=time.time, steady=time.monotonic, pause=asyncio.sleep, rate=MAX_DUE_PER_SECOND)
        try:
            depths = await self._queue.depths()
        except QueueError as error:
            return RepairResult(done=0, by_reason={}, unfinished=str(error), failed=True)
        if not any(depth.ready for name, depth in depths.items() if name.startswith(DELAYED)):
            return RepairResult(done=0, by_reason={})
        return await make_due(self._queue.waiting(), filter_, options, force=force, pace=pace)


def changed_clients(before: Registry, now: Registry) -> dict[ClientKey, bool]:
    """Return the clients that are reached in another way, and whether at another address. Runs in a thread."""
    changes: dict[ClientKey, bool] = {}
    for iss, clients in now.clients.items():
        earlier = before.clients_of(iss)
        for client_id, client in clients.items():
            old = earlier.get(client_id)
            if old is not client and (old is None or _route_of(old) != _route_of(client)):
                changes[client.key] = old is None or old.logout_uri != client.logout_uri
    return changes


def _route_of(client: Client) -> tuple[object, ...]:
    return client.logout_uri, client.route, client.paused
