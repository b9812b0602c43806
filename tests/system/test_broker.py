"""The broker goes, comes back, or loses a queue: the worker goes on by itself, and nothing is lost."""

import asyncio
from pathlib import Path

import pytest

from tests.rabbitmq_node import RabbitmqNode
from tests.system.broker import broker
from tests.system.clients import Clients, Hit, verify_all
from tests.system.site import ISSUER, Site, client
from tests.system.tcp_proxy import Ending, TcpProxy
from tests.system.worker_process import worker


def slowly(hit: Hit) -> "asyncio.Future[int]":
    """A twentieth of a second; now and then the first attempt fails."""
    return asyncio.ensure_future(asyncio.sleep(0.05, 503 if failed(hit) else 200))


def failed(hit: Hit) -> bool:
    """Some: a client that fails often is told one at a time."""
    return int(hit.who) % 60 == 59 and hit.nth == 1


def event(number: int) -> dict[str, object]:
    """One session at one client."""
    return {"id": f"e{number}", "iss": ISSUER, "sub": "alice", "sid": str(number), "clients": ["shop"]}


async def test_a_broker_out_of_reach_is_found_again(tmp_path: Path, amqp_url: str, prefix: str) -> None:
    """At the start, and under load. Not ready meanwhile, but alive, and the API answers 503; every event is told."""
    account, at = amqp_url.removeprefix("amqp://").split("@")
    (host, port), vhost = at.split("/")[0].split(":"), at.partition("/")[2]
    async with Clients(slowly) as clients, TcpProxy(host, int(port)) as way, broker(amqp_url, prefix) as rabbit:
        site = Site(tmp_path, f"amqp://{account}@127.0.0.1:{way.port}/{vhost}", prefix)
        site.write_clients([client("shop", clients.url("shop"))])
        way.refuse()
        async with worker(site, ready=False) as running:
            await running.until_ready(ready=False)
            assert (await running.get("/livez"))[0] == 200
            await way.accept()
            await running.until_ready()
            await rabbit.publish_all(map(event, range(100)))
            await clients.until(lambda: len(clients.hits) >= 20)
            way.refuse()
            way.end(Ending.RESET)
            await running.until_ready(ready=False)
            assert (await running.get("/livez"))[0] == 200
            assert await running.metric("queue_connected") == 0
            assert (await running.post(event(100)))[0] == 503
            await way.accept()
            await running.until_ready()
            assert (await running.post(event(100)))[0] == 202
            await clients.until(lambda: _succeeded(clients) >= {str(number) for number in range(101)})
            await rabbit.until_depths({})
            assert await running.stop() == 0
        verify_all(clients.hits, site.jwks)


@pytest.mark.full
@pytest.mark.timeout(150)
async def test_a_broker_killed_under_load_is_found_again(tmp_path: Path, own_node: RabbitmqNode) -> None:
    """The worker starts while the broker is away, waits for it, works, sees it killed, and goes on when it is back.

    Not ready meanwhile, but alive, and the API answers 503; every event is told, and the queues are empty at the end.
    """
    numbers = range(2000)
    async with Clients(slowly) as clients:
        site = Site(tmp_path, own_node.url)
        site.write_clients([client("shop", clients.url("shop"))])
        await asyncio.to_thread(own_node.kill)
        async with worker(site, ready=False) as running:
            await running.until_ready(ready=False)
            assert (await running.get("/livez"))[0] == 200
            await asyncio.to_thread(own_node.start)
            await running.until_ready(patience=60)

            async with broker(own_node.url, "notifier") as rabbit:
                await rabbit.publish_all(map(event, numbers))
                await clients.until(lambda: len(clients.hits) >= 300)
                await asyncio.to_thread(own_node.kill)
            await running.until_ready(ready=False)
            assert (await running.get("/livez"))[0] == 200
            assert await running.metric("queue_connected") == 0
            assert (await running.post(event(2000)))[0] == 503
            await asyncio.to_thread(own_node.start)
            await running.until_ready(patience=60)
            assert (await running.post(event(2000)))[0] == 202

            delivered = {str(number) for number in (*numbers, 2000)}
            await clients.until(lambda: _succeeded(clients) >= delivered, patience=60)
            async with broker(own_node.url, "notifier") as rabbit:
                await rabbit.until_depths({})
                assert await running.stop() == 0
                await rabbit.until_depths({})
        verify_all(clients.hits, site.jwks)


def _succeeded(clients: Clients) -> set[str]:
    return {hit.who for hit in clients.hits if not failed(hit)}


@pytest.mark.parametrize("topology", ["declare", "verify"])
async def test_a_queue_deleted_and_declared_again_is_consumed_again(
    tmp_path: Path, amqp_url: str, prefix: str, topology: str
) -> None:
    """By the worker itself where it declares, else by an administrator; not ready in between."""
    async with Clients() as clients, broker(amqp_url, prefix) as rabbit:
        site = Site(tmp_path, amqp_url, prefix)
        site.write_clients([client("shop", clients.url("shop"))])
        async with worker(site) as first:
            assert await first.stop() == 0
        site.config["queue"]["topology"] = topology
        site.write()
        async with worker(site) as running:
            await rabbit.publish(event(1))
            await clients.until_told("shop", ["1"])
            await running.until_metric(1, "events_total", result="accepted")
            await rabbit.delete_queue("events")
            if topology == "verify":
                await running.until_ready(ready=False)
                await rabbit.declare_queue("events")
            else:
                await running.until_said("queue_consumer_lost")
            await running.until_ready()
            await rabbit.publish(event(2))
            await clients.until_told("shop", ["2"])
            assert await running.stop() == 0
        assert clients.told("shop") == ["1", "2"]


async def test_a_delay_queue_deleted_is_declared_again(tmp_path: Path, amqp_url: str, prefix: str) -> None:
    """A retry that finds its delay queue missing waits in memory until it stands again, and is not lost."""
    async with Clients(lambda hit: 503 if hit.nth == 1 else 200) as clients, broker(amqp_url, prefix) as rabbit:
        site = Site(tmp_path, amqp_url, prefix)
        site.write_clients([client("shop", clients.url("shop"))])
        async with worker(site) as running:
            await rabbit.delete_queue("delay.1s")
            await rabbit.publish(event(1))
            await clients.until(lambda: clients.told("shop") == ["1", "1"])
            await running.until_metric(1, "deliveries_settled_total", fate="delivered")
            assert await running.stop() == 0
