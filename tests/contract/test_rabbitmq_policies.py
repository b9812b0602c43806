"""Broker policies that change declared queues: found by a queue's behaviour or in the management API."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import aiohttp
import pytest

from notifier.model.errors import QueueUnavailable
from notifier.model.message import PolicyKey
from notifier.queues.queue_state import PolicyCheck
from notifier.queues.rabbitmq.connection import channel_of, connected
from notifier.queues.rabbitmq.examination import examine_broker
from notifier.queues.rabbitmq.policy_trial import TRIAL_QUEUE_ARGUMENTS, try_policies
from notifier.queues.rabbitmq.policy_watch import read_policies
from tests.contract.broker import OpenWorker, emptied
from tests.contract.queues import Inbox
from tests.support.rabbit_options import rabbit_options
from tests.support.rabbitmq_node import RabbitmqNode, rabbitmq_node
from tests.system.waiting import until

pytestmark = pytest.mark.full  # a policy is tried for some seconds; tests/system has the way of one

Policy = Callable[..., AbstractAsyncContextManager[None]]
RepairReport = Callable[[dict[tuple[str, str], set[str]]], Awaitable[None]]


@pytest.fixture(scope="module")
def module_node() -> Iterator[RabbitmqNode]:
    """A node of this module, with a management API."""
    with rabbitmq_node(plugins=["rabbitmq_management"]) as node:
        yield node


Administrate = Callable[..., Awaitable[None]]


@pytest.fixture
async def administrate(module_node: RabbitmqNode) -> AsyncIterator[Administrate]:
    """`administrate(method, path, json)` calls the management API; `rabbitmqctl` would take a second of both cores.

    It uses a dedicated account: that of `amqp_url` has only the tag that the service needs.
    """

    async def ask(name: str, method: str, path: str, json: object = None) -> None:
        headers = {"Authorization": aiohttp.encode_basic_auth(name, name)}
        async with session.request(
            method, f"{module_node.management}/api/{path}", json=json, headers=headers
        ) as answer:
            assert answer.status < 300, await answer.text()

    async def administrate(method: str, path: str, json: object = None) -> None:
        await ask("administrator", method, path, json)

    async with aiohttp.ClientSession() as session:
        with contextlib.suppress(AssertionError):  # made by an earlier test
            await ask("guest", "PUT", "users/administrator", {"password": "administrator", "tags": "administrator"})
        await administrate("PUT", "users/guest", {"password": "guest", "tags": "management"})
        yield administrate


@pytest.fixture
def amqp_url(module_node: RabbitmqNode) -> str:
    """Where it is."""
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


async def looked(url: str, prefix: str, management: str | None = None) -> PolicyCheck:
    """What the doctor sees."""
    return (await examine_broker(rabbit_options(url, prefix, management=management))).policies


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
    assert {each.key for each in state.policies.overrides} == shown
    assert state.keeps_expired


async def test_a_broker_without_policies_shows_none_and_keeps_no_temporary_queue(
    amqp_url: str, prefix: str, module_node: RabbitmqNode
) -> None:
    assert await looked(amqp_url, prefix) == PolicyCheck(by="trial")
    assert ".doctor." not in await asyncio.to_thread(module_node.ctl, "list_queues", "name")


@pytest.fixture
def told(amqp_url: str, prefix: str, module_node: RabbitmqNode) -> RepairReport:
    """Wait until the management API lists exactly these policies, some seconds after a change."""
    options = rabbit_options(amqp_url, prefix, management=module_node.management)

    async def read() -> dict[tuple[str, str], set[str]]:
        try:
            found = await read_policies(options)
        except QueueUnavailable as not_yet:
            return {("fault", str(not_yet)): set()}
        return {(each.key.value, each.value): {*each.queues} for each in found}

    async def told(wanted: dict[tuple[str, str], set[str]]) -> None:
        await until(read, lambda found: found == wanted)

    return told


async def test_the_management_api_tells_what_no_temporary_queue_shows(
    amqp_url: str, prefix: str, module_node: RabbitmqNode, policy: Policy, told: RepairReport
) -> None:
    """An hour, four weeks, a pattern of single queues: each with its value and the queues that it changes."""
    both = {f"{prefix}.bulk", f"{prefix}.dead"}
    async with policy({"message-ttl": 3_600_000, "expires": 2_419_200_000}, pattern="[.](bulk|dead)$"):
        await told({("message-ttl", "3600000"): both, ("expires", "2419200000"): both})
        look = await looked(amqp_url, prefix, module_node.management)
        assert (look.by, len(look.overrides), look.fault) == ("management", 2, "")
        assert await looked(amqp_url, prefix) == PolicyCheck(by="trial")


async def test_an_operators_policy_is_told_until_it_is_gone(policy: Policy, prefix: str, told: RepairReport) -> None:
    async with policy({"max-length": 100_000}, pattern="[.]dead$", kind="operator-policies"):
        await told({("max-length", "100000"): {f"{prefix}.dead"}})
    await told({})


async def test_what_a_policy_does_not_change_is_not_told(policy: Policy, prefix: str, told: RepairReport) -> None:
    """A limit above the queue's own, and what it asks for itself."""
    definition = {"message-ttl": 1500, "overflow": "reject-publish", "max-length": 9}
    async with policy(definition, pattern="[.]delay[.](1|2)s$"):
        first, second = f"{prefix}.delay.1s", f"{prefix}.delay.2s"
        await told({("message-ttl", "1500"): {second}, ("max-length", "9"): {first, second}})


async def test_who_may_not_use_the_management_api_is_told_what_to_do_and_tries(
    amqp_url: str, prefix: str, module_node: RabbitmqNode, administrate: Administrate, policy: Policy
) -> None:
    await administrate("PUT", "users/guest", {"password": "guest", "tags": ""})
    async with policy({"message-ttl": 1000}):
        look = await looked(amqp_url, prefix, module_node.management)
    assert (look.by, [each.key for each in look.overrides]) == ("trial", [PolicyKey.MESSAGE_TTL])
    assert "the tag `management`" in look.fault


async def test_a_worker_that_only_verifies_declares_nothing(
    prefix: str, module_node: RabbitmqNode, policy: Policy, told: RepairReport, worker: OpenWorker
) -> None:
    """It asks the management API if it is given one; else the doctor alone finds it."""
    async with policy({"overflow": "drop-head"}, pattern="[.]bulk$"):
        await told({("overflow", "drop-head"): {f"{prefix}.bulk"}})
        queue = await worker(Inbox(), topology="verify", management=module_node.management)

        async def overrides() -> list[PolicyKey]:
            return [each.key for each in queue.status().overrides]

        assert await until(overrides, bool, patience=10) == [PolicyKey.OVERFLOW]


async def test_what_a_trial_left_is_no_policy(amqp_url: str, prefix: str) -> None:
    """One that was cut off left its queues. They go before the next begins: else they expire in the middle of it."""
    name = f"{prefix}.doctor.left"
    async with connected(rabbit_options(amqp_url, prefix), "test") as connection:
        async with channel_of(connection, confirms=True) as channel:
            for part in ("full", "room"):
                await channel.queue_declare(
                    f"{name}.{part}", durable=True, arguments={**TRIAL_QUEUE_ARGUMENTS, "x-expires": 5_000}
                )
        assert await try_policies(connection, name) == ()
