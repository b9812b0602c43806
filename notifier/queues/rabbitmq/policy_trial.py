"""Tests with temporary queues whether a policy overrides the arguments of our queues.

AMQP reports no policy: neither a declare nor a message shows one. But a policy that matches our prefix (`.*`,
`^notifier`) also matches a temporary queue of ours, and changes its behaviour. Tried on 3.10.8 and 4.0.5:

| policy | effect on the temporary queue |
|---|---|
| `overflow` | a full queue accepts more, though declared to refuse. Then the broker dead-letters at most once |
| `max-length`, `max-length-bytes` | the queue refuses or drops some of `MESSAGES`, which have `SIZE` bytes each |
| `message-ttl` | some of them are gone within `WATCH` |
| `delivery-limit` | a message that was returned `LOOKS` times is gone |
| larger ones than these, `expires`, or for one queue alone | none: see `policy_watch` |
"""

import asyncio

import aiormq
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import DeliveryError
from pamqp import commands

from notifier.model.errors import QueueUnavailable
from notifier.model.message import PolicyKey, PolicyOverride
from notifier.queues.rabbitmq.connection import Connection, bounded, channel_of

TRIES = 8  # the second or third message is refused
MESSAGES, SIZE = 100, 1024  # 100 KiB in all
WATCH = 3.0  # seconds
PACE = 0.05
LOOKS = 20  # the delivery limit that 4.x sets by default
WITHIN = 20.0  # a broker that answers in 200 ms takes 12
ARGUMENTS: dict[str, str | int] = {
    "x-queue-type": "quorum",
    "x-overflow": "reject-publish",
    "x-delivery-limit": 2**31 - 1,
    "x-expires": 60_000,  # in case it is not deleted
}


async def try_policies(connection: Connection, name: str) -> tuple[PolicyOverride, ...]:
    """Return the policies that affect two temporary queues, named after `name`. Takes `WATCH`, and leaves nothing.

    Queues of an interrupted test are deleted first: if they expired during this test, that would look like a policy.

    Needs all permissions on the name. Raises what aiormq does, TimeoutError and QueueUnavailable.
    """
    async with channel_of(connection, confirms=True) as channel, bounded(WITHIN):
        for left in (f"{name}.full", f"{name}.room"):
            await channel.queue_delete(left)
        overflow = not await refuses_when_full(channel, f"{name}.full")
        keys = await _keys_shown(channel, f"{name}.room")
    if overflow:
        keys = (PolicyKey.OVERFLOW, *keys)
    return tuple(PolicyOverride(key=key) for key in keys)


async def refuses_when_full(channel: aiormq.Channel, name: str) -> bool:
    """Return True if a queue that was declared to refuse messages when full does so."""
    await channel.queue_declare(name, durable=True, arguments={**ARGUMENTS, "x-max-length": 1})
    refused = any([not await _takes(channel, name, b"") for _ in range(TRIES)])
    await channel.queue_delete(name)
    return refused


async def _keys_shown(channel: aiormq.Channel, name: str) -> tuple[PolicyKey, ...]:
    """Return the policies that affect messages that should stay."""
    await channel.queue_declare(name, durable=True, arguments=dict(ARGUMENTS))
    accepted = await asyncio.gather(*(_takes(channel, name, b"." * SIZE) for _ in range(MESSAGES)))
    accepted += [await _takes(channel, name, b"") for _ in range(TRIES)]  # a full queue refuses a moment later
    shown: tuple[PolicyKey, ...] = ()
    if not all(accepted) or await _ready(channel, name) < MESSAGES:
        shown = (PolicyKey.MAX_LENGTH,)
    elif await _lose_some(channel, name):
        shown = (PolicyKey.MESSAGE_TTL,)
    elif await _wears_out(channel, name):
        shown = (PolicyKey.DELIVERY_LIMIT,)
    await channel.queue_delete(name)
    return shown


async def _lose_some(channel: aiormq.Channel, name: str) -> bool:
    loop = asyncio.get_running_loop()
    until = loop.time() + WATCH
    while loop.time() < until:
        if await _ready(channel, name) < MESSAGES:
            return True
        await asyncio.sleep(PACE)
    return False


async def _wears_out(channel: aiormq.Channel, name: str) -> bool:
    """Return whether the first message is dropped after a few returns. Its count identifies the message."""
    for given_back in range(LOOKS + 2):
        got = await channel.basic_get(name)
        if got.delivery_tag is None or _count(got) < given_back:
            return True
        await channel.basic_nack(got.delivery_tag, requeue=True)
    return False


def _count(got: DeliveredMessage) -> int:
    count = (got.header.properties.headers or {}).get("x-delivery-count")
    return count if isinstance(count, int) else 0


async def _takes(channel: aiormq.Channel, name: str, body: bytes) -> bool:
    """Return whether the queue accepts one more message. Raises QueueUnavailable without the broker's answer."""
    try:
        confirmed = await channel.basic_publish(body, routing_key=name, mandatory=True)
    except DeliveryError:
        return False
    if not isinstance(confirmed, commands.Basic.Ack):
        raise QueueUnavailable("the broker confirmed nothing")
    return True


async def _ready(channel: aiormq.Channel, name: str) -> int:
    return (await channel.queue_declare(name, passive=True)).message_count or 0
