"""Broker policies that change declared queues: found by a queue's behaviour. A bucket that refuses by one recovers."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

import aiohttp
import pytest

from notifier.model.errors import OneQueueUnavailable, QueueUnavailable
from notifier.model.message import DEAD, PolicyKey
from notifier.queues.queue_port import Queue
from notifier.queues.rabbitmq import queue_window, register
from notifier.queues.rabbitmq.broker_trials import TRIAL_QUEUE_ARGUMENTS, try_policies
from notifier.queues.rabbitmq.connection import channel_of, connected
from notifier.queues.rabbitmq.examination import examine_broker
from notifier.queues.rabbitmq.register import RabbitRegister
from tests.contract.broker import OpenWorker, emptied
from tests.contract.queues import PATIENCE, Inbox, delay_until_durable, outgoing
from tests.contract.test_register import pause, paused
from tests.support.rabbit_options import rabbit_options
from tests.support.rabbitmq_node import RabbitmqNode, rabbitmq_node
from tests.system.waiting import until

pytestmark = pytest.mark.full  # a policy is tried for some seconds; tests/system has the way of one

Policy = Callable[..., AbstractAsyncContextManager[None]]


@pytest.fixture(scope="module")
def module_node() -> Iterator[RabbitmqNode]:
    """A node of this module, with a management API."""
    with rabbitmq_node(plugins=["rabbitmq_management"]) as node:
        yield node


Administrate = Callable[..., Awaitable[None]]


@pytest.fixture
async def administrate(module_node: RabbitmqNode) -> AsyncIterator[Administrate]:
    """`administrate(method, path, json)` calls the management API; `rabbitmqctl` would take a second of both cores."""

    async def administrate(method: str, path: str, json: object = None) -> None:
        async with session.request(method, f"{module_node.management}/api/{path}", json=json) as answer:
            assert answer.status < 300, await answer.text()

    headers = {"Authorization": aiohttp.encode_basic_auth("guest", "guest")}
    async with aiohttp.ClientSession(headers=headers) as session:
        yield administrate


@pytest.fixture
def amqp_url(module_node: RabbitmqNode) -> str:
    """Return the URL of the node."""
    return module_node.url


@pytest.fixture
def prefix(amqp_url: str) -> str:
    """The only one there."""
    return emptied(amqp_url, "notifier")


@pytest.fixture
def policy(administrate: Administrate) -> Policy:
    """`policy({"message-ttl": 500})` has the node apply one to our queues while it is entered."""

    @asynccontextmanager
    async def policy(definition: Any, pattern: str = "^notifier", kind: str = "policies") -> AsyncIterator[None]:
        path = f"{kind}/%2F/of-theirs"
        await administrate("PUT", path, {"apply-to": "queues", "pattern": pattern, "definition": definition})
        try:
            yield
        finally:
            await administrate("DELETE", path)

    return policy


@pytest.mark.parametrize(
    ("definition", "kind", "shown"),
    [
        ({"overflow": "drop-head"}, "policies", {PolicyKey.OVERFLOW}),
        ({"max-length": 20}, "operator-policies", {PolicyKey.MAX_LENGTH}),
        ({"max-length-bytes": 20_000}, "operator-policies", {PolicyKey.MAX_LENGTH}),
        ({"message-ttl": 1000}, "operator-policies", {PolicyKey.MESSAGE_TTL}),
        ({"delivery-limit": 20}, "policies", {PolicyKey.DELIVERY_LIMIT}),
        ({"overflow": "drop-head", "max-length": 20}, "policies", {PolicyKey.OVERFLOW, PolicyKey.MAX_LENGTH}),
    ],
)
async def test_the_doctor_finds_it_by_temporary_queues(
    amqp_url: str, prefix: str, policy: Policy, definition: Any, kind: str, shown: set[PolicyKey]
) -> None:
    """Within 10 s, whoever set it. No flag of the broker is blamed for it."""
    async with policy(definition, kind=kind), asyncio.timeout(10):
        state = await examine_broker(rabbit_options(amqp_url, prefix))
    assert isinstance(state.policies, tuple)
    assert set(state.policies) == shown
    assert state.keeps_expired


async def test_policy_for_the_queue_of_the_pauses_is_found(amqp_url: str, prefix: str, policy: Policy) -> None:
    """A temporary queue has the same end of its name."""
    async with policy({"delivery-limit": 20}, pattern=r"\.pauses$"):
        state = await examine_broker(rabbit_options(amqp_url, prefix))
    assert state.policies == (PolicyKey.DELIVERY_LIMIT,)


async def test_broker_without_policies_keeps_no_temporary_queue(
    amqp_url: str, prefix: str, module_node: RabbitmqNode
) -> None:
    assert (await examine_broker(rabbit_options(amqp_url, prefix))).policies == ()
    assert ".doctor." not in await asyncio.to_thread(module_node.ctl, "list_queues", "name")


async def test_queues_of_an_interrupted_trial_are_not_a_policy(amqp_url: str, prefix: str) -> None:
    """An interrupted trial leaves its queues. The next deletes them, since their expiry would look like a policy."""
    name = f"{prefix}.doctor.left"
    async with connected(rabbit_options(amqp_url, prefix), "test") as connection:
        async with channel_of(connection, confirms=True) as channel:
            for part in ("full", "pauses"):
                await channel.queue_declare(
                    f"{name}.{part}", durable=True, arguments={**TRIAL_QUEUE_ARGUMENTS, "x-expires": 5_000}
                )
        assert await try_policies(connection, name) == ()


async def test_bucket_that_refuses_by_a_policy_recovers_with_it(
    worker: OpenWorker, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile the status names it, the worker is ready, and other queues take messages.

    RabbitMQ 3.10 goes on to refuse the messages of a channel.
    """
    monkeypatch.setattr(queue_window, "LONG_REFUSAL_SECONDS", 0.5)
    queue = await worker()
    refusing, other = sorted(queue.inherited_buckets(at_start=True))[:2]
    async with policy({"max-length": 1, "overflow": "reject-publish"}, pattern=refusing):
        while not isinstance(await _refusal(queue, refusing), OneQueueUnavailable):
            await queue.wait_until_available()
        problem = f"the broker refuses (nack) messages for notifier.{refusing}: "
        status = queue.status()
        assert (status.problem or "").startswith(problem)
        assert (status.problem or "").endswith("notifier explain NotifierQueueRefuses")
        assert (status.connected, status.refusing) == (True, 1)
        await _park(queue, other)
        await queue.publish(DEAD, outgoing("a"))
    async with asyncio.timeout(10):
        while queue.status().problem is not None:
            with suppress(QueueUnavailable):
                await _park(queue, refusing)
            await queue.wait_until_available()
    for _ in range(20):
        await _park(queue, refusing)


