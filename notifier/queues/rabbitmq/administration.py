"""Declares, surveys and deletes the topology for operators, over a dedicated connection."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress

from aiormq.exceptions import ChannelLockedResource, ChannelNotFoundEntity

from notifier.model.message import DEAD, PARKED, SOURCE, BindingState, Depth, Lane
from notifier.queues.rabbitmq import topology
from notifier.queues.rabbitmq.broker_trials import require_kept_expired
from notifier.queues.rabbitmq.connection import (
    Connection,
    broker_request,
    channel_of,
    connected,
)
from notifier.queues.rabbitmq.dead_letters import lock_queue
from notifier.queues.rabbitmq.delays import DELAY_QUEUES
from notifier.queues.rabbitmq.options import RabbitOptions
from notifier.queues.rabbitmq.register import RabbitRegister
from notifier.queues.rabbitmq.request_pipeline import pipelined
from notifier.queues.rabbitmq.settling import Settling
from notifier.queues.rabbitmq.source_bindings import bind_all, check_bindings
from notifier.queues.rabbitmq.topology import TopologyState, find_queues

COUNTED_LANE = Lane.BULK  # its consumers are workers; elsewhere a worker may have several for a while


async def declare_topology(options: RabbitOptions, settling: Settling | None = None) -> tuple[BindingState, ...]:
    """Declare missing queues and exchanges, and bind the queues of sources. Return once new queues can be used.

    A refused binding is not an error: its state is returned. Raises TopologyMismatch, QueueError.
    """
    async with connected(options, "topology") as connection:
        trial = require_kept_expired(connection, options.prefix)
        if await topology.declare(connection, topology.topology_of(options), settling or Settling(), trial):
            await RabbitRegister(options, is_new=True).change(lambda document: document)  # the first one
        return await bind_all(connection, options)


async def survey_bindings(options: RabbitOptions) -> tuple[BindingState, ...]:
    """Return which bindings of sources could be created, and create none. Raises QueueError."""
    async with connected(options, "topology") as connection:
        return await check_bindings(connection, options)


async def survey_topology(options: RabbitOptions) -> tuple[TopologyState, ...]:
    """Return which queues and exchanges exist, are missing or differ. Raises QueueError."""
    async with connected(options, "topology") as connection:
        return await topology.survey(connection, topology.topology_of(options))


async def delete_topology(options: RabbitOptions) -> Mapping[str, int]:
    """Delete everything under the prefix. Return the number of ready messages per queue. Raises QueueError."""
    async with connected(options, "topology") as connection:
        return await topology.delete(connection, topology.topology_of(options))


async def count_consumers(connection: Connection, options: RabbitOptions) -> int:
    """Return the number of consumers of the lane that each worker consumes once. Raises QueueUnavailable."""
    depths = await read_depths(connection, {COUNTED_LANE: f"{options.prefix}.{COUNTED_LANE}"})
    return depths[COUNTED_LANE].consumers if COUNTED_LANE in depths else 0


class DepthReader:
    """Reads the depths of all queues of one process.

    The broker does not count dead letters that a pass holds, so their number before the pass counts. `dead_letters`:
    the last number without a pass. `dead_letters_held`: at the last reading, a pass of another connection held some.
    The broker is asked for a pass only if there are fewer than before: without one its answer is a channel error, which
    it logs.
    """

    def __init__(self, options: RabbitOptions) -> None:
        self._options = options
        self.dead_letters = 0
        self.dead_letters_held = False
        self._ready_before: float = math.inf  # dead letters, at the last reading without a pass

    async def read(self, connection: Connection, buckets: Sequence[str]) -> dict[str, Depth]:
        """Return the depth of each queue, by its name without prefix, and of all `buckets` together.

        Missing queues are omitted. Raises QueueUnavailable.
        """
        options = self._options
        sources = [f"{SOURCE}{name}" for name in options.sources]
        names = {name: f"{options.prefix}.{name}" for name in (*Lane, *sources, DEAD, *DELAY_QUEUES, *buckets)}
        depths = await read_depths(connection, names)
        parked = [depth.ready for name in buckets if (depth := depths.pop(name, None)) is not None]
        if parked:
            depths[PARKED] = Depth(ready=sum(parked), consumers=0)
        if (dead := depths.get(DEAD)) is not None:
            self.dead_letters_held = dead.ready < self._ready_before and await _is_locked(connection, options)
            if not self.dead_letters_held:
                self.dead_letters = self._ready_before = dead.ready
            depths[DEAD] = Depth(ready=max(dead.ready, self.dead_letters), consumers=dead.consumers)
        return depths


async def _is_locked(connection: Connection, options: RabbitOptions) -> bool:
    """Return True if another connection passes over the dead letters. Raises QueueUnavailable."""
    async with channel_of(connection) as channel, broker_request("cannot ask the broker"):
        try:
            with suppress(ChannelNotFoundEntity):
                await channel.queue_declare(lock_queue(options, DEAD), passive=True)
        except ChannelLockedResource:
            return True
        return False


async def read_depths(connection: Connection, names: Mapping[str, str]) -> dict[str, Depth]:
    """Return the depths of these queues (full names), by the keys of `names`, without missing queues.

    Raises QueueUnavailable.
    """
    async with broker_request("cannot ask the broker"), pipelined(connection) as pipeline:
        found = await find_queues(pipeline, names.values())
    return {
        key: Depth(ready=queue.message_count or 0, consumers=queue.consumer_count or 0)
        for key, queue in zip(names, found, strict=True)
        if queue is not None
    }
