"""Tests with temporary queues whether the broker keeps expired messages, and whether policies change our queues.

The delay queues require that an expired message stays until its next queue has it. RabbitMQ 3.10 and 3.11 do so only
with the feature flag `stream_queue`. Without it they accept the arguments of at-least-once dead-lettering, but drop
messages that expire while `retries` is missing or full. AMQP does not report flags, so a temporary queue is tested:
messages kept after their expiry count towards the queue's maximum length. From 3.12 on the flag is always on.

AMQP reports no policy: neither a declare nor a message shows one. But a policy that matches our prefix (`.*`,
`^notifier`) also matches our temporary queues, and changes their behaviour. Tested on 3.10.8 and 4.0.5:

| policy | effect on the temporary queue |
|---|---|
| `overflow` | a full queue accepts more, though declared to refuse; then the broker dead-letters at most once |
| `max-length`, `max-length-bytes` | the queue refuses or drops some of `MESSAGE_COUNT` messages |
| `message-ttl` | some of them are gone within `WATCH_SECONDS` |
| `delivery-limit` | a message is gone within `DEFAULT_DELIVERY_LIMIT` + 1 returns |
| larger limits, `expires`, or a policy for one queue only | none |

One temporary queue has a name that ends with `.pauses`, since the loss of the single message there ends all pauses. If
another policy takes that message, the register reports it (`pauses_restored`).

Only a process that may declare queues can test policies: with `topology: verify` only the doctor. A worker tests them
during its start, which does not wait for the result.
"""

import asyncio
import secrets

import aiormq
import structlog
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import ChannelAccessRefused, DeliveryError
from pamqp import commands

from notifier.model.errors import QueueError, QueueUnavailable
from notifier.model.message import PolicyKey
from notifier.queues.queue_state import parse_release
from notifier.queues.rabbitmq.connection import (
    CONNECTION_ERRORS,
    Connection,
    broker_timeout,
    channel_of,
    connected,
    is_cancelled,
    reason_of,
    underlay_of,
)
from notifier.queues.rabbitmq.options import RabbitOptions

MAX_PUBLISHES = 8  # the second or third message is refused
MESSAGE_COUNT, MESSAGE_BYTES = 100, 1024  # 100 KiB in all
WATCH_SECONDS = 3.0
CHECK_INTERVAL_SECONDS = 0.05
DEFAULT_DELIVERY_LIMIT = 20  # the delivery limit that 4.x sets by default
REPEAT_INTERVAL_SECONDS = 600.0  # detects that an operator removes a policy
FAILED_INTERVAL_SECONDS = 60.0  # after a test without a result
HELP = "notifier explain NotifierQueuePolicy"
TRIAL_TIMEOUT_SECONDS = 20.0  # a broker that answers in 200 ms needs 12 s
TRIAL_QUEUE_ARGUMENTS: dict[str, str | int] = {
    "x-queue-type": "quorum",
    "x-overflow": "reject-publish",
    "x-delivery-limit": 2**31 - 1,
    "x-expires": 60_000,  # if the deletion fails
}
FLAG_REQUIRED_FROM = (3, 12)  # from this version on, the broker requires the flag
EXPIRY_CHECK_SECONDS = 0.01
EXPIRY_TIMEOUT_SECONDS = 5.0
EXPIRY_QUEUE_ARGUMENTS = TRIAL_QUEUE_ARGUMENTS | {
    "x-dead-letter-exchange": "",
    "x-dead-letter-strategy": "at-least-once",
    "x-message-ttl": 1,
    "x-max-length": 1,
}


async def require_kept_expired(connection: Connection, prefix: str) -> None:
    """Raise QueueError with the remedy if the broker drops expired messages, or refuses the test.

    It publishes on the connection, which an alarm then blocks. Raises QueueUnavailable if the test is impossible now.
    """
    try:
        kept = await keeps_expired(connection, prefix)
    except ChannelAccessRefused as refused:
        text = "give the user these permissions, or declare by another and set queue.topology: verify"
        raise QueueError(f"{reason_of(refused)}; {text}") from refused
    except CONNECTION_ERRORS as error:
        raise QueueUnavailable(reason_of(error)) from error
    if not kept:
        raise QueueError(
            "the broker drops messages that expire while their next queue is missing or full: its feature flag"
            " stream_queue is off; run `rabbitmqctl enable_feature_flag stream_queue` on one of its nodes; it takes"
            " effect at once"
        )


