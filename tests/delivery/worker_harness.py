"""A harness for the pipeline: in-memory ports that record the order of calls and the fates of deliveries."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from notifier.delivery.channels import BackChannel
from notifier.delivery.facts import Fact
from notifier.delivery.ports import ClientReport, Tools
from notifier.messages.message_planner import MessagePlanner
from notifier.messages.replacements import SourceReader
from notifier.messages.worker import Limits, Worker
from notifier.model.backoff import Jitter, Rounding
from notifier.model.client import Algorithm, Client
from notifier.model.documents.dead_letter import load_dead_letter
from notifier.model.errors import OneQueueUnavailable, QueueUnavailable
from notifier.model.message import Kind, Lane, Message, MessageDraft, NewerKind
from notifier.model.outcome import HttpResponse, TransportResult
from notifier.model.registry import InlineRule, Issuer, Registry
from notifier.model.request import Request
from notifier.operators.deliveries.dead_letter_summary import document_of
from notifier.queues.rabbitmq.delays import Forwarder, to_first_hop
from tests.support.no_pauses import NoPauses

ISS = "https://id.example"
OTHER = "https://other.example"
PARKED = "parked"
LARGE = "large"  # the large bucket
PATIENCE = 60.0  # seconds until a wait is a failure: a machine may stand still

Behaviour = Callable[[Request], Awaitable[TransportResult]]


def results_in(result: TransportResult | Exception) -> Behaviour:
    """Return a client whose requests always have this result, or raise this error."""

    async def behave(_request: Request) -> TransportResult:
        if isinstance(result, Exception):
            raise result
        return result

    return behave


def answers(status: int, retry_after: str | None = None) -> Behaviour:
    """Return a client that always gives this answer."""
    return results_in(HttpResponse(status=status, retry_after=retry_after))


def hop_of(queue: str) -> int:
    """Return the seconds of a delay queue."""
    return int(queue.removeprefix("delay.").removesuffix("s"))


def client(client_id: str, iss: str = ISS, **more: Any) -> Client:
    """Return a registered client with its name in the URI."""
    return Client(iss=iss, client_id=client_id, backchannel_logout_uri=f"https://{client_id}.example/out", **more)


class Receivers:
    """A transport whose answer depends on the host of the client's URI."""

    def __init__(self) -> None:
        self.behaviours: dict[str, Behaviour] = {}
        self.posts: list[tuple[str, dict[str, Any]]] = []

    async def post(self, request: Request) -> TransportResult:
        name = request.uri.split("//")[1].split(".")[0]
        self.posts.append((name, json.loads(request.secret)))
        return await self.behaviours.get(name, answers(204))(request)


class Others:
    """A group of so many workers, including this one. `reports`: the reports sent to the others."""

    def __init__(self, size: int = 1) -> None:
        self.reports: list[ClientReport] = []
        self.size = size

    def count(self) -> int:
        return self.size

    def report(self, reports: ClientReport) -> None:
        self.reports.append(reports)


class PlainSigner:
    """Returns unsigned claims. `signing` runs meanwhile."""

    signing: Callable[[], object] = staticmethod(lambda: None)

    async def sign(self, _iss: str, _alg: Algorithm, _typ: str | None, claims: Mapping[str, object]) -> str:
        self.signing()
        return json.dumps(claims)


