"""Releases deferred deliveries (makes them due) when the cause of their deferral has ended.

If a client's address, TLS, egress or pause has changed in the registry, or an operator's pause has ended, one attempt
is made at the client, unless its circuit is closed. The client's limits stay in force. The end of a fault releases only
the deliveries that were deferred for this cause at the issuer or client.

A change may come with a restart, and a new worker does not know the former configuration. So after its start it makes a
*first release*, of the deliveries whose internal cause is over by its registry and keys, or may be over (a proxy, TLS
files). It makes another when a worker leaves, since that worker may have deferred deliveries by a former configuration;
at most one a minute, since leaves can be forged. Each worker makes its own pass: an answer of another worker could be
forged, and the configurations may differ. The passes are spread over two seconds for each worker.

The deliveries are found by a pass over the delay queues, because a worker does not know the deferrals of other workers.
A pass delays deliveries that become due meanwhile. Therefore causes that end together share a pass, and passes take at
most half of the time. Each worker makes passes for the changes that it detects. After an issuer's fault a second pass
follows: it finds deliveries whose attempt was in flight when the fault ended, and that were deferred after the first
pass.
"""

import asyncio
import math
import random
import time
from collections.abc import Callable, Collection, Container, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from functools import partial

import structlog

from notifier.configuration.live_configuration import LiveConfiguration, RouteChanges
from notifier.delivery.scheduler import Scheduler
from notifier.delivery.settlement import DelayCounts
from notifier.delivery.verdict import CLIENT_CAUSES
from notifier.model.client import ClientKey
from notifier.model.defaults import SIGNATURE_TIMEOUT_SECONDS
from notifier.model.moment import Clock
from notifier.model.outcome import Cause
from notifier.operators.deliveries.repair import MAX_DUE_PER_SECOND, make_due
from notifier.operators.deliveries.repair_result import RepairResult
from notifier.operators.deliveries.waiting_filter import HasEnded, WaitingFilter
from notifier.queues.passes import RepairOptions
from notifier.queues.queue_port import Queue

CHECK_INTERVAL_SECONDS = 0.5
FIRST_RELEASE_SECONDS = 2.0  # × workers: the time over which their passes are spread; and before another try
MAX_SPREAD_SECONDS = 60.0  # … however many workers there are
MIN_REPEAT_SECONDS = 60.0  # between a first release and the next, after a worker has left
INTERNAL_CAUSES = frozenset(Cause) - CLIENT_CAUSES
MAX_START_DELAY_SECONDS = 1.0  # spreads the passes of all workers, which reload at the same time
CLIENTS_PER_STEP = 100  # after which other tasks of the event loop run
MIN_CLIENT_INTERVAL_SECONDS = 60.0  # between two releases for a client: its proxy may let through one in ten
SIGNATURE_RATE_SHARE = 0.5  # of a key's rate: a delivery that waits long for a signature is deferred again
MIN_PASS_INTERVAL_SECONDS = 0.5  # pause after a pass, at least
PAUSE_PER_PASS = 1.0  # pause after a pass, as a multiple of the pass's duration
DEFERRAL_STORE_SECONDS = 3.0  # after a failed signature, within which the deferral of the delivery is stored


_EndedCause = tuple[str, str, str]
"""A cause, its issuer and its client. An empty client means all clients of the issuer."""