async def test_messages_of_a_full_delay_queue_wait_as_long_in_others(worker: OpenWorker, policy: Policy) -> None:
    """Most are refused, though it takes some. Each returns once, when it is due. A neighbour is full, too."""
    inbox, ids = Inbox(), list[str]()
    queue = await worker(inbox)

    async def delay() -> None:
        ids.append(f"d-{len(ids):05}")
        await delay_until_durable(queue, 8, ids[-1])

    async def depth(name: str) -> int:
        return (await queue.depths())[name].ready

    async with policy({"max-length": 5, "overflow": "reject-publish"}, pattern=r"^notifier\.delay\.[48]s$"):
        while not await depth("delay.1s"):
            await delay()
        began_at = time.monotonic()
        await asyncio.gather(*(delay() for _ in range(400)))
        waits = dict[str | None, float]()
        while len(waits) < len(ids):
            message = await inbox.next()
            waits[message.message_id] = time.monotonic() - began_at
            queue.ack(message)
    assert sorted(map(str, waits)) == ids
    assert min(waits[id_] for id_ in ids[-400:]) > 6.9  # a hop is left out if less than a second remains
    assert inbox.empty()


async def _park(queue: Queue, bucket: str) -> None:
    await queue.park(bucket, outgoing(str(time.monotonic())), until=0)


async def _refusal(queue: Queue, bucket: str) -> QueueUnavailable:
    """Park until the broker refuses that: a policy needs a moment to take effect. Return the refusal."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await _park(queue, bucket)
            except QueueUnavailable as refused:
                return refused


@pytest.mark.parametrize("definition", [{"max-length": 0}])
async def test_pauses_survive_a_policy_that_drops_them(
    amqp_url: str, prefix: str, policy: Policy, definition: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that has read them keeps them in force meanwhile, and writes them back for others afterwards."""
    monkeypatch.setattr(register, "HELD_SECONDS", 1.0)

    async def read_by_another() -> set[str]:
        other = RabbitRegister(rabbit_options(amqp_url, prefix), lambda: None)
        read = paused(await other.read())
        await other.close()
        return read

    worker = RabbitRegister(rabbit_options(amqp_url, prefix), lambda: None)
    await pause(worker, "shop")
    async with policy(definition, pattern=r"\.pauses$"):
        await until(read_by_another, lambda read: not read)
        await pause(worker, "crm")
        assert paused(await worker.read()) == {"shop", "crm"}
    assert paused(await worker.read()) == {"shop", "crm"}
    assert await read_by_another() == {"shop", "crm"}
    await worker.close()