@dataclass
class MemoryQueue:
    """Records publishes and acks in order; clearing `open` makes the queue unreachable. It delays as RabbitMQ does.

    `refused` lists the destinations of publishes meanwhile. `given_back`: the redelivery count of fetched messages.
    `fetches`: the buckets fetched from; those in `unreadable` fail. Queues in `refusing` take nothing. `shared`: the
    bucket of all clients; None if each has one. The large bucket is shared, too.
    """

    clock: Callable[[], float]
    published: list[tuple[str, MessageDraft]] = field(default_factory=list)
    acked: list[Message] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    log: list[str] = field(default_factory=list)
    buckets: dict[str, list[MessageDraft]] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    given_back: int = 0
    fetches: list[str] = field(default_factory=list)
    unreadable: set[str] = field(default_factory=set)
    refusing: set[str] = field(default_factory=set)
    fault: Exception | None = None
    shared: str | None = None
    uses_large: bool = True

    async def publish(self, queue: str, message: MessageDraft) -> None:
        if self.fault is not None:
            raise self.fault
        if not self.open.is_set():
            self.refused.append(queue)
            raise QueueUnavailable("away")
        if queue in self.refusing:
            raise OneQueueUnavailable("full")
        await asyncio.sleep(0)
        self.published.append((queue, message))
        self.log.append(f"published {queue}")

    async def publish_later(self, message: MessageDraft, *, due: float, rounding: Rounding = "down") -> None:
        await self.publish(*to_first_hop(message, due - self.clock(), rounding))

    def bucket(self, key: tuple[str, str], *, large: bool = False) -> str:
        return LARGE if large and self.uses_large else self.shared or " ".join(key)

    def inherited_buckets(self, *, at_start: bool) -> Collection[str]:
        return [*self.buckets] if at_start else () if self.uses_large else (LARGE,)

    async def park(self, bucket: str, message: MessageDraft, *, until: float) -> None:
        if bucket in self.refusing:
            raise OneQueueUnavailable("full")
        await self.publish(PARKED, message)
        self.buckets.setdefault(bucket, []).append(message)

    async def fetch(self, bucket: str, most: int) -> list[Message]:
        self.fetches.append(bucket)
        if bucket in self.unreadable:
            raise QueueUnavailable("unreadable")
        waiting = self.buckets.get(bucket, [])
        taken, self.buckets[bucket] = waiting[:most], waiting[most:]
        return [
            Message(
                lane=Lane.RETRIES,
                body=sent.body,
                tag="fetched",
                kind=sent.kind,
                message_id=sent.message_id,
                headers=sent.headers,
                delivery_count=self.given_back,
            )
            for sent in taken
        ]

    async def count_parked(self, buckets: Collection[str] | None = None) -> dict[str, int]:
        names = self.buckets if buckets is None else buckets
        return {name: count for name in names if (count := len(self.buckets.get(name, ())))}

    async def wait_until_available(self) -> None:
        await self.open.wait()

    def ack(self, message: Message) -> None:
        self.acked.append(message)
        self.log.append(f"acked {message.tag}")

    def set_aside(self, message: Message) -> None:
        self.log.append(f"set aside {message.tag}")


