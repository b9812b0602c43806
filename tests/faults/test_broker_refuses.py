"""A broker that closes a channel, because the worker does not ack in time, or a queue that takes no messages."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.faults.conftest import Form, Record
from tests.faults.parking_rig import Down, sick_in
from tests.faults.rig import CLIENTS, judge, kill, load, rig
from tests.support.rabbitmq_node import RabbitmqNode
from tests.system.clients import Hit
from tests.system.site import ISSUER
from tests.system.worker_process import worker

RATE = 30  # events a second
GOES_ON = 60.0  # seconds in which a worker must go on, on a busy machine
BACK = 120.0  # seconds for a worker to come back: its pause between two tries grows to fifteen


@asynccontextmanager
async def ack_timeout(node: RabbitmqNode) -> AsyncIterator[None]:
    """Set the ack timeout of new channels to 2 s, checked twice a second; afterwards, to the defaults of RabbitMQ."""
    change = (
        "application:set_env(rabbit, consumer_timeout, {}), application:set_env(rabbit, channel_tick_interval, {})."
    )
    await asyncio.to_thread(node.ctl, "eval", change.format(2_000, 500))
    try:
        yield
    finally:
        await asyncio.to_thread(node.ctl, "eval", change.format(1_800_000, 60_000))


@pytest.mark.fault("broker", "a channel closed by a precondition failure: a message not acked in time")
@pytest.mark.timeout(600)
async def test_the_ack_comes_too_late(
    tmp_path: Path, own_node: RabbitmqNode, queues: str, form: Form[int], record: Record
) -> None:
    """A client answers too late for the broker's ack timeout. Everything unacked comes again."""
    times = form(1, 5)
    waits = 4

    async def hangs_now_and_then(hit: Hit) -> int:
        if hit.path == "/healthy" and int(hit.who) % form(150, 400) == 50 and hit.nth == 1:
            await asyncio.sleep(waits)
        return await judge(hit)

    async with ack_timeout(own_node), rig(tmp_path, own_node.url, queues) as made:
        made.clients.judge = hangs_now_and_then
        made.site.config["delivery"]["timeout"] = "20s"
        made.site.write()
        async with worker(made.site) as running:
            await made.publisher.publish(range(form(150, 400) * times), rate=100)
            await running.until_logged("queue_consumer_lost", lambda line: "PRECONDITION" in line["reason"].upper())
            await made.until_settled()
            await running.until_ready(patience=BACK)
            assert await running.stop() == 0
        record(await made.account(cause="acked on a channel that was closed"), times=times)


@asynccontextmanager
async def small_buckets(node: RabbitmqNode, prefix: str, name: str = "parked") -> AsyncIterator[None]:
    """Limit each bucket, or another queue, to five messages, by a policy."""
    limit = json.dumps({"max-length": 5, "overflow": "reject-publish"})
    buckets = rf"^{prefix}\.{name}"
    await asyncio.to_thread(node.ctl, "set_policy", "small", buckets, limit, "--apply-to", "queues")
    try:
        yield
    finally:
        await asyncio.to_thread(node.ctl, "clear_policy", "small")


@pytest.mark.fault(
    "broker", "a policy limits the buckets to five deliveries, while a client is down; then it is cleared"
)
@pytest.mark.timeout(600)
async def test_buckets_refuse(tmp_path: Path, own_node: RabbitmqNode, queues: str, record: Record) -> None:
    """The worker names the bucket, stays ready, and keeps few deliveries in memory. It parks again after the policy."""
    async with rig(tmp_path, own_node.url, queues) as made, sick_in(made) as sick, worker(made.site) as running:
        sick.fall(Down.ANSWERS_503)
        async with load(made.publisher, rate=50):
            async with small_buckets(own_node, queues):
                refused = await running.until_logged("queue_refuses")
                assert f" {queues}.parked-" in refused["reason"]
                assert refused["help"] == "notifier explain NotifierQueueRefuses"
                assert await running.metric("queues_refusing") >= 1
                status, ready = await running.get("/readyz")
                assert (status, f"{queues}.parked-" in json.loads(ready)["problem"]) == (200, True)
                assert await running.metric("queue_unsettled", queue="events") < 200
            await running.until_logged("queue_accepts")
        await sick.recover()
        await sick.until_served()
        assert await running.stop() == 0
        record(await made.account())
        sick.was_served_soon()


