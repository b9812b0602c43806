"""Watches the dependencies of a worker: the queue, registry sources, signing keys, other workers, and the process.

It also reads the configuration again when a file changes, on SIGHUP, and when an operator requests a reload. The
watches are constructed before the worker and its features, which use them.
"""

import asyncio
import gc
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from uuid import uuid4

import structlog

from notifier.configuration.library_examinations import library_hooks
from notifier.configuration.live_configuration import LiveConfiguration
from notifier.configuration.registry_sources import RegistrySources
from notifier.configuration.signer_watch import SignerWatch
from notifier.configuration.signing_keys import SigningKeys
from notifier.delivery.facts import Observer
from notifier.feature import FeatureRuntime
from notifier.messages.worker import Worker
from notifier.model.errors import QueueError
from notifier.model.message import PARKED_LARGE, Depth, QueueStatus
from notifier.model.outcome import Cause
from notifier.model.own_thread import run_in_thread
from notifier.model.shared_resources import shared_lock, shared_thread_lock
from notifier.model.trouble import Trouble, TroubleKind
from notifier.network.listeners.ops import Readiness
from notifier.network.listeners.request_counts import RequestCounts
from notifier.operators.status.deferral_watch import DeferralWatch
from notifier.operators.status.health_observer import HealthObserver, RefusedEventCounts
from notifier.operators.status.lifetime import lifetime_of
from notifier.operators.status.own_state import OwnSources
from notifier.operators.status.pause_watch import PauseWatch
from notifier.operators.status.reload_request import ReloadRequest, ReloadResult
from notifier.operators.status.session_only_watch import SessionOnlyWatch
from notifier.operators.status.worker_presence import WorkerPresence
from notifier.queues.queue_port import Queue
from notifier.service.deferral_release import DeferralRelease
from notifier.service.self_watch import SelfWatch
from notifier.settings.file_watch import (
    HANGS,
    PATIENCE_SECONDS,
    FileWatch,
    Stamps,
    find_hanging,
    read_each,
    stamp_of,
    watch_files,
)
from notifier.telemetry.audit import write_audit
from notifier.telemetry.log_stream import current_output
from notifier.telemetry.metrics import Metrics
from notifier.telemetry.metrics_page import MetricsSources

RETRY_SECONDS = 5.0  # of a reload, while a file hangs


class ReloadWatch:
    """The reloads of one worker, one at a time."""

    def __init__(
        self,
        live: LiveConfiguration,
        one_at_a_time: asyncio.Lock,
        registry: RegistrySources,
        signing_keys: SigningKeys,
        signers: SignerWatch,
    ) -> None:
        """`one_at_a_time`: held while the registry is replaced."""
        self._live = live
        self._lock = one_at_a_time
        self._registry = registry
        self._signing_keys = signing_keys
        self._signers = signers
        self._files = FileWatch(live.current.stamps)
        self._abandoned: tuple[Sequence[Path], Stamps] = (), {}

    async def watch(self) -> None:
        """Reload when a file of the configuration changes, until cancelled."""

        async def changed() -> None:
            while await self._reload(requested=False) and await find_hanging(self._files.paths):  # noqa: ASYNC110
                await asyncio.sleep(RETRY_SECONDS)  # no event reports that a file system answers again

        await watch_files(self._files, changed, clock=time.monotonic)

    def drop_former_followers(self) -> None:
        """Drop the followers that no file has defined for `registry.grace`, unless a reload is running."""
        if not self._lock.locked():
            self._live.drop_former_followers(time.monotonic())

    async def on_signal(self) -> None:
        """Read the files and the registry sources on SIGHUP. The protection against a loss of clients applies."""
        await self._reload(requested=True)
        self._registry.request_refresh()

    async def carry_out(self, reload: ReloadRequest) -> ReloadResult:
        """Read the files and the registry sources again for an operator, and return the result.

        If the operator drops the answers of a source, only the sources are read: the files have not changed, and
        reading 100,000 clients again would take as long as the drop itself.
        """
        accepted_by = reload.who if reload.accept_loss else None
        write_audit("reload_asked", who=reload.who, accept_loss=reload.accept_loss, drop=reload.dropped_source)
        if reload.dropped_source is None:
            problems = await self._reload(requested=True, accepted_by=accepted_by)
        else:
            problems = tuple(filter(None, [self._registry.drop(reload.dropped_source, reload.who)]))
        sources = await self._registry.refresh.refresh(accepted_by=accepted_by)
        registry = self._live.registry()
        return ReloadResult(
            problems=problems,
            restart_needed=self._live.reloads.changed_fixed_settings,
            issuers=len(registry.issuers),
            clients=sum(map(len, registry.clients.values())),
            sources=sources,
            signers=await self._signers.find_faulty_keys(),
        )

    async def _reload(self, *, requested: bool, accepted_by: str | None = None) -> Sequence[str]:
        """Read the configuration again. Return the reasons if it was not accepted.

        It is read in a thread, because 100,000 clients take seconds. It is not read while a file in force hangs: the
        lock would be held so long, and the registry sources could change nothing. If a file hangs that only the new
        configuration names, the reading is abandoned, and repeated only after a change of the files known before it.
        """
        async with self._lock:
            stamps = await read_each(self._files.paths, stamp_of)
            hung, known = self._abandoned
            is_changed = any(stamps.get(path) != stamp for path, stamp in known.items())
            if hanging := await find_hanging([*self._live.current.stamps, *(() if is_changed else hung)]):
                return self._on_hanging(hanging, requested=requested)
            claim = partial(shared_thread_lock().acquire, blocking=False)
            reload = partial(self._live.reload, requested=requested, accepted_by=accepted_by, claim=claim)
            reading = run_in_thread(reload, "reload")
            while not (await asyncio.wait({reading}, timeout=PATIENCE_SECONDS))[0]:
                hanging = await find_hanging(self._live.configured_files.copy())
                if hanging and claim():
                    self._abandoned = hanging, stamps
                    self._files.add(self._live.configured_files.copy())
                    gc.enable()  # the reader of clients disables it until it ends
                    return self._on_hanging(hanging, requested=requested)
            if reading.result():
                self._files.rebase(self._live.current.stamps)
                self._signing_keys.check_soon()
                self._signers.follow()
                self._registry.sync()
                gc.freeze()
                return ()
            self._files.add(self._live.configured_files)
            return self._live.reloads.problems

    def _on_hanging(self, paths: Sequence[Path], *, requested: bool) -> Sequence[str]:
        self._live.reloads.on_invalid([f"{path} {HANGS}" for path in paths], requested=requested)
        return self._live.reloads.problems


