"""Writes OpenTelemetry spans of each event, each attempt, and the token and request of an attempt.

Spans are created from facts afterwards, with the times of the facts, so that no delivery waits for them. The id of an
event's span is derived from the trace and the event, so that an attempt at another worker has the right parent. If the
publisher has sent no trace, the trace id is also derived from the event. Clients receive no trace.
"""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import Tracer, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.util.types import AttributeValue

from notifier.delivery.facts import Attempted, EventTaken, FactHandlers, LogoutDelivered
from notifier.delivery.ports import Encrypter, Signer, Transport
from notifier.model import outcome
from notifier.model.client import Algorithm, Client, Encryption
from notifier.model.documents.cloudevents import parse_traceparent
from notifier.model.outcome import TransportResult
from notifier.model.own_thread import run_in_thread
from notifier.model.request import Request
from notifier.model.shared_resources import shared_bound

CLOSE_SECONDS = 2.0  # to export the last spans
MAX_REMEMBERED_EVENTS = shared_bound(10_000)  # events with a written span; the parts of a large event share a span
NANOSECONDS_PER_SECOND = 1_000_000_000
TRACE_ID_BYTES, SPAN_ID_BYTES = 16, 8  # W3C Trace Context
MINT, ENCRYPT = "mint", "encrypt"
"""The steps that create a token: signing and, for some clients, encrypting. A request's step is named by its method."""


@dataclass(frozen=True, slots=True)
class _Step:
    """A part of an attempt. Times are nanoseconds since the epoch."""

    name: str
    began_at: int
    ended_at: int


_STEPS: ContextVar[tuple[_Step, ...]] = ContextVar("steps", default=())
"""The completed steps of this task's attempt."""


class Tracing:
    """Writes spans, and wraps signer, encrypter and transport to time them."""

    def __init__(self, version: str) -> None:
        """Start the export thread. The OTEL_… variables set the destination and the sampling."""
        resource = Resource.create({"service.version": version})
        if resource.attributes.get(SERVICE_NAME, "").startswith("unknown_service"):  # type: ignore[union-attr]
            resource = resource.merge(Resource({SERVICE_NAME: "notifier"}))
        self._ids = _IdGenerator()
        self._provider = TracerProvider(resource=resource, id_generator=self._ids)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        tracer = self._provider.get_tracer("notifier", version)
        self._tracer = tracer if isinstance(tracer, Tracer) else None  # None: OTEL_SDK_DISABLED
        self._written: OrderedDict[int, None] = OrderedDict()
        self.observe = FactHandlers(
            {Attempted: self._on_attempt, LogoutDelivered: self._on_attempt, EventTaken: self._on_event_taken}
        )
        """Writes the span of a fact that has one."""

    def signer(self, signer: Signer) -> Signer:
        """Return the signer, timed."""
        return _TimedSigner(signer)

    def encrypter(self, encrypter: Encrypter) -> Encrypter:
        """Return the encrypter, timed."""
        return _TimedEncrypter(encrypter)

    def transport(self, transport: Transport) -> Transport:
        """Return the transport, timed."""
        return _TimedTransport(transport)

    async def close(self) -> None:
        """Export the pending spans within CLOSE_SECONDS: an unreachable collector must not delay the shutdown."""
        await asyncio.wait({run_in_thread(self._provider.shutdown, "export of traces")}, timeout=CLOSE_SECONDS)

    def _on_event_taken(self, fact: EventTaken) -> None:
        if fact.arrived is None:  # it was replaced, for example by its parts, which write the span
            return
        ids = _span_ids(fact.trace, fact.iss, fact.event_id)
        if self._tracer is None or ids.span_id in self._written or not self._is_sampled(ids):
            return
        self._written[ids.span_id] = None
        if len(self._written) > MAX_REMEMBERED_EVENTS:
            self._written.popitem(last=False)
        self._ids.use(ids.trace_id, ids.span_id)
        span = self._tracer.start_span(
            "event",
            context=ids.publisher,
            kind=SpanKind.CONSUMER,
            attributes={
                "notifier.iss": fact.iss,
                "notifier.event_id": fact.event_id,
                "notifier.result": fact.result,
                "notifier.deliveries": fact.deliveries,
            },
            start_time=int(fact.arrived * NANOSECONDS_PER_SECOND),
        )
        self._ids.forget()
        span.end()

    def _on_attempt(self, fact: Attempted) -> None:
        steps = _STEPS.get()
        _STEPS.set(())
        delivery, result = fact.delivery, fact.outcome
        ids = _span_ids(delivery.trace, delivery.iss, delivery.event_id)
        if self._tracer is None or not self._is_sampled(ids):
            return
        attributes: dict[str, AttributeValue] = {
            "notifier.iss": delivery.iss,
            "notifier.client_id": delivery.client_id,
            "notifier.event_id": delivery.event_id,
            "notifier.attempt": fact.number,
            "notifier.jti": fact.jti,
            "notifier.reason": str(result.reason),
        }
        if result.status is not None:
            attributes["http.response.status_code"] = result.status
        # The attempt and its steps are timed by different clocks. The attempt's span must contain all steps.
        ended_at = int(fact.at * NANOSECONDS_PER_SECOND)
        began_at = ended_at - int(fact.seconds * NANOSECONDS_PER_SECOND)
        began_at = min([began_at, *(step.began_at for step in steps)])
        span = self._tracer.start_span("attempt", context=ids.event, attributes=attributes, start_time=began_at)
        inside = set_span_in_context(span)
        for step in steps:
            kind = SpanKind.INTERNAL if step.name in (MINT, ENCRYPT) else SpanKind.CLIENT
            self._tracer.start_span(step.name, context=inside, kind=kind, start_time=step.began_at).end(step.ended_at)
        if not isinstance(result, outcome.Delivered):
            span.set_status(Status(StatusCode.ERROR, str(result.reason)))
        span.end(max([ended_at, *(step.ended_at for step in steps)]))

    def _is_sampled(self, ids: "_SpanIds") -> bool:
        """Return the sampler's decision. It is the same for an event and all its attempts."""
        sampled = self._provider.sampler.should_sample(ids.publisher, ids.trace_id, "event")
        return sampled.decision is Decision.RECORD_AND_SAMPLE


