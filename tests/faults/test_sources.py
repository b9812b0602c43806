"""A source's exchange is missing, or its user may not read it: the worker reports what to do and goes on."""

import asyncio
import json
from pathlib import Path

import aio_pika
import pytest
from yarl import URL

from tests.support.rabbitmq_node import RabbitmqNode
from tests.system.clients import Clients
from tests.system.command import notifier_at
from tests.system.site import ISSUER, Site, client
from tests.system.worker_process import worker


@pytest.mark.timeout(600)
async def test_missing_or_forbidden_exchange_is_bound_later(
    tmp_path: Path, own_node: RabbitmqNode, queues: str
) -> None:
    """The worker is ready and logs the remedy. Once that is done, the exchange is bound without a restart."""
    exchange = f"{queues}.theirs"

    async def ctl(*words: str) -> None:
        await asyncio.to_thread(own_node.ctl, *words)

    await ctl("add_user", "worker", "only-a-test")
    own = rf"^({queues}\.(events|bulk|retries|dead|delay|parked|source|doctor|worker|outcomes|pauses)|amq\.default$)"
    await ctl("set_permissions", "-p", "/", "worker", own, own, own)
    site = Site(tmp_path, str(URL(own_node.url).with_user("worker").with_password("only-a-test")), queues)
    words = {"sub": "user", "sid": "sid", "clients": "clients"}
    site.config["sources"] = {"shop": {"issuer": ISSUER, "event": words, "bind": [{"exchange": exchange}]}}
    site.write()
    async with (
        Clients() as clients,
        worker(site) as running,
        await aio_pika.connect(own_node.url) as connection,
        connection.channel() as channel,
    ):
        site.write_clients([client("shop", clients.url("shop"))])
        logged = await running.until_logged("source_not_bound")
        assert (logged["source"], logged["reason"]) == ("shop", "it does not exist")
        assert await running.metric("source_bindings_missing", source="shop") == 1
        permission = f"give user worker the permission `read` on {exchange}"
        assert permission in logged["advice"]
        assert "source shop is not bound to exchange" in (await notifier_at(site, "status")).stdout
        theirs = await channel.declare_exchange(exchange, "fanout", durable=True)
        logged = await running.until_logged("source_not_bound", lambda line: "refuses" in line["reason"])
        assert logged["advice"].startswith(permission)
        assert "only-a-test" not in running.log
        await ctl("set_permissions", "-p", "/", "worker", own, own, ".*")
        await running.until_logged("source_bound")
        body = json.dumps({"user": "alice", "sid": "s1", "clients": ["shop"]})
        await theirs.publish(aio_pika.Message(body.encode(), content_type="application/json"), "")
        await clients.until_notified("shop", ["s1"])
        site.config["sources"]["shop"]["bind"].append({"exchange": "another"})
        site.write()
        await running.until_logged("reload_needs_restart", lambda line: line["settings"] == ["sources.shop.bind"])
        assert await running.stop() == 0
