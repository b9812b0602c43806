"""Builds one worker with its listeners from its configuration, runs it, and stops it. This is the composition root.

Resources are opened in order and closed in reverse order. Every task has one owner, the group in `serve`. Stopping is a
bounded drain: `/readyz` reports not ready, consuming stops, attempts in flight end within `shutdown_grace`, and all
other messages go back to the queue.
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
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from notifier.configuration.live_configuration import LiveConfiguration
from notifier.delivery.channels import build_channels
from notifier.delivery.facts import Observer
from notifier.delivery.ports import Channel, ChannelTools, Tools
from notifier.feature import Feature, FeatureContext, FeatureRuntime, Page, WorkerView
from notifier.features import FEATURES
from notifier.messages.message_planner import MessagePlanner
from notifier.messages.replacements import SourceReader, to_event_message
from notifier.messages.worker import Limits, UnsuspendedClock, Worker
from notifier.model.defaults import MAX_EVENT
from notifier.model.ids import new_id
from notifier.network.http.transport import HttpTransport, max_open_files
from notifier.operators.deliveries import jobs, replay_account
from notifier.operators.deliveries.job_documents import END_JOB, LIST_JOBS, SHOW_JOB
from notifier.operators.deliveries.retry_request import RETRY_CLIENT, RetryAccounts
from notifier.operators.doctor.canary import CanaryTools, send_canary
from notifier.operators.status.claimed_actions import RECORD_ACTION, ActionRecorder
from notifier.operators.status.own_state import OwnState, read_status
from notifier.operators.status.pause_watch import READ_PAUSES
from notifier.operators.status.reload_request import RELOAD_REQUEST, make_reload_act
from notifier.operators.status.worker_requests import Act, RequestHandler, RequestKind
from notifier.publishing.event_requests import ApiSources, EventRequests
from notifier.publishing.reply_observer import ReplyObserver
from notifier.publishing.route_steps import DirectPublisher, OncePublisher
from notifier.queues.building import build_queue
from notifier.service.listeners import listeners
from notifier.service.operator_routes import operator_routes
from notifier.service.peer_reports import PeerReports
from notifier.service.watches import Watches
from notifier.telemetry.log_level import LogLevel
from notifier.telemetry.logs import LogObserver, subject_hash
from notifier.telemetry.metrics import Metrics, SignatureCounts
from notifier.telemetry.metrics_page import MetricsPage
from notifier.telemetry.observers import Observers
from notifier.tokens.client_encryption import ClientEncryption, ClientKeyReader

if TYPE_CHECKING:
    from notifier.telemetry.tracing import Tracing

CANCEL_SECONDS = 2.0  # for the broker to stop sending, and for jobs to end; then the drain continues
DEPTHS_INTERVAL_SECONDS = 5.0  # between two readings of the depths of the queues
READINGS_PER_CLEANUP = 12  # after so many of these readings, outdated records are dropped


class Service:
    """One worker with its listeners. `serve` runs it.

    Each part is constructed after the parts that it uses. The observers of facts are the exception: they are added to
    `Observers` last.
    """

    def __init__(
        self,
        live: LiveConfiguration,
        observers: Sequence[Observer] = (),
        tracing: Tracing | None = None,
        features: Sequence[Feature] = FEATURES,
        signatures: SignatureCounts | None = None,
    ) -> None:
        """`observers`: further observers of facts. `signatures` counts the signatures of `live`'s external keys."""
        self._live, self._tracing = live, tracing
        self._settings = settings = live.current.settings
        self.metrics = Metrics(live.registry, max_clients=settings.metrics.max_clients, signatures=signatures)
        logs = LogObserver(subject=settings.log.subject, hashing=subject_hash(settings))
        self.log_level = LogLevel(settings.log.level, logs.on_level_change)
        self.queue = build_queue(settings.queue, live.current.bindings)
        name, dispatcher = f"{socket.gethostname()}:{os.getpid()}", Observers()
        self._watches = Watches(name, live, self.queue, self.metrics, dispatcher.observe)
        self.reloading = self._watches.reloading
        self._replies = ReplyObserver(self.queue.side_channel, clock=time.time, new_id=new_id)
        sources = ApiSources(
            registry=live.registry, tokens=live.tokens, clock=time.time, new_id=new_id, counts=self._watches.requests,
            waiting=self._replies.waiting, observe=dispatcher.observe,
        )  # fmt: skip
        queue = self.queue
        self._requests = EventRequests(lambda event, lane: queue.publish(lane, to_event_message(event)), sources)
        self._transport = HttpTransport(on_surplus=(self.metrics.count_surplus, logs.log_surplus))
        self._client_keys = ClientKeyReader()
        self._encryption = ClientEncryption(self._client_keys.read, time.monotonic)
        self._channels = self._build_channels(features)
        runtimes = self._run_features(features)
        self._peer_reports = PeerReports(self.queue.worker_count, monotonic=time.monotonic)
        self.worker = self._build_worker({name: read for each in runtimes for name, read in each.readers.items()})
        state = OwnState(
            name, self.worker, self._watches.to_state_sources(), self._watches.health,
            queue=self.queue, clock=time.time, monotonic=time.monotonic,
        )  # fmt: skip
        self._status = partial(read_status, self.queue, time.time, state.document)
        view = self._build_view(name, state)
        self._features = [*runtimes, *(feature.operate(view) for feature in features)]
        self._retries = RetryAccounts(self.worker, time.monotonic, dispatcher)
        self._replays = replay_account.ReplayAccounts(time.monotonic, dispatcher)
        self._jobs = jobs.Jobs(self.queue, time.time, time.monotonic)
        self._share_status(name, state)
        families = [feature.families for feature in self._features]
        self.metrics_page = MetricsPage(self.metrics, self._watches.to_metrics_sources(self.worker), families)
        dispatcher.add(self.metrics.observe, logs.observe, self._watches.health.observe, self._replies.observe)
        dispatcher.add(*observers, *self._watches.observers)
        dispatcher.add(*(feature.observe for feature in self._features if feature.observe is not None))
        if tracing is not None:
            dispatcher.add(tracing.observe)

    def _run_features(self, features: Sequence[Feature]) -> Sequence[FeatureRuntime]:
        """Construct the features of this worker in their order, and return them."""
        page: Page = _answer_empty_page
        once: OncePublisher = DirectPublisher(self.queue.publish)
        runtimes = list[FeatureRuntime]()
        for feature in features:
            context = FeatureContext(
                live=self._live, queue=self.queue, label_of=self.metrics.label, requests=self._requests,
                observe=self._watches.observe, page=page, once=once, draining=self._watches.draining,
            )  # fmt: skip
            runtime = feature.run(context)
            runtimes.append(runtime)
            self.metrics.add_sources(runtime.list_sources)
            page, once = runtime.page or page, runtime.once or once
        return runtimes

    def _build_channels(self, features: Sequence[Feature]) -> Mapping[str, Channel]:
        tracing = self._tracing
        tools = ChannelTools(
            signer=self._live if tracing is None else tracing.signer(self._live), clock=time.time, new_jti=new_id,
            unverifiable=self._watches.signing_keys.explain_refused_token, jti_prefixes=self._live.jti_prefixes,
        )  # fmt: skip
        encrypter = self._encryption if tracing is None else tracing.encrypter(self._encryption)
        return build_channels(tools, encrypter, [feature.channels for feature in features])

    def _build_worker(self, readers: Mapping[str, SourceReader]) -> Worker:
        settings, live, tracing = self._settings, self._live, self._tracing
        intake = MessagePlanner(
            live.registry, clock=time.time, monotonic=time.monotonic, new_id=new_id, max_event=MAX_EVENT,
            readers=readers, observe=self._watches.observe,
        )  # fmt: skip
        limits = Limits(
            max_in_flight=settings.delivery.max_in_flight, shutdown_grace=settings.shutdown_grace,
            max_open_files=max_open_files(),
        )  # fmt: skip
        return Worker(
            intake,
            Tools(
                channels=self._channels,
                transport=self._transport if tracing is None else tracing.transport(self._transport),
                clock=time.time,
                monotonic=UnsuspendedClock(time.monotonic),
                jitter=random.random,
                observe=self._watches.observe,
                pauses=self._watches.pauses,
            ),
            live.registry,
            self.queue,
            limits,
            self._peer_reports,
        )

    def _build_view(self, name: str, state: OwnState) -> WorkerView:
        watches = self._watches
        canary = CanaryTools(
            channels=self._channels, transport=self._transport, new_id=new_id, pauses=lambda: watches.pauses.in_force
        )
        return WorkerView(
            live=self._live, queue=self.queue, name=name, state=state.document_with_clients,
            states=state.split_document, depths=lambda: watches.depths, canary=partial(send_canary, tools=canary),
            published=watches.signing_keys.published,
        )  # fmt: skip

    def _share_status(self, name: str, state: OwnState) -> None:
        """Connect this worker to the queue's side channel, on which workers exchange state and operators' requests."""
        acts: dict[RequestKind, Act] = {
            RELOAD_REQUEST: make_reload_act(self.reloading.carry_out),
            RECORD_ACTION: ActionRecorder().act,
            RETRY_CLIENT: self._retries.act,
            READ_PAUSES: self._watches.pauses.act,
            replay_account.FOLLOW_REPLAY: self._replays.act,
            **dict.fromkeys((LIST_JOBS, SHOW_JOB, END_JOB), self._jobs.act),
            **{kind: act for feature in self._features for kind, act in feature.acts.items()},
        }
        self._watches.add_features(self._features)
        channel = self.queue.side_channel
        channel.listen(state.document, self._replies.on_reply)
        channel.handle_requests(RequestHandler(name, acts, channel.on_malformed).carry_out)
        channel.share_updates(
            self._peer_reports.wait_for_document,
            partial(self._peer_reports.read, on_report=self.worker.scheduler.on_peer_report),
        )
        channel.share_presence(self._watches.presence)

    # ── running ──

    async def serve(self, stop: asyncio.Event, started: Callable[[], None] = lambda: None) -> None:
        """Run the worker until `stop` is set, then drain. `started` is called when the listeners accept connections.

        Raises an ExceptionGroup with ConfigurationError if an address cannot be bound, or with QueueError if the queue
        cannot be used until an operator repairs it.
        """
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            await self.queue.open()
            stack.push_async_callback(self.queue.close)
            for feature in self._features:
                if feature.lifespan is not None:
                    await stack.enter_async_context(feature.lifespan)
            await self._transport.open()
            for resource in (self._transport, self._client_keys, self._encryption):
                stack.push_async_callback(resource.close)
            if self._tracing is not None:
                stack.push_async_callback(self._tracing.close)
            pages = chain.from_iterable(feature.pages for feature in self._features)
            authenticators = (feature.authenticate_bearer for feature in self._features)
            authenticate_bearer = next(filter(None, authenticators), None)
            handlers = (self._watches.readiness, self.metrics_page, self._requests, self._api_routes(), pages)
            await stack.enter_async_context(listeners(self._settings, *handlers, authenticate_bearer))
            started()
            worker = group.create_task(self.worker.run())
            background_tasks = [group.create_task(run()) for run in self._list_background_tasks()]
            await stop.wait()
            self._watches.draining.set()
            log, began_at = structlog.get_logger(), time.monotonic()
            log.info("draining", in_flight=self.worker.in_flight)
            self.worker.stop()  # it accepts no message from now on, even if the broker still sends
            with suppress(TimeoutError):
                async with asyncio.timeout(CANCEL_SECONDS):
                    await asyncio.gather(self.queue.stop_consuming(), self._jobs.stop())
            await asyncio.gather(worker, self._watches.presence.leave())
            log.info("drained", seconds=round(time.monotonic() - began_at, 1), given_back=self.worker.given_back)
            self._replies.waiting.close()
            for task in background_tasks:
                task.cancel()

    def _api_routes(self) -> Iterator[web.RouteDef]:
        """Yield the routes of the API, except `/v1/events`."""
        yield from operator_routes(self._live, self.queue, self.log_level, self._status, self._jobs)
        for feature in self._features:
            yield from feature.api

    def _list_background_tasks(self) -> Iterator[Callable[[], Coroutine[object, object, None]]]:
        """Yield the coroutine functions that run beside the worker, until the drain has ended."""
        watches = self._watches
        yield from (
            self._consume_and_release,
            self._sample_depths,
            watches.reloading.watch,
            watches.signing_keys.run,
            watches.signers.run,
        )
        yield from (watches.self_watch.watch_loop, watches.self_watch.watch_files, watches.registry.refresh.run)
        yield from (watches.pauses.run, self._jobs.run, self.queue.wait_until_broken)

    async def _consume_and_release(self) -> None:
        """Consume events once the registry is complete; then release deferred deliveries until cancelled."""
        await self.queue.wait_until_ready()
        await self._watches.registry.refresh.complete()
        await self._watches.signers.wait_for_checks()
        await self._watches.pauses.start()
        gc.collect()
        gc.freeze()  # long-lived objects are left out of garbage collections, which blocked the loop for up to 64 ms
        await self.queue.consume(self.worker)
        self._watches.has_consumed.set()
        structlog.get_logger().info("consuming")
        await self._watches.deferral_release.run(self.worker.scheduler, self.worker.delayed)

    async def _sample_depths(self) -> None:
        """Read the depths of the queues periodically, and drop outdated records, until cancelled."""
        for reading in itertools.count():
            await self._watches.check_queue()
            self.reloading.drop_former_followers()
            if reading % READINGS_PER_CLEANUP == 0:
                self._watches.health.forget(self._live.current.registry)
                self._retries.forget()
                self._replays.forget()
            await asyncio.sleep(DEPTHS_INTERVAL_SECONDS)


def _answer_empty_page(_iss: str, _context: object, _parents: tuple[str, ...]) -> web.Response:
    return web.Response()
