"""A publisher can request each client's result, whichever worker delivers: over HTTP, and by `reply_to` over AMQP."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractIncomingMessage
from aiohttp import web

from tests.system.clients import Clients, Hit
from tests.system.command import notifier_at
from tests.system.site import ISSUER, Site, client
from tests.system.waiting import PATIENCE, until
from tests.system.worker_process import WorkerProcess, replying_worker


def judge(hit: Hit) -> int | web.Response:
    """By the client's name; the failing one sends Retry-After."""
    if hit.path == "/down":
        return web.Response(status=503, headers={"Retry-After": "600"})
    return {"/wiki": 403}.get(hit.path, 200)


def site_of(folder: Path, clients: Clients, url: str, prefix: str = "notifier") -> Site:
    """Four clients."""
    site = Site(folder, url, prefix)
    del site.config["delivery"]["retry"]["max_delay"]  # it bounds the pause
    site.write()
    silent = {"client_id": "silent", "issuer": ISSUER}
    site.write_clients([*(client(name, clients.url(name)) for name in ("shop", "wiki", "down")), silent])
    return site


async def post(
    running: WorkerProcess, names: Sequence[object] | str, wait: str = "30s", **more: object
) -> tuple[int, dict[str, Any]]:
    """Publish, and wait."""
    event = {"iss": ISSUER, "sub": "alice", "sid": "s1", "clients": names, **more}
    return await running.ask("POST", f"/v1/events?wait={wait}", body=event)


@pytest.mark.full
async def test_http_publisher_gets_results_of_all_workers(tmp_path: Path, amqp_url: str, prefix: str) -> None:
    """Two share the queue; some events that one accepts over HTTP are delivered and reported by the other."""
    async with Clients(judge) as clients:
        site = site_of(tmp_path, clients, amqp_url, prefix)
        async with replying_worker(site) as first, replying_worker(site) as second:
            answers = await asyncio.gather(*(post(first, ["shop"]) for _ in range(20)))
            assert [status for status, _ in answers] == [200] * 20
            assert all(document["clients"][0]["fate"] == "delivered" for _, document in answers)
            await until(lambda: second.metric("deliveries_settled_total", fate="delivered"), lambda count: count > 0)


async def test_amqp_publisher_gets_results_by_reply_to(tmp_path: Path, amqp_url: str, prefix: str) -> None:
    """By direct reply-to, one document a client, with the publisher's correlation id; nothing to a name of ours."""
    async with Clients(judge) as clients, await aio_pika.connect(amqp_url) as connection:
        site = site_of(tmp_path, clients, amqp_url, prefix)
        replies: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        async with replying_worker(site) as running:
            channel = await connection.channel()
            inbox = await channel.get_queue("amq.rabbitmq.reply-to", ensure=False)
            await inbox.consume(replies.put, no_ack=True)
            events = await channel.get_exchange(f"{prefix}.events", ensure=False)
            for reply_to in (f"{prefix}.dead", "amq.rabbitmq.reply-to"):
                event = {"id": reply_to, "iss": ISSUER, "sub": "a", "sid": "s", "clients": ["shop", "wiki", "down"]}
                message = aio_pika.Message(json.dumps(event).encode(), reply_to=reply_to, correlation_id="c-7")
                await events.publish(message, "session.ended")
            async with asyncio.timeout(PATIENCE):
                found = [await replies.get() for _ in range(3)]
            assert {message.correlation_id for message in found} == {"c-7"}
            documents = {document["client_id"]: document for document in (json.loads(each.body) for each in found)}
            assert {name: document["fate"] for name, document in documents.items()} == {
                "shop": "delivered",
                "wiki": "dead",
                "down": "retrying",
            }
            assert all((each["v"], each["of"]) == (1, 3) for each in documents.values())
            await running.until_metric(1, "retries_scheduled_total")  # the other event is deferred

            async def dead() -> int | None:
                queue = await channel.declare_queue(f"{prefix}.dead", passive=True)
                return queue.declaration_result.message_count

            assert await until(dead, lambda count: (count or 0) >= 2) == 2  # the dead letters of `wiki`, and no reply


async def test_publish_wait_prints_each_clients_result(place: tuple[str, str], tmp_path: Path) -> None:
    """By `publish --wait`, in words and as JSON, exit 1 with a dead letter; it ends once nothing can follow."""
    async with Clients(judge) as clients:
        site = site_of(tmp_path, clients, *place)
        async with replying_worker(site):

            async def publish(*words: str, code: int = 0, **event: object) -> str:
                body = json.dumps({"iss": ISSUER, "sub": "alice", "sid": "s1", **event})
                done = await notifier_at(site, "publish", "--wait", "30s", *words, stdin=body)
                assert (done.returncode, done.stderr) == (code, "")
                return done.stdout

            reported = json.loads(await publish("--json", id="e-1", clients=["shop", "silent"]))
            fates = {each["client_id"]: each["fate"] for each in reported.pop("clients")}
            assert reported == {"id": "e-1", "line": 1, "confirmed": True, "complete": True}
            assert fates == {"shop": "delivered", "silent": "skipped"}
            text = await publish(clients="*", code=1)
            assert "  shop  delivered\n" in text
            assert "  wiki  dead: refused (the client answered 403)\n" in text
            assert "  down  retrying: server_error 503, again in " in text
            assert "  down  retrying: " in await publish(clients=["shop", "down"], code=3)
            assert "duplicate: " in await publish(id="e-1", clients=["shop"])


@pytest.mark.full
async def test_publish_by_an_unlisted_user_warns_and_fails(tmp_path: Path, amqp_url: str, prefix: str) -> None:
    """The user of the connection is the event's publisher; an unlisted user gets a warning and exit 1."""
    async with Clients(judge) as clients:
        site = site_of(tmp_path, clients, amqp_url, prefix)
        site.config["issuers"][ISSUER]["publishers"] = ["guest"]
        site.write()
        body = json.dumps({"iss": ISSUER, "sub": "alice", "sid": "s1", "clients": ["shop"]})
        words = ("publish", "--wait", "30s")
        async with replying_worker(site):
            done = await notifier_at(site, *words, stdin=body)
            assert (done.returncode, done.stderr) == (0, "")
            assert "shop  delivered" in done.stdout
        site.config["issuers"][ISSUER]["publishers"] = ["idp"]
        site.write()
        async with replying_worker(site):
            done = await notifier_at(site, *words, stdin=body)
            assert done.returncode == 1
            assert "does not name guest, the user of the queue" in done.stderr
            assert "dead: publisher_not_allowed" in done.stdout
            status = await notifier_at(site, "status")
            assert status.stdout.startswith(f"✗ events refused {ISSUER}, since ")
            assert status.stdout.splitlines()[0].endswith(", 1 event refused")
            assert "publisher 'guest' may" in status.stdout
