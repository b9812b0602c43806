"""Examines the broker for the doctor, and leaves nothing behind.

It tests permissions on an exclusive queue under our prefix and on the name of a missing queue. Temporary queues show
how messages expire and which policies apply. So it reads, moves and counts no message of a session. The broker reports
an alarm only to a publishing connection, so there is a second connection.
"""

import asyncio
import secrets
from contextlib import suppress

from aiormq.exceptions import ChannelAccessRefused, ChannelNotFoundEntity, DeliveryError

from notifier.model.errors import QueueError, QueueUnavailable
from notifier.queues.queue_state import BrokerState
from notifier.queues.rabbitmq import topology
from notifier.queues.rabbitmq.broker_trials import check_policies, keeps_expired
from notifier.queues.rabbitmq.connection import Connection, channel_of, connected, is_blocked, reason_of, underlay_of
from notifier.queues.rabbitmq.options import RabbitOptions
from notifier.queues.rabbitmq.source_bindings import check_bindings

CONFIRM_TIMEOUT_SECONDS = 15.0  # a broker with an alarm reports that it blocks, and confirms nothing
CHECK_INTERVAL_SECONDS = 0.05


async def examine_broker(options: RabbitOptions) -> BrokerState:
    """Return the state of the broker and our permissions. Raises QueueError if it refuses or cannot be reached.

    Publishing uses a separate connection, since the broker may block it.
    """
    name = f"{options.prefix}.doctor.{secrets.token_hex(4)}"
    async with connected(options, "doctor") as connection, connected(options, "doctor") as publishing:
        properties = underlay_of(connection).server_properties
        version = properties.get("version", "")
        may_configure = await _may_configure(connection, name)
        may_announce = await _may_configure(connection, f"{options.prefix}.worker.doctor.{secrets.token_hex(4)}")
        may_write, blocked = await _may_write(publishing, name)
        may_read = await _may_read(connection, name)
        try:
            states = await topology.survey(connection, topology.topology_of(options))
            bindings = await check_bindings(connection, options)
            keeps = policies = None
            if may_configure and may_write and may_read and not blocked:
                keeps = await keeps_expired(publishing, options.prefix)
                policies = await check_policies(options, name)
        except ChannelAccessRefused as refused:
            raise QueueError(reason_of(refused)) from refused
    return BrokerState(
        prefix=options.prefix,
        declares=options.topology == "declare",
        version=version if isinstance(version, str) else "",
        may_configure=may_configure,
        may_announce=may_announce,
        may_write=may_write,
        may_read=may_read,
        blocked=blocked,
        missing=tuple(f"{state.what} {state.name}" for state in states if state.missing),
        different=tuple(state.difference for state in states if state.difference is not None),
        bindings=bindings,
        keeps_expired=keeps,
        policies=policies,
    )


async def _may_configure(connection: Connection, name: str) -> bool:
    """Return True if we may declare queues of our prefix. Leaves an exclusive queue of this name."""
    async with channel_of(connection) as channel:
        try:
            await channel.queue_declare(name, exclusive=True, auto_delete=True)
        except ChannelAccessRefused:
            return False
        return True


async def _may_write(connection: Connection, name: str) -> tuple[bool, bool]:
    """Return whether we may publish to the default exchange, as our messages do, and whether an alarm blocks us."""
    async with channel_of(connection, confirms=True) as channel:
        for _ in range(2):  # the broker may accept the first message before it reports that it blocks
            sending = asyncio.ensure_future(
                channel.basic_publish(b"", exchange="", routing_key=name, mandatory=True, wait=False)
            )
            try:
                async with asyncio.timeout(CONFIRM_TIMEOUT_SECONDS):
                    while not sending.done() and not is_blocked(connection):
                        await asyncio.wait({sending}, timeout=CHECK_INTERVAL_SECONDS)
                if sending.done():
                    sending.result()
            except ChannelAccessRefused:
                return False, False
            except TimeoutError:
                raise QueueUnavailable(f"the broker confirmed nothing within {CONFIRM_TIMEOUT_SECONDS:.0f} s") from None
            except DeliveryError:
                pass  # returned, since there is no such queue; but permitted
            finally:
                sending.cancel()
                await asyncio.wait({sending}, timeout=1.0)
        return True, is_blocked(connection)


async def _may_read(connection: Connection, name: str) -> bool:
    """Return True if we may read queues of our prefix."""
    async with channel_of(connection) as channel:
        try:
            with suppress(ChannelNotFoundEntity):  # the broker checks the permission first
                await channel.basic_get(name, no_ack=True)
        except ChannelAccessRefused:
            return False
        return True
