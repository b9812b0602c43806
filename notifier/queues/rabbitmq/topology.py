"""Lists the queues and exchanges that notifier needs; declares, verifies, surveys and deletes them.

Every queue is a durable quorum queue with at-least-once dead-lettering. The delivery limit is always set and finite: a
missing limit means 20 on RabbitMQ 4.x, and -1 means "drop at the first requeue" on 3.10.
"""

from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from aiormq.exceptions import ChannelAccessRefused, ChannelClosed, ChannelNotFoundEntity, ChannelPreconditionFailed
from pamqp import commands
from pamqp.base import Frame

from notifier.model.errors import QueueError, TopologyMismatch
from notifier.model.message import DEAD, DELIVERY_LIMIT, PARKED_LARGE, SOURCE, Lane
from notifier.queues.rabbitmq.buckets import abridge_buckets, bucket_names
from notifier.queues.rabbitmq.connection import Connection
from notifier.queues.rabbitmq.delays import DELAY_QUEUES
from notifier.queues.rabbitmq.options import RabbitOptions
from notifier.queues.rabbitmq.register import REGISTER, REGISTER_ARGUMENTS
from notifier.queues.rabbitmq.request_pipeline import Answer, RequestPipeline, pipelined, run_together
from notifier.queues.rabbitmq.settling import Settling