def list_queue_troubles(status: QueueStatus) -> Iterator[Trouble]:
    """Yield the problems of the queue."""
    if status.blocked or status.problem:
        refuses = status.refusing and status.connected and status.consuming
        kind = TroubleKind.QUEUE_REFUSES if refuses else TroubleKind.QUEUE
        kind = TroubleKind.BLOCKED if status.blocked else kind
        yield Trouble(kind=kind, text=status.problem or "the queue takes no message")
    yield from (Trouble(kind=TroubleKind.POLICY, text=each.text, subject=str(each)) for each in status.overrides)
    if status.lacks_large_buckets:
        text = f"the queues {PARKED_LARGE}-… were missing: `notifier topology declare`, then restart the workers"
        yield Trouble(kind=TroubleKind.RESTART_NEEDED, text=text, subject=PARKED_LARGE)


class Watches:
    """The watches of one worker. `depths`: the depths of the queues at the last `check_queue`.

    `observe` receives the worker's facts. It adds hints to deferrals, and passes all facts to `next_observer`. The
    `observers` are those of the watches themselves.
    """

    def __init__(
        self, name: str, live: LiveConfiguration, queue: Queue, metrics: Metrics, next_observer: Observer
    ) -> None:
        self._live, self._queue, self._metrics = live, queue, metrics
        self._blocked = False
        self._features: Sequence[FeatureRuntime] = ()
        self.depths: Mapping[str, Depth] = {}
        self.draining, self.has_consumed = asyncio.Event(), asyncio.Event()
        self.health = HealthObserver(
            clock=time.time, monotonic=time.monotonic, registry=live.registry,
            get_lifetime=lambda delivery: lifetime_of(delivery, live.registry()),
        )  # fmt: skip
        self.session_only = SessionOnlyWatch(live.registry, self.health.last_activity_at, time.time)
        one_at_a_time = shared_lock()
        self.registry = RegistrySources(live, one_at_a_time)
        self.deferral_release = DeferralRelease(live, queue, pauses=lambda: self.pauses.in_force)
        on_pause_end = partial(self.deferral_release.on_cause_end, Cause.PAUSED)
        self.pauses = PauseWatch(queue, live.registry, lambda key: on_pause_end(*key))
        self._deferrals = DeferralWatch(next_observer, live.registry, time.time, self.deferral_release.on_cause_end)
        self.observe = self._deferrals.observe
        self.signing_keys = SigningKeys(live, self._deferrals.on_key_signs)
        self.signers = SignerWatch(live, metrics.signatures.add_kinds, self._deferrals.on_key_signs)
        self.reloading = ReloadWatch(live, one_at_a_time, self.registry, self.signing_keys, self.signers)
        self.requests = RequestCounts(live.tokens, time.time)
        self.presence = WorkerPresence(name, uuid4().hex, time.time, time.monotonic)
        self.refused, self.self_watch = RefusedEventCounts(time.time), SelfWatch(live)
        self.observers = (self.registry.observe, self.refused.observe, self.session_only.observe)

    def add_features(self, features: Sequence[FeatureRuntime]) -> None:
        """Show the features' relays and problems. While one needs the worker, it stays ready without a queue."""
        self._features = features

    def readiness(self) -> Readiness:
        """Return the readiness that `/readyz` shows."""
        status = self._queue.status()
        return Readiness(
            queue=status.connected,
            consuming=status.consuming,
            blocked=status.blocked,
            draining=self.draining.is_set(),
            needed=self.has_consumed.is_set() and any(feature.stays_ready() for feature in self._features),
            problem=status.problem or self.registry.refresh.problem(),
        )

    def troubles(self) -> Iterator[Trouble]:
        """Yield the current problems of the worker."""
        yield from list_queue_troubles(self._queue.status())
        yield from self.refused.troubles()
        yield from self.requests.troubles()
        yield from self._live.reloads.troubles()
        yield from self.signing_keys.troubles()
        yield from self.signers.troubles()
        yield from self.registry.refresh.troubles()
        registry = self._live.current.registry
        first_group = next(registry.ignored_groups(), None)  # values that their registry sources may not set
        if first_group is not None:
            more = f", and {count - 1} more" if (count := registry.ignored_count) > 1 else ""
            text = f"{first_group.first[0]}{more}; notifier check tells all"
            yield Trouble(kind=TroubleKind.MEMBERS_IGNORED, text=text)
        yield from self._deferrals.troubles()
        yield from self.session_only.troubles()
        yield from self.health.web_pages.troubles()
        yield from self.presence.troubles()
        yield from chain.from_iterable(feature.troubles() for feature in self._features)

    def to_state_sources(self) -> OwnSources:
        """Return the sources of the worker's state."""
        return OwnSources(
            readiness=self.readiness, registry=self.registry.refresh.states, troubles=self.troubles,
            keys=self.signing_keys.seen_keys, pauses=lambda: self.pauses.in_force,
            relays=lambda: [relay for feature in self._features for relay in feature.relays()],
        )  # fmt: skip

    def to_metrics_sources(self, worker: Worker) -> MetricsSources:
        """Return the sources of the gauges."""
        settings, reloads = self._live.current.settings, self._live.reloads
        return MetricsSources(
            in_flight=lambda: worker.in_flight,
            queue=self._queue.status,
            unsettled=worker.ledger.unsettled_by_queue,
            circuits=worker.scheduler.clients.circuits,
            waiting=lambda: chain(worker.scheduler.waiting_counts(), worker.parked),
            reload_succeeded=lambda: reloads.succeeded,
            reload_taken_at=lambda: reloads.applied_at,
            restart_needed=lambda: reloads.restart_needed,
            clients_expiring=self.health.count_expiring_clients,
            signing_keys=self.signing_keys.published,
            ready=lambda: self.readiness().operates,
            loop_lag=lambda: self.self_watch.loop_lag,
            api_requests=self.requests.by_labels,
            workers_vanished=lambda: len(self.presence.list_vanished()),
            clock_offset=lambda: self.presence.clock_offset,
            certificates=lambda: self.self_watch.certificates,
            library_hooks=lambda: {hook.name: hook.difference is None for hook in library_hooks(settings)},
            registry_sources=lambda: (
                (source.name, source.up, source.age, source.changed, source.held_back)
                for source in self.registry.refresh.states()
            ),
            pauses=self.pauses.metrics,
            log_lines_dropped=lambda: 0 if (output := current_output()) is None else output.dropped,
        )

    async def check_queue(self) -> None:
        """Read the depths of the queues, sample the health counters, and log if publishing is blocked or free again."""
        try:
            self.depths = await self._queue.depths()
        except QueueError:
            self.depths = {}
        self._metrics.queues.set_depths(self.depths)
        self.health.sample()
        status, log = self._queue.status(), structlog.get_logger()
        if status.blocked and not self._blocked:
            hint = "logouts go on, and those that fail wait in memory"
            command = "notifier explain NotifierPublishingBlocked"
            log.warning("publishing_blocked", reason=status.problem, hint=hint, help=command)
        elif self._blocked and not status.blocked:
            log.info("publishing_unblocked")
        self._blocked = status.blocked
