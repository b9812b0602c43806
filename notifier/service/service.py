"""Builds one worker with its listeners from its configuration, runs it, and stops it.

Resources are opened in order and closed in reverse. Every task has one owner, the group in `serve`. Stopping is a
bounded drain: readiness ends, consuming stops, attempts in flight end within `shutdown_grace`, the rest is given back.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import random
import socket
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from itertools import chain
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from notifier import __version__
from notifier.configuration.library_examinations import library_hooks
from notifier.configuration.live_configuration import LiveConfiguration
from notifier.configuration.registry_sources import RegistrySources
from notifier.configuration.signer_watch import SignerWatch
from notifier.configuration.signing_keys import SigningKeys
from notifier.delivery.channels import BackChannel, FrontChannel, by_address
from notifier.delivery.facts import Observer
from notifier.delivery.intake import Intake
from notifier.delivery.known_clients import UnsuspendedClock
from notifier.delivery.life import life_of
from notifier.delivery.ports import Tools
from notifier.delivery.replacements import event_message
from notifier.delivery.worker import Limits, Worker
from notifier.delivery.worker_news import OtherWorkers
from notifier.feature import Feature, Given
from notifier.features import FEATURES
from notifier.model.client import Client
from notifier.model.defaults import MAX_EVENT
from notifier.model.errors import QueueError
from notifier.model.front_channel import FrontChannelContext
from notifier.model.ids import new_id
from notifier.model.message import Depth, Lane, QueueStatus
from notifier.model.session_ended import SessionEnded
from notifier.model.trouble import Trouble, TroubleKind, by_cause
from notifier.network.http.transport import HttpTransport
from notifier.network.listeners import ops
from notifier.operators.doctor.canary import CanaryTools, send_canary
from notifier.operators.doctor.doctor import Finding
from notifier.operators.letters import jobs, replay_account
from notifier.operators.letters.retry_request import RETRY, RetryAccounts
from notifier.operators.status.deferral_watch import DeferralWatch
from notifier.operators.status.health_observer import HealthObserver
from notifier.operators.status.own_state import OwnSources, OwnState, look_from_worker
from notifier.operators.status.refused_events import RefusedEvents
from notifier.operators.status.reload_request import RELOAD, act_of
from notifier.operators.status.service_status import ServiceStatus
from notifier.operators.status.worker_presence import WorkerPresence
from notifier.operators.status.worker_requests import RequestHandler
from notifier.publishing.event_requests import ApiSources, EventRequests
from notifier.publishing.reply_observer import Replies
from notifier.publishing.route_steps import ApiLimits
from notifier.queues.building import build_queue
from notifier.service.freed import Freed
from notifier.service.listeners import listeners
from notifier.service.operator_routes import operator_routes
from notifier.service.reloading import Reloading
from notifier.service.self_watch import SelfWatch
from notifier.telemetry.log_level import LogLevel
from notifier.telemetry.logs import LogObserver, subject_hash
from notifier.telemetry.metrics import Metrics, Sources
from notifier.telemetry.observers import Observers
from notifier.tokens.client_encryption import ClientEncryption
from notifier.tokens.client_keys import ClientKeyReader

if TYPE_CHECKING:
    from notifier.telemetry.tracing import Tracing

CANCEL_WITHIN = 2.0  # seconds for the broker to stop sending, and for jobs to end; then the drain goes on anyway
DEPTHS_EVERY = 5.0  # seconds between two looks at the depths of the queues
FORGET_EVERY = 12  # of these looks


class Service:
    """One worker with its listeners. `serve` runs it."""

    def __init__(
        self,
        live: LiveConfiguration,
        observers: Sequence[Observer] = (),
        tracing: Tracing | None = None,
        features: Sequence[Feature] = FEATURES,
    ) -> None:
        self._live = live
        self._tracing = tracing
        settings = live.now.settings
        self._settings = settings
        self.metrics = Metrics(live.registry, version=__version__, max_clients=settings.metrics.max_clients)
        logs = LogObserver(subject=settings.log.subject, hashing=subject_hash(settings))
        self.log_level = LogLevel(settings.log.level, logs.relevel)
        self.queue = build_queue(settings.queue, live.now.bindings)
        one_at_a_time = asyncio.Lock()
        self._registry = RegistrySources(live, one_at_a_time)
        self._health = HealthObserver(
            clock=time.time, steady=time.monotonic, life=lambda delivery: life_of(delivery, live.registry())
        )
        name = f"{socket.gethostname()}:{os.getpid()}"
        self._own_state = OwnState(
            name,
            OwnSources(
                worker=lambda: self.worker,
                draining=lambda: self._draining,
                registry=self._registry.refresh.states,
                troubles=lambda: by_cause(self._troubles()),
                keys=lambda: self._signing_keys.seen_keys(),  # noqa: PLW0108  it is made below
                consuming=self._consuming,
            ),
            self._health,
            queue=self.queue,
            clock=time.time,
            steady=time.monotonic,
        )
        self._replies = Replies(self.queue.side_channel, self._own_state.document, clock=time.time, new_id=new_id)
        all_observers = Observers()
        self._retries = RetryAccounts(lambda: self.worker, time.monotonic, all_observers)
        self._replays = replay_account.ReplayAccounts(time.monotonic, all_observers)
        self._jobs = jobs.Jobs(self.queue, time.time, time.monotonic)
        sources = ApiSources(
            registry=live.registry, tokens=live.tokens, clock=time.time, new_id=new_id, waiting=self._replies.waiting
        )
        self._requests = EventRequests(self.accept, sources, ApiLimits())
        given = Given(
            live=live,
            queue=self.queue,
            requests=self._requests,
            observe=lambda fact: self._observe(fact),  # noqa: PLW0108  it is made below
            add_observer=all_observers.add,
            label=self.metrics.label,
            page=self._page,
            name=name,
            state=self._own_state.with_clients,
            states=self._own_state.in_parts,
            depths=lambda: self._depths,
            canary=lambda client: self._canary(client),  # noqa: PLW0108  it is made below
            published=lambda: self._signing_keys.published(),  # noqa: PLW0108  it is made below
        )
        self._features = [feature.run(given) for feature in features]
        for feature in self._features:
            self.metrics.add(feature.families)
        self._refused_events = RefusedEvents(time.time)
        all_observers.add(
            self.metrics.observe,
            logs.observe,
            self._health.observe,
            self._replies.observe,
            *observers,
            self._registry.observe,
            self._refused_events.observe,
            *(feature.observe for feature in self._features if feature.observe is not None),
            *(() if tracing is None else (tracing.observe,)),
        )
        self._freed = Freed(live, lambda: self.worker, self.queue)
        self._deferrals = DeferralWatch(all_observers.observe, live.registry, time.time, self._freed.over)
        self._observe = self._deferrals.observe
        self._transport = HttpTransport(on_surplus=(self.metrics.count_surplus, logs.log_surplus))
        self._client_keys = ClientKeyReader()
        self._encryption = ClientEncryption(self._client_keys.read, time.monotonic)
        self._draining = self._blocked = False
        self._depths: Mapping[str, Depth] = {}
        self._signing_keys = SigningKeys(live, self._deferrals.can_sign)
        live.places.tell = self.metrics.signatures.count
        self._signers = SignerWatch(live, self.metrics.signatures.know, self._deferrals.can_sign)
        self.reloading = Reloading(live, one_at_a_time, self._registry, self._after_reload, self._signers.silent)
        acts = {RELOAD: act_of(self.reloading.carry_out), RETRY: self._retries.act}
        acts |= {
            replay_account.FOLLOW: self._replays.act,
            **dict.fromkeys((jobs.ASK, jobs.END, jobs.LIST), self._jobs.act),
        }
        for feature in self._features:
            acts |= feature.acts
        self.queue.side_channel.carry_out(RequestHandler(name, acts).carry_out)
        self._others = OtherWorkers(
            self.queue.consumers,
            lambda news: self.worker.gate.heard(news),  # noqa: PLW0108  it is made below
            steady=time.monotonic,
        )
        self.queue.side_channel.share_news(self._others.following, self._others.hear)
        self._presence = WorkerPresence(name, time.time, time.monotonic)
        self.queue.side_channel.share_presence(self._presence.following, self._presence.on_announcement)
        self._self_watch = SelfWatch(live)
        self.worker = self._build_worker()
        self.metrics.watch(self._metrics_sources())

    def _build_worker(self) -> Worker:
        settings, live, tracing = self._settings, self._live, self._tracing
        return Worker(
            Intake(
                live.registry,
                clock=time.time,
                steady=time.monotonic,
                new_id=new_id,
                max_event=MAX_EVENT,
                readers={name: reader for feature in self._features for name, reader in feature.readers.items()},
            ),
            Tools(
                channel_of=by_address(
                    BackChannel(
                        live if tracing is None else tracing.signer(live),
                        clock=time.time,
                        new_jti=new_id,
                        unverifiable=self._signing_keys.unverifiable,
                        encrypter=self._encryption if tracing is None else tracing.encrypter(self._encryption),
                    ),
                    FrontChannel(time.time),
                ),
                transport=self._transport if tracing is None else tracing.transport(self._transport),
                clock=time.time,
                steady=UnsuspendedClock(time.monotonic),
                jitter=random.random,
                observe=self._observe,
            ),
            live.registry,
            self.queue,
            Limits(
                max_in_flight=settings.delivery.max_in_flight,
                shutdown_grace=settings.shutdown_grace,
            ),
            self._others,
        )

    def _after_reload(self) -> None:
        self._signing_keys.look_soon()
        self._signers.follow()

    def _metrics_sources(self) -> Sources:
        return Sources(
            in_flight=lambda: self.worker.in_flight,
            queue=self.queue.status,
            unsettled=self.worker.ledger.unsettled,
            circuits=self.worker.gate.clients.circuits,
            waiting=lambda: chain(self.worker.gate.lines(), self.worker.parked),
            reload_succeeded=lambda: self._live.reloads.succeeded,
            reload_taken_at=lambda: self._live.reloads.taken_at,
            restart_needed=lambda: self._live.reloads.restart_needed,
            clients_expiring=self._health.clients_expiring,
            signing_keys=self._signing_keys.published,
            ready=lambda: self.health().ready,
            loop_lag=lambda: self._self_watch.loop_lag,
            workers_vanished=lambda: len(self._presence.vanished()),
            clock_offset=lambda: self._presence.clock_offset,
            certificates=lambda: self._self_watch.certificates,
            library_hooks=lambda: {hook.name: hook.difference is None for hook in library_hooks(self._settings)},
            registry_sources=lambda: (
                (source.name, source.up, source.age, source.changed) for source in self._registry.refresh.states()
            ),
        )

    def _troubles(self) -> Iterator[Trouble]:
        status = self.queue.status()
        if status.blocked or status.problem:
            kind = TroubleKind.BLOCKED if status.blocked else TroubleKind.QUEUE
            yield Trouble(kind=kind, text=status.problem or "the queue takes no message")
        yield from self._refused_events.troubles()
        for override in status.overrides:
            yield Trouble(kind=TroubleKind.POLICY, text=str(override), subject=str(override.key))
        yield from self._live.reloads.troubles()
        yield from self._signing_keys.troubles()
        yield from self._signers.troubles()
        yield from self._registry.refresh.troubles()
        registry = self._live.now.registry
        if beyond := next(registry.left_away(), None):
            count = registry.left_away_count
            more = f", and {count - 1} more" if count > 1 else ""
            yield Trouble(kind=TroubleKind.BEYOND, text=f"{beyond.first[0]}{more}; notifier check tells all")
        yield from self._deferrals.troubles()
        yield from self._presence.troubles()

    def health(self) -> ops.Readiness:
        """Return the health that `/readyz` shows."""
        status = self.queue.status()
        return ops.Readiness(
            queue=status.connected,
            consuming=status.consuming,
            blocked=status.blocked,
            draining=self._draining,
            problem=status.problem or self._registry.refresh.problem(),
        )

    def _consuming(self) -> tuple[bool, str]:
        """Whether this worker takes messages, and what is in its way."""
        health = self.health()
        return health.ready, health.problem or ""

    async def _status(self) -> ServiceStatus:
        return await look_from_worker(self.queue, self._own_state.document, time.time)

    async def _canary(self, client: Client) -> Sequence[Finding]:
        channel = BackChannel(self._live, clock=time.time, new_jti=new_id, encrypter=self._encryption)
        return await send_canary(client, CanaryTools(channel=channel, transport=self._transport, new_id=new_id))

    async def accept(self, event: SessionEnded, lane: Lane) -> None:
        """Make an event from the API durable. Raises QueueError."""
        await self.queue.publish(lane, event_message(event))

    # ── running ──

    async def serve(self, stop: asyncio.Event, started: Callable[[], None] = lambda: None) -> None:
        """Run until `stop` is set, then drain. `started` is called once the listeners accept connections.

        Raises an ExceptionGroup with ConfigurationError (an address cannot be bound) or QueueError (the queue cannot be
        used until somebody mends it).
        """
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            await self.queue.open()
            stack.push_async_callback(self.queue.close)
            for feature in self._features:
                if feature.within is not None:
                    await stack.enter_async_context(feature.within)
            await self._transport.open()
            for opened in (self._transport, self._client_keys, self._encryption):
                stack.push_async_callback(opened.close)
            if self._tracing is not None:
                stack.push_async_callback(self._tracing.close)
            pages = chain.from_iterable(feature.pages for feature in self._features)
            judge = next((feature.judge for feature in self._features if feature.judge is not None), None)
            await stack.enter_async_context(
                listeners(self._settings, self.health, self.metrics, self._requests, self._routes(), pages, judge)
            )
            started()
            worker = group.create_task(self.worker.run())
            around = [group.create_task(work()) for work in self._around()]
            await stop.wait()
            self._draining = True
            log, began = structlog.get_logger(), time.monotonic()
            log.info("draining", in_flight=self.worker.in_flight)
            self.worker.stop()  # it takes nothing from now on, even if the broker still sends
            with suppress(TimeoutError):
                async with asyncio.timeout(CANCEL_WITHIN):
                    await asyncio.gather(self.queue.stop_consuming(), self._jobs.stop())
            await asyncio.gather(worker, self._presence.leave())
            given_back = sum(unsettled.messages for unsettled in self.worker.ledger.unsettled().values())
            log.info("drained", seconds=round(time.monotonic() - began, 1), given_back=given_back)
            self._replies.waiting.close()
            for task in around:
                task.cancel()

    def _routes(self) -> Iterator[web.RouteDef]:
        """The routes of the API beside `/v1/events`."""
        yield from operator_routes(self._live, self.queue, self.log_level, self._status, self._jobs)
        for feature in self._features:
            yield from feature.api

    def _page(self, iss: str, context: FrontChannelContext | None, parents: tuple[str, ...]) -> web.Response:
        """The page of the feature that makes pages. Without one it is empty: a browser asks nobody."""
        page = next((feature.page for feature in self._features if feature.page is not None), None)
        return web.Response() if page is None else page(iss, context, parents)

    def _around(self) -> Iterator[Callable[[], Coroutine[object, object, None]]]:
        yield from (self._consume, self._sample, self.reloading.watch, self._signing_keys.run, self._signers.run)
        yield from (self._self_watch.watch_loop, self._self_watch.watch_files, self._registry.refresh.run)
        yield self._freed.run
        yield self._jobs.run
        yield self.queue.broken

    async def _consume(self) -> None:
        await self.queue.ready()
        await self._registry.refresh.complete()
        await self._signers.ready()
        gc.collect()
        gc.freeze()  # long-lived objects stay out of collections, one of which held the event loop for 64 ms
        await self.queue.consume(self.worker)
        structlog.get_logger().info("consuming")

    async def _sample(self) -> None:
        """Set the depths of the queues in the metrics, and sample the rates, every five seconds."""
        for look in itertools.count():
            try:
                self._depths = await self.queue.depths()
            except QueueError:
                self._depths = {}
            self.metrics.set_depths(self._depths)
            self._health.sample()
            if look % FORGET_EVERY == 0:
                self._health.forget(self._live.now.registry)
                self._retries.forget()
                self._replays.forget()
            self._tell_blocked(self.queue.status())
            await asyncio.sleep(DEPTHS_EVERY)

    def _tell_blocked(self, status: QueueStatus) -> None:
        """Log once that the queue takes no message, and once that it does again."""
        log = structlog.get_logger()
        if status.blocked and not self._blocked:
            hint = "logouts go on, and those that fail wait in memory"
            why = "NotifierPublishingBlocked"
            log.warning("publishing_blocked", reason=status.problem, hint=hint, help=f"notifier explain {why}")
        elif self._blocked and not status.blocked:
            log.info("publishing_unblocked")
        self._blocked = status.blocked