class DeferralRelease:
    """Releases deferred deliveries for one worker. `run` does so until it is cancelled."""

    def __init__(
        self,
        live: LiveConfiguration,
        queue: Queue,
        monotonic: Clock = time.monotonic,
        clock: Clock = time.time,
        pauses: Callable[[], Container[ClientKey]] = tuple,
    ) -> None:
        """`pauses` returns the clients that operators have paused."""
        self._live = live
        self._queue = queue
        self._monotonic = monotonic
        self._clock = clock
        self._issuers, self._keys = live.current.registry.issuers.keys(), live.current.keys
        self._ended: set[_EndedCause] = set()
        self._second_pass_at: dict[_EndedCause, float] = {}
        self._not_before: dict[_EndedCause, float] = {}  # when a client's deliveries may be released again
        self._next_pass_at = float("-inf")
        self._changed = asyncio.Event()
        self._pauses = pauses

    def on_cause_end(self, cause: Cause, iss: str, client_id: str) -> None:
        """Have `run` release the deliveries deferred for this cause; an empty `client_id` means all clients."""
        ended = cause.value, iss, client_id
        self._ended.add(ended)
        if cause is Cause.PAUSED:
            self._second_pass_at[ended] = self._monotonic() + DEFERRAL_STORE_SECONDS
        elif not client_id:
            self._second_pass_at[ended] = self._monotonic() + SIGNATURE_TIMEOUT_SECONDS + DEFERRAL_STORE_SECONDS
        self._changed.set()

    async def run(self, scheduler: Scheduler, delayed: DelayCounts) -> None:
        """Release the deliveries of ended causes until cancelled. Call it when the worker consumes.

        `scheduler`: of the worker; it requests an attempt at each changed client. `delayed`: the
        worker's counts of delayed deliveries, from which released deliveries are removed.
        """
        # The first release, once the workers are counted, covers what changed and ended until now.
        self._issuers, self._keys = self._live.current.registry.issuers.keys(), self._live.current.keys
        self._live.take_route_changes()
        self._ended.clear()
        self._second_pass_at.clear()
        release_at, no_release_before, worker_count = math.inf, -math.inf, 0
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(CHECK_INTERVAL_SECONDS):
                    await self._changed.wait()
            self._changed.clear()
            await self._release_after_reload(scheduler, delayed)
            now, former_count, worker_count = self._monotonic(), worker_count, self._queue.worker_count()
            if worker_count and (not former_count or worker_count < former_count):
                spread = random.uniform(0, min(MAX_SPREAD_SECONDS, FIRST_RELEASE_SECONDS * worker_count))  # noqa: S311
                release_at = min(release_at, max(now, no_release_before) + spread)
            if now >= release_at:
                release_at = now + FIRST_RELEASE_SECONDS
                if await self._release(self._is_over):
                    release_at, no_release_before = math.inf, now + MIN_REPEAT_SECONDS
            for ended in [ended for ended, pass_at in self._second_pass_at.items() if pass_at <= now]:
                del self._second_pass_at[ended]
                self._ended.add(ended)
            self._not_before = {ended: moment for ended, moment in self._not_before.items() if moment > now}
            paused = self._pauses()
            ready = {ended for ended in self._ended if ended not in self._not_before and ended[1:] not in paused}
            if ready and now >= self._next_pass_at:
                self._ended -= ready
                self._probe_resumed(ready, scheduler, delayed)
                await self._release_ended(frozenset(ready))

    async def _release_after_reload(self, scheduler: Scheduler, delayed: DelayCounts) -> None:
        """Release the deliveries of changed keys, new issuers and changed clients after a reload or refresh."""
        keys, issuers = self._live.current.keys, self._live.current.registry.issuers.keys()
        if keys is not self._keys:
            for iss in self._live.current.settings.issuers:
                if keys.kids(iss) != self._keys.kids(iss):
                    self.on_cause_end(Cause.SIGNING, iss, "")
            self._keys = keys
        for iss in issuers - self._issuers:
            self.on_cause_end(Cause.UNKNOWN, iss, "")
        self._issuers = issuers
        await self._release_clients(self._live.take_route_changes(), scheduler, delayed)

    def _probe_resumed(self, ended: AbstractSet[_EndedCause], scheduler: Scheduler, delayed: DelayCounts) -> None:
        """Probe the unreachable clients whose pause has ended, before the first of their two passes."""
        for each in ended & self._second_pass_at.keys():
            if each[0] == Cause.PAUSED:
                delayed.forget(each[1:])
                if scheduler.deferrals.is_blocked(each[1:]):
                    scheduler.probe_now(each[1:], force=False)

    async def _release_ended(self, ended: frozenset[_EndedCause]) -> None:
        """Release the deliveries deferred for these causes. If that fails, try again later."""
        client_causes = [each for each in ended if each[2] and each[0] != Cause.PAUSED]
        self._not_before |= dict.fromkeys(client_causes, self._monotonic() + MIN_CLIENT_INTERVAL_SECONDS)

        def has_ended(cause: str, iss: str, client_id: str) -> bool:
            return (cause, iss, client_id) in ended or (cause, iss, "") in ended

        if not await self._release(has_ended):
            self._ended |= ended

    async def _release(self, has_ended: HasEnded) -> bool:
        """Release the deliveries for which `has_ended` is true. Return False if the queue failed."""
        began_at = self._monotonic()
        result = await self._make_due(WaitingFilter(has_ended=has_ended, parked=False), pace=self._get_rate)
        seconds = self._monotonic() - began_at
        self._next_pass_at = self._monotonic() + max(MIN_PASS_INTERVAL_SECONDS, PAUSE_PER_PASS * seconds)
        if result.done:
            causes = dict(result.by_reason)
            structlog.get_logger().info(
                "deliveries_freed", causes=causes, deliveries=result.done, seconds=round(seconds, 1)
            )
        return not result.failed

    def _is_over(self, cause: str, iss: str, client_id: str) -> bool:
        """Return True for an internal cause that the configuration does not show. An event has no `client_id`."""
        current = self._live.current
        if not client_id:
            return cause == Cause.UNKNOWN and iss in current.registry.issuers
        client = current.registry.clients_of(iss).get(client_id)
        if cause not in INTERNAL_CAUSES or client is None or client.logout_uri is None or client.paused:
            return False
        if client.key in self._pauses():
            return False
        return cause != Cause.SIGNING or current.keys.can_sign(iss, client.token.alg)

    async def _release_clients(self, changes: RouteChanges, scheduler: Scheduler, delayed: DelayCounts) -> None:
        """Probe the changed clients, and release their delayed deliveries.

        Only for a moved client, a delay that the client requested ends too.
        """
        both = ((changes.moved, True), (changes.rerouted, False))
        parts = [(changed, has_moved) for changed, has_moved in both if any(changed.values())]
        probed_count = 0
        for changed, has_moved in parts:
            keys = ((iss, client_id) for iss, client_ids in changed.items() for client_id in client_ids)
            for number, key in enumerate(keys):
                if scheduler.deferrals.is_blocked(key):
                    probed_count += 1
                    scheduler.probe_now(key, force=has_moved)
                if number % CLIENTS_PER_STEP == CLIENTS_PER_STEP - 1:
                    await asyncio.sleep(0)
        if parts:
            await asyncio.sleep(MAX_START_DELAY_SECONDS * random.random())  # noqa: S311  spreads the workers; no secret
        released_count = 0
        for changed, has_moved in parts:
            has_ended = partial(_has_changed, changed)
            result = await self._make_due(WaitingFilter(has_ended=has_ended, parked=False), force=has_moved)
            released_count += result.done
            if result.unfinished is None:
                for iss, client_id, _, _ in [*delayed]:
                    if client_id in changed.get(iss, ()):
                        delayed.forget((iss, client_id))
        if probed_count or released_count:
            structlog.get_logger().info("clients_freed", clients=probed_count, deliveries=released_count)

    def _get_rate(self, iss: str) -> float:
        """Return the issuer's deliveries per second to release. The signers keep half of their rate for new logouts."""
        return min(MAX_DUE_PER_SECOND, SIGNATURE_RATE_SHARE * self._live.current.keys.signatures_per_second(iss))

    async def _make_due(
        self,
        filter_: WaitingFilter,
        *,
        force: bool = False,
        pace: Callable[[str], float] = lambda _iss: MAX_DUE_PER_SECOND,
    ) -> RepairResult:
        """Make the delayed deliveries that match the filter due now, at most `pace(iss)` of them per second.

        `force`: also deliveries whose delay the client requested.
        """
        options = RepairOptions(clock=self._clock, monotonic=self._monotonic, pause=asyncio.sleep)
        return await make_due(self._queue.waiting(), filter_, options, force=force, pace=pace)


def _has_changed(changed: Mapping[str, Collection[str]], _cause: str, iss: str, client_id: str) -> bool:
    return client_id in changed.get(iss, ())