class WorkerHarness:
    """One worker on these ports. `until` waits for a condition, bounded."""

    def __init__(self, *clients: Client, inline: InlineRule = "publishers", **limits: Any) -> None:
        self.queue = MemoryQueue(clock=lambda: self.now + self.jumped)
        self.queue.open.set()
        self.receivers = Receivers()
        self.others = Others()
        self.facts: list[Fact] = []
        self.readers: dict[str, SourceReader] = {}
        self.unpublished: str | None = None  # what is wrong with the issuer's published key
        self.now = 1_800_000_000.0
        self.jitter: Jitter = lambda: 0.5
        self.jumped = 0.0  # seconds by which the wall clock has left the monotonic one
        by_issuer = {iss: {one.client_id: one for one in clients if one.iss == iss} for iss in (ISS, OTHER)}
        self.registry = Registry(
            issuers={iss: Issuer(iss=iss) for iss in by_issuer},
            clients=by_issuer,
            inline=inline,
            unregistered=Client(iss="", client_id="", backchannel_logout_uri=None, registered=False),
        )
        numbers = itertools.count()
        self.signer = PlainSigner()
        channel = BackChannel(
            self.signer,
            clock=lambda: self.now + self.jumped,
            new_jti=lambda: f"jti-{next(numbers)}",
            unverifiable=lambda _client: self.unpublished,
        )
        self.pauses = NoPauses()
        tools = Tools(
            channels=dict.fromkeys(("back_channel", "front_channel"), channel),
            transport=self.receivers,
            clock=lambda: self.now + self.jumped,
            monotonic=lambda: self.now,
            jitter=self._jitter,
            observe=self.facts.append,
            pauses=self.pauses,
        )
        self.worker = Worker(
            MessagePlanner(
                lambda: self.registry,
                clock=tools.clock,
                monotonic=tools.monotonic,
                new_id=lambda: f"made-up-{next(numbers)}",
                max_event=4096,
                readers=self.readers,
                observe=tools.observe,
            ),
            tools,
            lambda: self.registry,
            self.queue,
            Limits(**limits),
            self.others,
        )
        queue = self.queue
        self._inbox = Forwarder(self.worker, queue.publish, queue.wait_until_available, queue.ack, queue.clock)
        self._tags = itertools.count(1)
        self._proofs = itertools.count()
        self._taken: list[Message] = []
        self._delayed: list[tuple[float, MessageDraft]] = []  # when each is back
        self._followed = 0  # number of published messages
        self._retaken: list[MessageDraft] = []

    def _jitter(self) -> float:
        return self.jitter()

    def event(self, *clients: Any, lane: Lane = Lane.EVENTS, delivery_count: int = 0, **members: Any) -> Message:
        """Pass an event to the worker."""
        body = {"iss": ISS, "sub": "alice", "sid": "s1", "clients": list(clients)} | members
        return self.take(json.dumps(body).encode(), lane=lane, delivery_count=delivery_count)

    def take(
        self, body: bytes, *, lane: Lane = Lane.EVENTS, kind: Kind | NewerKind | None = None, **more: Any
    ) -> Message:
        """Pass a message to the worker."""
        message = Message(lane=lane, body=body, kind=kind, tag=next(self._tags), timestamp=self.now, **more)
        self._taken.append(message)
        self._inbox.take(message)
        return message

    def retake(self, queue: str) -> Message:
        """Pass the last message published to `queue`, as if it had come due."""
        outgoing = next(message for name, message in reversed(self.queue.published) if name == queue)
        self._retaken.append(outgoing)
        return self._retake(outgoing)

    def _retake(self, sent: MessageDraft) -> Message:
        return self.take(sent.body, lane=Lane.RETRIES, kind=sent.kind, message_id=sent.message_id, headers=sent.headers)

    async def through_delays(self, most: float) -> list[float]:
        """Let the last message pass its delay queues, each for its delay, until it is attempted or a dead letter.

        Return the seconds after which a worker read it; fail if one exceeds `most`.
        """
        looks, began, attempts = list[float](), self.now, len(self.notified())
        while len(self.notified()) == attempts and not self.dead():
            queue, _ = self.queue.published[-1]
            self.now += hop_of(queue)
            looks.append(self.now - began)
            assert looks[-1] <= most
            await self.acked(self.retake(queue))
        return looks

    async def pass_time(self, seconds: float, step: float = 1.0) -> None:
        """Let so many seconds pass, step by step, and pass on each message that returns from its delay queue."""
        over = self.now + seconds
        while self.now < over:
            await self.settled()
            self._delayed += [
                (self.now + hop_of(queue), sent)
                for queue, sent in self.queue.published[self._followed :]
                if queue.startswith("delay.") and not any(sent is one for one in self._retaken)
            ]
            self._followed = len(self.queue.published)
            self.now += step
            back = [sent for due, sent in self._delayed if due <= self.now]
            self._delayed = [(due, sent) for due, sent in self._delayed if due > self.now]
            for sent in back:
                self._retake(sent)
        await self.settled()

    async def settled(self) -> None:
        """Wait until each message is acked or in memory, and no fetch is pending."""
        quiet = 0

        def settled() -> bool:
            nonlocal quiet
            acked = sum(message.tag != "fetched" for message in self.queue.acked)
            waiting = sum(count for _, _, count in self.worker.scheduler.waiting_counts())
            quiet = quiet + 1 if not self.worker.in_flight and len(self._taken) <= acked + waiting else 0
            return quiet > 10

        await self.until(settled)

    def hold(self, *names: str) -> asyncio.Event:
        """Let these clients answer only when the returned event is set."""
        release = asyncio.Event()

        async def behave(_request: Request) -> TransportResult:
            await release.wait()
            return HttpResponse(status=200)

        self.receivers.behaviours |= dict.fromkeys(names, behave)
        return release

    def notified(self) -> list[str]:
        """Return the notified clients, in order."""
        return [name for name, _ in self.receivers.posts]

    def dead(self) -> list[dict[str, Any]]:
        """Return the dead letters, as scripts get them."""
        return [
            document_of(load_dead_letter(_message(sent))) for queue, sent in self.queue.published if queue == "dead"
        ]

    async def prove(self, *names: str) -> None:
        """Let each client accept an event, which gives it a budget of four failures. Clear all other records."""
        behaviours, self.receivers.behaviours = self.receivers.behaviours, {}
        await self.acked(self.event(*names, id=f"proof-{next(self._proofs)}"))
        self.receivers.behaviours, self._tags = behaviours, itertools.count(1)
        self._taken.clear()
        for forgotten in (self.receivers.posts, self.facts, self.queue.acked, self.queue.log):
            forgotten.clear()

    async def acked(self, message: Message) -> None:
        """Wait until this message is acked."""
        await self.until(lambda: message in self.queue.acked)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds."""
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while not condition():
            assert asyncio.get_running_loop().time() < deadline, (
                f"waited {PATIENCE} s; notified {self.notified()}, queue {self.queue.log}, "
                f"refused {self.queue.refused}, dead {self.dead()}"
            )
            await asyncio.sleep(0)


def _message(sent: MessageDraft) -> Message:
    kind = Kind(sent.kind)
    return Message(lane=Lane.RETRIES, body=sent.body, tag=None, kind=kind, headers=sent.headers)


HarnessT = TypeVar("HarnessT", bound=WorkerHarness)


@asynccontextmanager
async def running(harness: HarnessT) -> AsyncIterator[HarnessT]:
    """Run the worker within the context."""
    task = asyncio.create_task(harness.worker.run())
    try:
        yield harness
    finally:
        harness.worker.stop()
        with suppress(Exception):
            await task