@asynccontextmanager
async def suspended(node: RabbitmqNode, queue: str) -> AsyncIterator[None]:
    """Have this queue answer nothing."""
    process = f"{{'%2F_{queue}', node()}}"
    await asyncio.to_thread(node.ctl, "eval", f"sys:suspend({process}).")
    try:
        yield
    finally:
        await asyncio.to_thread(node.ctl, "eval", f"sys:resume({process}).")


@pytest.mark.fault("broker", "a delay queue answers nothing, and a worker is killed by SIGKILL meanwhile")
@pytest.mark.timeout(600)
async def test_delay_queue_is_silent(tmp_path: Path, own_node: RabbitmqNode, queues: str, record: Record) -> None:
    """More deliveries need it than a worker may hold. The worker names it, and all go on; no token is sent twice."""
    async with rig(tmp_path, own_node.url, queues) as made:
        made.site.config["delivery"]["max_in_flight"] = 48
        made.site.write()
        async with load(made.publisher, rate=RATE) as end:
            async with worker(made.site) as killed, suspended(own_node, f"{queues}.delay.1s"):
                in_silent_queue = set(made.publisher.confirmed)  # at most
                await made.more(20 * RATE * len(CLIENTS), GOES_ON)
                await kill(killed)
                async with worker(made.site) as running:
                    await made.more(20 * RATE * len(CLIENTS), GOES_ON)
                    fresh = made.publisher.confirmed.keys() - in_silent_queue
                    owed = {(path, event) for path in ("/flaky", "/healthy") for event in fresh}
                    await made.clients.until(lambda: owed <= made.clients.accepted.keys(), GOES_ON)
                    status, ready = await running.get("/readyz")
                    assert (status, f"{queues}.delay." in json.loads(ready)["problem"]) == (200, True)
                    assert await running.stop() == 0
            async with worker(made.site) as last:
                await end()
                await made.settle(last)
        tokens = [hit.claims["jti"] for hit in made.clients.hits]
        assert len(set(tokens)) == len(tokens)
        record(await made.account(cause="held by a worker that was killed, or copies in the silent queue"))


@pytest.mark.parametrize("fault", ["full", "silent"])
@pytest.mark.timeout(600)
async def test_queue_of_dead_letters_takes_nothing(
    tmp_path: Path, own_node: RabbitmqNode, queues: str, fault: str
) -> None:
    """One client refuses more deliveries than a worker may hold. All others are notified, also after a restart."""
    async with rig(tmp_path, own_node.url, queues) as made:
        made.site.config["delivery"]["max_in_flight"] = 48
        made.site.write()
        made.clients.judge = lambda hit: 403 if hit.path == "/refusing" else 200
        dead = small_buckets(own_node, queues, "dead") if fault == "full" else suspended(own_node, f"{queues}.dead")
        async with load(made.publisher, rate=RATE) as end, worker(made.site) as first, dead:
            await made.more(20 * RATE * len(CLIENTS), GOES_ON)
            assert (await first.post({"iss": ISSUER, "sid": "999999", "clients": ["healthy"]}))[0] == 202
            assert await first.stop() == 0
            async with worker(made.site) as second:
                await made.more(20 * RATE * len(CLIENTS), GOES_ON)
                await end()
                owed = {("/healthy", event) for event in (*made.publisher.confirmed, "999999")}
                await made.clients.until(lambda: owed <= made.clients.accepted.keys(), GOES_ON)
                status, ready = await second.get("/readyz")
                assert (status, f"{queues}.dead" in json.loads(ready)["problem"]) == (200, True)
                assert await second.metric("queue_unsettled", queue="events") < 64
                assert await second.stop() == 0
        tokens = [hit.claims["jti"] for hit in made.clients.hits]
        assert len(set(tokens)) == len(tokens)
        assert not (await made.account()).missing
