"""A worker that starts without its broker. What a broker does under load is tried in `tests/faults`."""

from pathlib import Path

from tests.system.clients import Clients
from tests.system.site import ISSUER, Site, client
from tests.system.tcp_proxy import TcpProxy
from tests.system.worker_process import worker


async def test_worker_reconnects_to_an_unreachable_broker(tmp_path: Path, amqp_url: str, prefix: str) -> None:
    """Not ready meanwhile, but alive, and the API answers 503."""
    account, at = amqp_url.removeprefix("amqp://").split("@")
    (host, port), vhost = at.split("/")[0].split(":"), at.partition("/")[2]
    event = {"iss": ISSUER, "sub": "alice", "sid": "s", "clients": ["shop"]}
    async with Clients() as clients, TcpProxy(host, int(port)) as way:
        site = Site(tmp_path, f"amqp://{account}@127.0.0.1:{way.port}/{vhost}", prefix)
        site.write_clients([client("shop", clients.url("shop"))])
        way.refuse()
        async with worker(site, ready=False) as running:
            await running.until_ready(ready=False)
            assert (await running.get("/livez"))[0] == 200
            assert await running.metric("queue_connected") == 0
            assert (await running.post(event))[0] == 503
            await way.accept()
            await running.until_ready()
            assert (await running.post(event))[0] == 202
            await clients.until_notified("shop", ["s"])
