"""The broker goes, comes back, or loses a queue: the worker goes on by itself, and nothing is lost."""

import asyncio
from pathlib import Path

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


def _succeeded(clients: Clients) -> set[str]:
    return {hit.who for hit in clients.hits if not failed(hit)}