async def keeps_expired(connection: Connection, prefix: str) -> bool:
    """Return True if the broker keeps an expired message until it is moved. Needs all permissions on the prefix.

    Raises aiormq's errors (ChannelAccessRefused without these permissions), TimeoutError and QueueUnavailable.
    """
    if _has_permanent_flag(connection):
        return True
    async with channel_of(connection, confirms=True) as channel, broker_timeout(EXPIRY_TIMEOUT_SECONDS):
        name = f"{prefix}.doctor.{secrets.token_hex(4)}"
        await channel.queue_declare(
            name, durable=True, arguments={**EXPIRY_QUEUE_ARGUMENTS, "x-dead-letter-routing-key": f"{name}.none"}
        )
        kept = await _is_filled_by_expired(channel, name)
        await channel.queue_delete(name, nowait=True)
        # A policy `overflow: drop-head` has the same effect; it is reported as a policy.
        return kept or not await refuses_when_full(channel, f"{name}.full")


def _has_permanent_flag(connection: Connection) -> bool:
    return parse_release(str(underlay_of(connection).server_properties.get("version", ""))) >= FLAG_REQUIRED_FROM


async def _is_filled_by_expired(channel: aiormq.Channel, name: str) -> bool:
    """Return True if expired messages fill the queue, which has a maximum length.

    Each message is published after the expiry of the last one, so no unexpired message counts.
    """
    for _ in range(MAX_PUBLISHES):
        if not await _accepts(channel, name, b""):
            return True
        while await _count_ready(channel, name):  # noqa: ASYNC110  there is no event
            await asyncio.sleep(EXPIRY_CHECK_SECONDS)
    return False


class PolicyWatch:
    """Tests for policies when a worker starts consuming, and repeatedly while there is one.

    Each new name of a queue stays in the broker's memory permanently, so a process uses the same names.
    """

    def __init__(self, options: RabbitOptions) -> None:
        self._options = options
        self._name = f"{options.prefix}.doctor.{secrets.token_hex(4)}"
        self._wanted = asyncio.Event()
        self._due: float | None = 0.0 if options.topology == "declare" else None  # in the loop's time; None: never
        self._fault = ""
        self._log = structlog.get_logger(__name__)
        self.overrides: tuple[PolicyKey, ...] = ()

    def begin(self) -> None:
        """Start the tests."""
        self._wanted.set()

    async def run(self) -> None:
        """Test once, and again while a policy is found, until cancelled. A test without a result ends no override."""
        await self._wanted.wait()
        loop = asyncio.get_running_loop()
        while self._due is not None and not is_cancelled():
            await asyncio.sleep(max(0.0, self._due - loop.time()))
            found = await check_policies(self._options, self._name)
            if isinstance(found, str):
                if found != self._fault:
                    self._log.info("queue_policies_unread", reason=found)
                self._fault, self._due = found, loop.time() + FAILED_INTERVAL_SECONDS
            else:
                self._log_changes(found)
                self._fault = ""
                self._due = loop.time() + REPEAT_INTERVAL_SECONDS if found else None

    def _log_changes(self, found: tuple[PolicyKey, ...]) -> None:
        for key in found:
            if key not in self.overrides:
                self._log.warning("queue_policy", reason=key.text, help=HELP)
        if self.overrides and not found:
            self._log.info("queue_policy_gone")
        self.overrides = found


async def check_policies(options: RabbitOptions, name: str) -> tuple[PolicyKey, ...] | str:
    """Return the policies that affect temporary queues, named after `name`, or why they cannot be tested."""
    try:
        async with connected(options, "policies") as connection:
            return await try_policies(connection, name)
    except (QueueError, *CONNECTION_ERRORS) as error:
        return f"no temporary queue can be tried: {reason_of(error)}"