UNLIMITED_DELIVERIES = 2**31 - 1  # passes must never exhaust a dead letter's limit
OUTCOMES_EXCHANGE = "outcomes"
COLLECTED_QUEUE = "collected"  # declared by older releases; no release fills or reads it now


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSpec:
    """A queue: its full name and arguments."""

    name: str
    arguments: dict[str, str | int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeSpec:
    """A durable topic exchange, and the queue that receives all its messages, if any.

    `collected`: a queue that older releases may have bound to it; it is deleted with the exchange.
    """

    name: str
    queue: str | None = None
    collected: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """All queues, the register as the last one, and all exchanges under one prefix."""

    queues: tuple[QueueSpec, ...]
    exchanges: tuple[ExchangeSpec, ...]


def topology_of(options: RabbitOptions) -> Topology:
    """Return the queues and exchanges under the prefix."""
    prefix = options.prefix
    dead = _build_queue_spec(f"{prefix}.{DEAD}", limit=UNLIMITED_DELIVERIES, to=None)
    consumed = (*Lane, *(f"{SOURCE}{name}" for name in options.sources))
    lanes = (_build_queue_spec(f"{prefix}.{name}", limit=DELIVERY_LIMIT, to=dead.name) for name in consumed)
    delays = (
        _build_queue_spec(
            f"{prefix}.{name}", limit=UNLIMITED_DELIVERIES, to=f"{prefix}.{Lane.RETRIES}", ttl=seconds * 1000
        )
        for name, seconds in (*DELAY_QUEUES.items(), *((name, options.parked_for) for name in bucket_names(options)))
    )
    register = _build_queue_spec(f"{prefix}.{REGISTER}", limit=UNLIMITED_DELIVERIES, to=None)
    register.arguments.update(REGISTER_ARGUMENTS)
    return Topology(
        queues=(dead, *lanes, *delays, register),
        exchanges=(
            *(ExchangeSpec(name=f"{prefix}.{lane}", queue=f"{prefix}.{lane}") for lane in (Lane.EVENTS, Lane.BULK)),
            ExchangeSpec(name=f"{prefix}.{OUTCOMES_EXCHANGE}", collected=f"{prefix}.{COLLECTED_QUEUE}"),
        ),
    )


def _build_queue_spec(name: str, *, limit: int, to: str | None, ttl: int | None = None) -> QueueSpec:
    arguments: dict[str, str | int] = {"x-queue-type": "quorum", "x-delivery-limit": limit}
    if to is not None:
        # at-least-once needs reject-publish: the queue must refuse new messages rather than drop its oldest.
        arguments |= {
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": to,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }
    if ttl is not None:
        arguments["x-message-ttl"] = ttl
    return QueueSpec(name=name, arguments=arguments)


def _require_match(missing: Sequence[str], different: Sequence[str | None]) -> None:
    """Raise TopologyMismatch with all differences and missing names, and the remedies; unless there are none."""
    if parts := [difference for difference in different if difference is not None]:
        parts.append(
            "to keep its messages, choose another queue.prefix; "
            "else stop the workers and delete it (`notifier topology delete`), and it is declared again"
        )
    if missing:
        parts.append(f"missing: {', '.join(abridge_buckets(missing))}")
        parts.append("declare with `notifier topology declare`, or set queue.topology: declare")
    if parts:
        raise TopologyMismatch("; ".join(parts))


async def declare(
    connection: Connection, topology: Topology, settling: Settling, trial: Coroutine[object, object, None]
) -> bool:
    """Declare missing queues and exchanges, and change nothing else. Return once new queues can be used.

    Return True if the register was missing, so that its queue is empty: the caller, or its first reader, fills it.

    `trial`: a test of the broker, whose errors are raised. It runs beside the search for existing queues: a queue that
    is created while the feature flag `stream_queue` is off drops expired messages even when the flag is on later.
    Raises TopologyMismatch, or QueueError if not allowed.
    """
    async with pipelined(connection) as pipeline:
        await run_together([trial, _find_new(pipeline, topology, settling)])
        [register] = await find_queues(pipeline, [topology.queues[-1].name])
        answers = await pipeline.send([[_declare_of(queue)] for queue in topology.queues])
        for queue in topology.queues:  # before a refusal is raised
            settling.on_declared(queue.name)
        different = [
            _explain_answer(f"queue {queue.name}", answer)
            for queue, answer in zip(topology.queues, answers, strict=True)
        ]
        # The exchanges come last, so that publishers cannot reach a queue that is too new.
        await settling.wait_until_usable()
        different += await _declare_exchanges(pipeline, topology.exchanges)
    _require_match((), different)
    return register is None


async def _find_new(pipeline: RequestPipeline, topology: Topology, settling: Settling) -> None:
    """Record the queues that are new. Without an exchange all are: another worker may have just created them."""
    new: Sequence[QueueSpec] = topology.queues
    if None not in await _find_exchanges(pipeline, topology.exchanges):
        found = await find_queues(pipeline, (queue.name for queue in topology.queues))
        new = [queue for queue, answer in zip(topology.queues, found, strict=True) if answer is None]
    for queue in new:
        settling.on_missing(queue.name)


async def _declare_exchanges(pipeline: RequestPipeline, exchanges: Sequence[ExchangeSpec]) -> list[str | None]:
    """Return the difference to each existing exchange, None without one."""
    requests: list[list[Frame]] = []
    for exchange in exchanges:
        requests.append([commands.Exchange.Declare(exchange=exchange.name, exchange_type="topic", durable=True)])
        if exchange.queue is not None:  # bound by the same write, since an exchange without a queue loses events
            bind = commands.Queue.Bind(queue=exchange.queue, exchange=exchange.name, routing_key="#")
            requests[-1].append(bind)
    return [
        # A missing queue could not be declared, which is already reported.
        None if isinstance(answer, ChannelNotFoundEntity) else _explain_answer(f"exchange {exchange.name}", answer)
        for exchange, answer in zip(exchanges, await pipeline.send(requests), strict=True)
    ]


async def find_queues(pipeline: RequestPipeline, names: Iterable[str]) -> list[commands.Queue.DeclareOk | None]:
    """Return the broker's answer for each queue, with its counts; None for a missing one."""
    return await _find(pipeline, [commands.Queue.Declare(queue=name, passive=True) for name in names])


async def _find_exchanges(pipeline: RequestPipeline, exchanges: Sequence[ExchangeSpec]) -> list[Any]:
    """Return None for each missing exchange, and an answer for each other."""
    return await _find(pipeline, [commands.Exchange.Declare(exchange=each.name, passive=True) for each in exchanges])


async def _find(pipeline: RequestPipeline, declares: Iterable[Frame]) -> list[Any]:
    answers = await pipeline.send([[declare] for declare in declares])
    for answer in answers:
        if isinstance(answer, ChannelClosed) and not isinstance(answer, ChannelNotFoundEntity):
            raise answer
    return [None if isinstance(answer, ChannelNotFoundEntity) else answer for answer in answers]


def _declare_of(queue: QueueSpec) -> commands.Queue.Declare:
    return commands.Queue.Declare(queue=queue.name, durable=True, arguments=dict(queue.arguments))


@dataclass(frozen=True, slots=True, kw_only=True)
class TopologyState:
    """The state of one queue or exchange. `ready` messages and `consumers` are None for an exchange or a missing queue.

    `difference` names the argument that differs.
    """

    what: Literal["queue", "exchange"]
    name: str
    arguments: Mapping[str, str | int] = field(default_factory=dict)
    missing: bool = False
    difference: str | None = None
    ready: int | None = None
    consumers: int | None = None


async def verify(connection: Connection, topology: Topology) -> bool:
    """Check that nothing is missing or different. Arguments are compared only if we may configure queues.

    Return False if large buckets are missing. They and the register may be, since former releases do not declare them.
    Raises TopologyMismatch with all differences.
    """
    states, register = await survey(connection, topology), topology.queues[-1].name
    missing = [state for state in states if state.missing and state.name != register]
    required = [f"{state.what} {state.name}" for state in missing if f".{PARKED_LARGE}-" not in state.name]
    _require_match(required, [state.difference for state in states])
    return not missing


async def survey(connection: Connection, topology: Topology) -> tuple[TopologyState, ...]:
    """Return the state of every queue and exchange. Arguments are compared only if we may configure queues."""
    async with pipelined(connection) as pipeline:
        found = await find_queues(pipeline, (queue.name for queue in topology.queues))
        found_exchanges = await _find_exchanges(pipeline, topology.exchanges)
        # A passive declare compares nothing; a full declare of an existing queue changes nothing.
        existing = [queue for queue, counts in zip(topology.queues, found, strict=True) if counts is not None]
        answers = await pipeline.send([[_declare_of(queue)] for queue in existing])
    declared = dict(zip((queue.name for queue in existing), answers, strict=True))
    states: list[TopologyState] = []
    for queue, counts in zip(topology.queues, found, strict=True):
        if counts is None:
            states.append(TopologyState(what="queue", name=queue.name, arguments=queue.arguments, missing=True))
            continue
        answer = declared[queue.name]
        refused = isinstance(answer, ChannelAccessRefused)
        state = TopologyState(
            what="queue", name=queue.name, arguments=queue.arguments,
            difference=None if refused else _explain_answer(f"queue {queue.name}", answer),
            ready=counts.message_count or 0, consumers=counts.consumer_count or 0,
        )  # fmt: skip
        states.append(state)
    for exchange, answer in zip(topology.exchanges, found_exchanges, strict=True):
        states.append(TopologyState(what="exchange", name=exchange.name, missing=answer is None))
    return tuple(states)


async def delete(connection: Connection, topology: Topology) -> Mapping[str, int]:
    """Delete everything. Return the number of ready messages per queue. A missing queue is not an error.

    The message of the register does not count.
    """
    lost: dict[str, int] = {}
    # Never `if-empty`: on quorum queues it closes the whole connection.
    # One after the other: RabbitMQ 4.0 stops dead-lettering if many queues are deleted in its first second. Queues that
    # dead-letter into others are deleted first, so that no message goes to a deleted queue.
    async with pipelined(connection) as pipeline:
        for queue in reversed(topology.queues):
            [answer] = await pipeline.send([[commands.Queue.Delete(queue=queue.name)]])
            if isinstance(answer, commands.Queue.DeleteOk) and queue is topology.queues[-1]:
                lost[queue.name] = 0
            elif isinstance(answer, commands.Queue.DeleteOk):
                lost[queue.name] = answer.message_count or 0
            elif not isinstance(answer, ChannelNotFoundEntity):
                _explain_answer(queue.name, answer)
        for exchange in topology.exchanges:
            collected = [] if exchange.collected is None else [commands.Queue.Delete(queue=exchange.collected)]
            [answer] = await pipeline.send([[*collected, commands.Exchange.Delete(exchange=exchange.name)]])
            if not isinstance(answer, ChannelNotFoundEntity):
                _explain_answer(exchange.name, answer)
    return lost


def _explain_answer(what: str, answer: Answer) -> str | None:
    """Return the difference that a declare of `what` met; None without one. Raises QueueError for another error."""
    if isinstance(answer, ChannelPreconditionFailed):
        return _explain_difference(what, answer)
    if isinstance(answer, ChannelClosed):
        text = str(answer.args[0]) if answer.args else str(answer)
        remedy = "give the user these permissions, or declare by another and set queue.topology: verify"
        raise QueueError(f"{text}; {remedy}") from answer
    return None


def _explain_difference(what: str, failed: ChannelPreconditionFailed) -> str:
    """Return the difference in the broker's error ("inequivalent arg …") as a sentence about `what`."""
    text = str(failed.args[0]) if failed.args else ""
    argument, _, values = text.partition("inequivalent arg '")[2].partition("' for ")
    wanted, current, actual = values.partition("received ")[2].partition(" but current is ")
    if not current:
        return f"{what}: {text}"
    return f"{what}: argument {argument} is {_strip_quotes(actual)}, but should be {_strip_quotes(wanted)}"


def _strip_quotes(value: str) -> str:
    """Return the value without the broker's `the value … of type …`, used if the other value is missing."""
    value = value.strip()
    return value.removeprefix("the value ").rpartition(" of type ")[0] if value.startswith("the value ") else value
