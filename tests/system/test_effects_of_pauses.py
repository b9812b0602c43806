"""What a pause at run time means to followers, publishers, replays and the registry's own pause."""

import asyncio
import json
from pathlib import Path
from typing import Any

import aio_pika

from tests.system.clients import Clients
from tests.system.command import notifier_at
from tests.system.site import client
from tests.system.test_pauses import PAUSE, RESUME, calls, deferred, ran, site_of
from tests.system.test_retry import event
from tests.system.waiting import PATIENCE, until
from tests.system.worker_process import replying_worker


async def test_followers_are_paused_on_request(place: tuple[str, str], tmp_path: Path) -> None:
    """Without `--followers` the answer names those that are still called; with it they are paused, and resumed."""
    async with Clients() as clients:
        site = site_of(tmp_path, clients, place)
        follower = client("shop-us", clients.url("shop-us"), follows="shop")
        site.write_clients([client("shop", clients.url("shop")), follower])
        async with replying_worker(site) as running:
            answer = await ran(site, *PAUSE, "--for", "2h")
            assert ([each["client_id"] for each in answer["paused"]], answer["followers"]) == (["shop"], ["shop-us"])
            await running.post(event(1, "shop", "shop-us"))
            await until(lambda: asyncio.sleep(0, calls(clients, "shop-us")), lambda count: count == 1)
            answer = await ran(site, *PAUSE, "--for", "2h", "--followers")
            assert [each["client_id"] for each in answer["paused"]] == ["shop", "shop-us"]
            assert ([each["client_id"] for each in answer["former"]], answer["followers"]) == (["shop"], [])
            await running.post(event(2, "shop", "shop-us"))
            await deferred(site, 3)
            assert (calls(clients, "shop"), calls(clients, "shop-us")) == (0, 1)
            resumed = await ran(site, *RESUME, "--followers")
            assert resumed["followers"] == []
            assert {each["client_id"] for each in resumed["former"]} == {"shop", "shop-us"}
            await until(
                lambda: asyncio.sleep(0, (calls(clients, "shop"), calls(clients, "shop-us"))),
                lambda counts: counts == (2, 2),
            )


async def test_replay_is_accepted_and_deferred(place: tuple[str, str], tmp_path: Path) -> None:
    """Its account counts the dead letters as waiting; they are delivered after the resume."""
    status = 404
    async with Clients(lambda _: status) as clients:
        site = site_of(tmp_path, clients, place)
        async with replying_worker(site) as running:
            await running.post(event(1, "shop"))
            await until(lambda: running.ask("GET", "/v1/dead-letters", "r"), lambda answer: answer[1]["total"] == 1)
            status = 200
            await ran(site, *PAUSE, "--for", "2h")
            before = calls(clients, "shop")
            done = await notifier_at(site, "dead-letters", "replay", "--client-id", "shop", "--json")
            account = json.loads(done.stdout)
            assert (account["replayed"], account["became"]["waiting"], calls(clients, "shop")) == (1, 1, before)
            await deferred(site, 1)
            await ran(site, *RESUME)
            await until(lambda: asyncio.sleep(0, calls(clients, "shop")), lambda count: count == before + 1)


async def test_waiting_publisher_gets_the_deferral(place: tuple[str, str], tmp_path: Path) -> None:
    """With `?wait=`: a result that is not final, with the reason and the pause. The answer comes within the wait."""
    async with Clients() as clients:
        site = site_of(tmp_path, clients, place)
        async with replying_worker(site) as running:
            await ran(site, *PAUSE, "--for", "2h")
            status, answer = await running.ask("POST", "/v1/events?wait=3s", body=event(1, "shop", "wiki"))
            by_client = {each["client_id"]: each for each in answer["clients"]}
            assert (status, by_client["wiki"]["fate"]) == (202, "delivered")
            assert (by_client["shop"]["fate"], by_client["shop"]["reason"]) == ("retrying", "paused")


async def test_reply_to_has_the_deferral(amqp_url: str, prefix: str, tmp_path: Path) -> None:
    """As for a publisher over HTTP."""
    async with Clients() as clients, await aio_pika.connect(amqp_url) as connection:
        site = site_of(tmp_path, clients, (amqp_url, prefix))
        async with replying_worker(site):
            await ran(site, *PAUSE, "--for", "2h")
            replies: asyncio.Queue[Any] = asyncio.Queue()
            channel = await connection.channel()
            inbox = await channel.get_queue("amq.rabbitmq.reply-to", ensure=False)
            await inbox.consume(replies.put, no_ack=True)
            events = await channel.get_exchange(f"{prefix}.events", ensure=False)
            body = json.dumps({"id": "e", **event(1, "shop")}).encode()
            await events.publish(aio_pika.Message(body, reply_to="amq.rabbitmq.reply-to"), "session.ended")
            reply = json.loads((await asyncio.wait_for(replies.get(), PATIENCE)).body)
            assert (reply["client_id"], reply["fate"], reply["reason"]) == ("shop", "retrying", "paused")
        assert calls(clients, "shop") == 0


async def test_resume_names_the_source_that_still_pauses(place: tuple[str, str], tmp_path: Path) -> None:
    """The operator's pause ends, the registry's does not."""
    async with Clients() as clients:
        site = site_of(tmp_path, clients, place)
        site.write_clients([client("shop", clients.url("shop"), paused=True)])
        async with replying_worker(site) as running:
            await ran(site, *PAUSE, "--for", "2h")
            resumed = await ran(site, *RESUME)
            assert [each["client_id"] for each in resumed["former"]] == ["shop"]
            assert resumed["note"] == "file (clients.yaml) has paused: true for it, so it is still paused"
            done = await notifier_at(site, *RESUME)
            assert ("was not paused by an operator" in done.stdout, "paused: true" in done.stdout) == (True, True)
            await running.post(event(1, "shop"))
            await deferred(site, 1)
            assert calls(clients, "shop") == 0