async def try_policies(connection: Connection, name: str) -> tuple[PolicyKey, ...]:
    """Return the policies that affect two temporary queues, named after `name`, and delete these queues.

    Queues of an interrupted test are deleted first, since their expiry during this test would look like a policy.

    Needs all permissions on the name. Raises aiormq's errors, TimeoutError and QueueUnavailable.
    """
    async with channel_of(connection, confirms=True) as channel, broker_timeout(TRIAL_TIMEOUT_SECONDS):
        for left in (f"{name}.full", f"{name}.pauses"):
            await channel.queue_delete(left)
        overflow = not await refuses_when_full(channel, f"{name}.full")
        keys = await _find_effective_keys(channel, f"{name}.pauses")
    return (PolicyKey.OVERFLOW, *keys) if overflow else keys


async def refuses_when_full(channel: aiormq.Channel, name: str) -> bool:
    """Return True if a queue that is declared to refuse messages when full does so."""
    await channel.queue_declare(name, durable=True, arguments={**TRIAL_QUEUE_ARGUMENTS, "x-max-length": 1})
    refused = any([not await _accepts(channel, name, b"") for _ in range(MAX_PUBLISHES)])
    await channel.queue_delete(name)
    return refused


async def _find_effective_keys(channel: aiormq.Channel, name: str) -> tuple[PolicyKey, ...]:
    """Return the first policy found that affects messages which should stay; none if they stay."""
    await channel.queue_declare(name, durable=True, arguments=dict(TRIAL_QUEUE_ARGUMENTS))
    accepted = await asyncio.gather(*(_accepts(channel, name, b"." * MESSAGE_BYTES) for _ in range(MESSAGE_COUNT)))
    # A full queue refuses a moment later.
    accepted += [await _accepts(channel, name, b"") for _ in range(MAX_PUBLISHES)]
    shown: tuple[PolicyKey, ...] = ()
    if not all(accepted) or await _count_ready(channel, name) < MESSAGE_COUNT:
        shown = (PolicyKey.MAX_LENGTH,)
    elif await _loses_messages(channel, name):
        shown = (PolicyKey.MESSAGE_TTL,)
    elif await _drops_returned(channel, name):
        shown = (PolicyKey.DELIVERY_LIMIT,)
    await channel.queue_delete(name)
    return shown


async def _loses_messages(channel: aiormq.Channel, name: str) -> bool:
    loop = asyncio.get_running_loop()
    until = loop.time() + WATCH_SECONDS
    while loop.time() < until:
        if await _count_ready(channel, name) < MESSAGE_COUNT:
            return True
        await asyncio.sleep(CHECK_INTERVAL_SECONDS)
    return False


async def _drops_returned(channel: aiormq.Channel, name: str) -> bool:
    """Return whether the first message is dropped within `DEFAULT_DELIVERY_LIMIT` + 1 returns.

    A delivery count below the number of returns means that another message is first now.
    """
    for return_count in range(DEFAULT_DELIVERY_LIMIT + 2):
        got = await channel.basic_get(name)
        if got.delivery_tag is None or _read_delivery_count(got) < return_count:
            return True
        await channel.basic_nack(got.delivery_tag, requeue=True)
    return False


def _read_delivery_count(got: DeliveredMessage) -> int:
    count = (got.header.properties.headers or {}).get("x-delivery-count")
    return count if isinstance(count, int) else 0


async def _accepts(channel: aiormq.Channel, name: str, body: bytes) -> bool:
    """Return whether the queue accepts one more message. Raises QueueUnavailable if the broker does not answer."""
    try:
        confirmed = await channel.basic_publish(body, routing_key=name, mandatory=True)
    except DeliveryError:
        return False
    if not isinstance(confirmed, commands.Basic.Ack):
        raise QueueUnavailable("the broker confirmed nothing")
    return True


async def _count_ready(channel: aiormq.Channel, name: str) -> int:
    return (await channel.queue_declare(name, passive=True)).message_count or 0
