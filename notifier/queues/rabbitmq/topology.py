"""Lists the queues and exchanges that notifier needs; declares, verifies, surveys and deletes them.

Every queue is a durable quorum queue with at-least-once dead-lettering. The delivery limit is always set and finite: a
missing limit means 20 on RabbitMQ 4.x, and -1 means "drop at the first requeue" on 3.10.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import aiormq
from aiormq.exceptions import ChannelAccessRefused, ChannelClosed, ChannelNotFoundEntity, ChannelPreconditionFailed
from pamqp import commands

from notifier.model.errors import QueueError, TopologyMismatch
from notifier.model.message import DEAD, DELIVERY_LIMIT, SOURCE, Lane
from notifier.queues.rabbitmq.buckets import abridge_buckets, bucket_names
from notifier.queues.rabbitmq.connection import Connection, close_channel, open_channel
from notifier.queues.rabbitmq.delays import DELAY_QUEUES
from notifier.queues.rabbitmq.options import RabbitOptions
from notifier.queues.rabbitmq.settling import Settling

UNLIMITED_DELIVERIES = 2**31 - 1  # passes must never exhaust a dead letter's limit
OUTCOMES_EXCHANGE = "outcomes"
COLLECTED_QUEUE = "collected"  # declared by older releases; no release fills or reads it now


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSpec:
    """A queue: its full name and arguments."""

    name: str
    arguments: Mapping[str, str | int]


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
    """All queues and exchanges under one prefix."""

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
    return Topology(
        queues=(dead, *lanes, *delays),
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


class _Surveyor:
    """Queries and declares one queue or exchange at a time. The broker closes the channel at each difference."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._channel: aiormq.Channel | None = None

    async def channel(self) -> aiormq.Channel:
        if self._channel is None or self._channel.is_closed:
            self._channel = await open_channel(self._connection)
        return self._channel

    async def find_queue(self, name: str) -> commands.Queue.DeclareOk | None:
        try:
            return await (await self.channel()).queue_declare(name, passive=True)
        except ChannelNotFoundEntity:
            return None

    async def find_exchange(self, name: str) -> bool:
        try:
            await (await self.channel()).exchange_declare(name, exchange_type="topic", passive=True)
        except ChannelNotFoundEntity:
            return False
        return True

    async def declare_queue(self, queue: QueueSpec, *, allowed_to_be_refused: bool = False) -> str | None:
        """Return the difference to the existing queue; None if there is none, or if a refusal is allowed and occurs."""
        try:
            await (await self.channel()).queue_declare(queue.name, durable=True, arguments=dict(queue.arguments))
        except ChannelPreconditionFailed as failed:
            return _explain_difference(f"queue {queue.name}", failed)
        except ChannelAccessRefused as refused:
            if not allowed_to_be_refused:
                raise _to_refusal(refused) from refused
        return None

    async def declare_exchange(self, exchange: ExchangeSpec) -> str | None:
        """Return the difference to the existing exchange, None if there is none."""
        try:
            await (await self.channel()).exchange_declare(exchange.name, exchange_type="topic", durable=True)
            if exchange.queue is not None:
                await (await self.channel()).queue_bind(exchange.queue, exchange.name, routing_key="#")
        except ChannelPreconditionFailed as failed:
            return _explain_difference(f"exchange {exchange.name}", failed)
        except ChannelNotFoundEntity:
            pass  # its queue could not be declared, which is already reported
        except ChannelAccessRefused as refused:
            raise _to_refusal(refused) from refused
        return None

    async def leave(self) -> None:
        if self._channel is not None:
            await close_channel(self._channel)


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


async def declare(connection: Connection, topology: Topology, settling: Settling) -> None:
    """Declare missing queues and exchanges, and change nothing else. Return once new queues can be used.

    Raises TopologyMismatch, or QueueError if not allowed.
    """
    surveyor = _Surveyor(connection)
    different: list[str | None] = []
    for queue in topology.queues:
        if await surveyor.find_queue(queue.name) is None:
            settling.on_missing(queue.name)
        different.append(await surveyor.declare_queue(queue))
        settling.on_declared(queue.name)
    if not all([await surveyor.find_exchange(exchange.name) for exchange in topology.exchanges]):
        # Another worker may have just created the queues, and also wait for them.
        for queue in topology.queues:
            settling.on_missing(queue.name)
            settling.on_declared(queue.name)
    # The exchanges come last, so that publishers cannot reach a queue that is too new.
    await settling.wait_until_usable()
    different += [await surveyor.declare_exchange(exchange) for exchange in topology.exchanges]
    await surveyor.leave()
    _require_match((), different)


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


async def verify(connection: Connection, topology: Topology) -> None:
    """Check that nothing is missing or different. Arguments are compared only if we may configure queues.

    Raises TopologyMismatch with all differences.
    """
    states = await survey(connection, topology)
    missing = [f"{state.what} {state.name}" for state in states if state.missing]
    _require_match(missing, [state.difference for state in states])


async def survey(connection: Connection, topology: Topology) -> tuple[TopologyState, ...]:
    """Return the state of every queue and exchange. Arguments are compared only if we may configure queues."""
    surveyor = _Surveyor(connection)
    states: list[TopologyState] = []
    for queue in topology.queues:
        name, arguments, declared = queue.name, queue.arguments, await surveyor.find_queue(queue.name)
        if declared is None:
            states.append(TopologyState(what="queue", name=name, arguments=arguments, missing=True))
            continue
        # A passive declare compares nothing; a full declare of an existing queue changes nothing.
        difference = await surveyor.declare_queue(queue, allowed_to_be_refused=True)
        state = TopologyState(
            what="queue", name=name, arguments=arguments, difference=difference,
            ready=declared.message_count or 0, consumers=declared.consumer_count or 0,
        )  # fmt: skip
        states.append(state)
    for exchange in topology.exchanges:
        missing = not await surveyor.find_exchange(exchange.name)
        states.append(TopologyState(what="exchange", name=exchange.name, missing=missing))
    await surveyor.leave()
    return tuple(states)


async def delete(connection: Connection, topology: Topology) -> Mapping[str, int]:
    """Delete everything. Return the number of ready messages per queue. A missing queue is not an error."""
    lost: dict[str, int] = {}
    surveyor = _Surveyor(connection)
    # Never `if-empty`: on quorum queues it closes the whole connection.
    # Queues that dead-letter into others are deleted first, so that no message goes to a deleted queue.
    for queue in reversed(topology.queues):
        try:
            deleted = await (await surveyor.channel()).queue_delete(queue.name)
            lost[queue.name] = deleted.message_count or 0
        except ChannelNotFoundEntity:
            continue
        except ChannelClosed as refused:
            raise _to_refusal(refused) from refused
    for exchange in topology.exchanges:
        try:
            if exchange.collected is not None:
                await (await surveyor.channel()).queue_delete(exchange.collected)
            await (await surveyor.channel()).exchange_delete(exchange.name)
        except ChannelNotFoundEntity:
            continue
    await surveyor.leave()
    return lost


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


def _to_refusal(refused: ChannelClosed) -> QueueError:
    text = str(refused.args[0]) if refused.args else str(refused)
    return QueueError(f"{text}; give the user these permissions, or declare by another and set queue.topology: verify")