@dataclass(frozen=True, slots=True)
class _SpanIds:
    """The ids of an event's span. `publisher`: the context of its parent, None if the publisher sent no trace."""

    trace_id: int
    span_id: int
    publisher: Context | None

    @property
    def event(self) -> Context:
        return _context(self.trace_id, self.span_id, sampled=True)


def _span_ids(trace: str | None, iss: str, event_id: str) -> _SpanIds:
    """Return the ids of the event's span. `trace`: the `traceparent` of the publisher."""
    if trace is None:
        trace_id = _digest(TRACE_ID_BYTES, "trace", iss, event_id)
        return _SpanIds(trace_id, _digest(SPAN_ID_BYTES, f"{trace_id:032x}", iss, event_id), None)
    trace_id, parent_span_id, sampled = parse_traceparent(trace)
    span_id = _digest(SPAN_ID_BYTES, trace, iss, event_id)
    return _SpanIds(trace_id, span_id, _context(trace_id, parent_span_id, sampled=sampled))


def _context(trace_id: int, span_id: int, *, sampled: bool) -> Context:
    flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
    return set_span_in_context(NonRecordingSpan(SpanContext(trace_id, span_id, is_remote=True, trace_flags=flags)))


def _digest(size: int, *texts: str) -> int:
    joined = "\0".join(texts).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(joined, digest_size=size).digest(), "big") or 1


class _IdGenerator(RandomIdGenerator):
    """Returns random ids, unless `use` has set the ids of the next span."""

    def __init__(self) -> None:
        self._next: tuple[int, int] | None = None

    def use(self, trace_id: int, span_id: int) -> None:
        self._next = (trace_id, span_id)

    def forget(self) -> None:
        self._next = None

    def generate_trace_id(self) -> int:
        return super().generate_trace_id() if self._next is None else self._next[0]

    def generate_span_id(self) -> int:
        return super().generate_span_id() if self._next is None else self._next[1]


@contextmanager
def _time_step(name: str) -> Iterator[None]:
    """Record the enclosed code as a step of the attempt. If it raises, all steps of the attempt are discarded."""
    began_at, earlier_steps = time.time_ns(), _STEPS.get()
    _STEPS.set(())
    yield
    _STEPS.set((*earlier_steps, _Step(name, began_at, time.time_ns())))


class _TimedSigner:
    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    async def sign(self, iss: str, alg: Algorithm, typ: str | None, claims: Mapping[str, object]) -> str:
        with _time_step(MINT):
            return await self._signer.sign(iss, alg, typ, claims)


class _TimedEncrypter:
    def __init__(self, encrypter: Encrypter) -> None:
        self._encrypter = encrypter

    async def encrypt(self, client: Client, encryption: Encryption, token: str) -> str:
        with _time_step(ENCRYPT):
            return await self._encrypter.encrypt(client, encryption, token)

    def explain_rejection(self, encryption: Encryption) -> str | None:
        return self._encrypter.explain_rejection(encryption)


class _TimedTransport:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def post(self, request: Request) -> TransportResult:
        with _time_step("GET" if request.body is None else "POST"):
            return await self._transport.post(request)
