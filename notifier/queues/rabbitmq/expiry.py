"""Tests whether the broker keeps an expired message until its next queue has it, as the delay queues require.

RabbitMQ 3.10 and 3.11 do so only with the feature flag `stream_queue`. Without it they accept the arguments of
at-least-once dead-lettering, but drop messages that expire while `retries` is missing or full. AMQP does not report
flags, so a temporary queue is tested: messages kept after their expiry count towards the queue's maximum length. From
3.12 on the flag is always on.
"""

import asyncio
import secrets

import aiormq
from aiormq.exceptions import ChannelAccessRefused, DeliveryError
from pamqp import commands

from notifier.model.errors import QueueError, QueueUnavailable
from notifier.queues.queue_state import parse_release
from notifier.queues.rabbitmq.connection import (
    Connection,
    broker_timeout,
    channel_of,
    connected,
    reason_of,
    underlay_of,
)
from notifier.queues.rabbitmq.options import RabbitOptions
from notifier.queues.rabbitmq.policy_trial import refuses_when_full

FLAG_REQUIRED_FROM = (3, 12)  # from this version on, the broker requires the flag
MAX_PUBLISHES = 8  # with the flag the second or third message is refused
CHECK_INTERVAL_SECONDS = 0.01
TEST_TIMEOUT_SECONDS = 5.0
TEST_QUEUE_ARGUMENTS: dict[str, str | int] = {
    "x-queue-type": "quorum",
    "x-dead-letter-exchange": "",
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
    "x-message-ttl": 1,
    "x-max-length": 1,
    "x-expires": 60_000,  # if the deletion fails
}
DROPS_EXPIRED = (
    "drops messages that expire while their next queue is missing or full: its feature flag stream_queue is off"
)
REMEDY = "run `rabbitmqctl enable_feature_flag stream_queue` on one of its nodes; it takes effect at once"


async def require_kept_expired(connection: Connection, options: RabbitOptions) -> None:
    """Raise QueueError with the remedy if the broker drops expired messages, or refuses the test.

    It uses a dedicated connection, since an alarm blocks a connection that publishes. Raises QueueUnavailable if the
    test is impossible now.
    """
    if _has_permanent_flag(connection):
        return
    async with connected(options, "topology") as own:
        try:
            kept = await keeps_expired(own, options.prefix)
        except ChannelAccessRefused as refused:
            text = "give the user these permissions, or declare by another and set queue.topology: verify"
            raise QueueError(f"{reason_of(refused)}; {text}") from refused
    if not kept:
        raise QueueError(f"the broker {DROPS_EXPIRED}; {REMEDY}")


async def keeps_expired(connection: Connection, prefix: str) -> bool:
    """Return True if the broker keeps an expired message until it is moved. Needs all permissions on the prefix.

    Raises QueueUnavailable, and ChannelAccessRefused without these permissions.
    """
    if _has_permanent_flag(connection):
        return True
    async with channel_of(connection, confirms=True) as channel, broker_timeout(TEST_TIMEOUT_SECONDS):
        name = f"{prefix}.doctor.{secrets.token_hex(4)}"
        await channel.queue_declare(
            name, durable=True, arguments={**TEST_QUEUE_ARGUMENTS, "x-dead-letter-routing-key": f"{name}.none"}
        )
        kept = await _is_filled_by_expired(channel, name)
        await channel.queue_delete(name)
        # A policy `overflow: drop-head` has the same effect; it is reported as a policy.
        return kept or not await refuses_when_full(channel, f"{name}.full")


def _has_permanent_flag(connection: Connection) -> bool:
    return parse_release(str(underlay_of(connection).server_properties.get("version", ""))) >= FLAG_REQUIRED_FROM


async def _is_filled_by_expired(channel: aiormq.Channel, name: str) -> bool:
    """Return True if expired messages fill the queue, which has a maximum length.

    Each message is published after the expiry of the last one, so no unexpired message counts.
    """
    for _ in range(MAX_PUBLISHES):
        try:
            confirmed = await channel.basic_publish(b"", routing_key=name, mandatory=True)
        except DeliveryError:
            return True
        if not isinstance(confirmed, commands.Basic.Ack):
            raise QueueUnavailable("the broker confirmed nothing")
        while (await channel.queue_declare(name, passive=True)).message_count:  # noqa: ASYNC110  there is no event
            await asyncio.sleep(CHECK_INTERVAL_SECONDS)
    return False
