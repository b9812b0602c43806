"""Events of a source, in its own words, through an exchange of others: nothing is lost, whoever dies.

Its server publishes to a fanout of its own, as MassTransit makes it. The worker reads its events by a mapping.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aio_pika
import pytest
from yarl import URL

from tests.faults.conftest import Form, Tell
from tests.faults.rig import CLIENTS, Rig, kill, rig
from tests.support.rabbitmq_node import RabbitmqNode
from tests.system.broker import QUEUES
from tests.system.clients import Hit
from tests.system.command import notifier_at
from tests.system.publisher import Publisher
from tests.system.site import ISSUER
from tests.system.worker_process import worker

THEIRS = "theirs"
OWN = "source.shop"


class Shop(Publisher):
    """A server that speaks of sessions in its own words. Its events have no ids."""

    def event(self, number: int) -> Mapping[str, Any]:
        """Return what the mapping reads."""
        return {"user": "alice", "sid": str(number), "clients": list(CLIENTS)}


async def takes(_: Hit) -> int:
    """Answer 200 a little later, so that much is in hand at any moment."""
    await asyncio.sleep(0.05)
    return 200


@contextlib.asynccontextmanager
async def shop(folder: Path, url: str, prefix: str, *, declared: bool = True) -> AsyncIterator[Rig]:
    """An installation with one source."""
    async with rig(folder, url, prefix) as made:
        made.publisher = Shop(made.urls, prefix, CLIENTS, exchange=THEIRS)
        made.clients.judge, made.expected, made.queues = takes, {}, (*QUEUES, OWN)
        words = {"sub": "user", "sid": "sid", "clients": "clients"}
        bind = [{"exchange": f"{prefix}.{THEIRS}"}]
        made.site.config["sources"] = {"shop": {"issuer": ISSUER, "event": words, "bind": bind}}
        made.site.write()
        if declared:
            await declare(url, prefix)
        yield made


async def declare(url: str, prefix: str) -> None:
    """Make the exchange, as its server does."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        await channel.declare_exchange(f"{prefix}.{THEIRS}", "fanout", durable=True)


@pytest.mark.fault("worker", "killed by SIGKILL with events of a source in hand")
@pytest.mark.timeout(600)
async def test_workers_are_killed(
    tmp_path: Path, amqp_url: str, prefix: str, form: Form[int], chance: random.Random, tell: Tell
) -> None:
    """The next one takes what they held. An event without an id gets the same one each time, so copies are known."""
    times = form(1, 20)
    async with shop(tmp_path, amqp_url, prefix) as made:
        async with worker(made.site) as running:
            await running.until_said("source_bound")
            assert await running.stop() == 0
        publishing = asyncio.create_task(made.publisher.publish(range(100 * times), rate=80))
        for _ in range(times):
            async with worker(made.site) as running:
                await made.more(30)
                await asyncio.sleep(chance.uniform(0, 0.5))
                await kill(running)
        async with worker(made.site) as running:
            await publishing
            await made.settle(running)
        tell(await made.account(cause="held by a worker that was killed"), times=times)


@pytest.mark.timeout(600)
async def test_an_exchange_that_is_missing_or_not_ours_to_read(
    tmp_path: Path, own_node: RabbitmqNode, queues: str
) -> None:
    """The worker is ready, and says what to do. Once that is done it is bound without a restart."""

    async def ctl(*words: str) -> None:
        await asyncio.to_thread(own_node.ctl, *words)

    await ctl("add_user", "worker", "only-a-test")
    own = rf"^({queues}\.(events|bulk|retries|dead|delay|parked|source|doctor|worker|outcomes)|amq\.default$)"
    await ctl("set_permissions", "-p", "/", "worker", own, own, own)
    url = str(URL(own_node.url).with_user("worker").with_password("only-a-test"))
    async with shop(tmp_path, url, queues, declared=False) as made, worker(made.site) as running:
        await running.until_ready()
        said = await running.until_said("source_not_bound")
        assert (said["source"], said["reason"]) == ("shop", "it does not exist")
        assert await running.metric("source_bindings_missing", source="shop") == 1
        permission = f"give user worker the permission `read` on {queues}.{THEIRS}"
        assert permission in said["advice"]
        assert "source shop is not bound to exchange" in (await notifier_at(made.site, "status")).stdout
        await declare(own_node.url, queues)
        said = await running.until_said("source_not_bound", lambda line: "refuses" in line["reason"])
        assert said["advice"].startswith(permission)
        assert "only-a-test" not in running.log
        await ctl("set_permissions", "-p", "/", "worker", own, own, ".*")
        await running.until_said("source_bound")
        made.publisher = Shop([own_node.url], queues, CLIENTS, exchange=THEIRS)
        await made.publisher.publish(range(3), rate=100)
        await made.until_settled()
        made.site.config["sources"]["shop"]["bind"].append({"exchange": "another"})
        made.site.write()
        await running.until_said("reload_needs_restart", lambda line: line["settings"] == ["sources.shop.bind"])
        assert await running.stop() == 0
