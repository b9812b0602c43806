"""`notifier pause`, `resume` and `pauses`, and their routes: a client is paused at run time, durably."""

import asyncio
import json
import os
import signal
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from notifier.model.moment import format_moment, parse_moment
from tests.system.clients import Clients
from tests.system.command import notifier_at
from tests.system.site import API_TOKEN, ISSUER, Site, client
from tests.system.test_retry import event, rows
from tests.system.waiting import until
from tests.system.worker_process import replying_worker, worker

PAUSE = ("pause", "--client-id", "shop", "--iss", ISSUER, "--reason", "deploy")
RESUME = ("resume", "--client-id", "shop", "--iss", ISSUER)


def site_of(folder: Path, clients: Clients, place: tuple[str, str]) -> Site:
    """Two clients; `shop` has another name."""
    site = Site(folder, *place)
    site.write_clients(
        [
            {**client("shop", clients.url("shop")), "aliases": ["boutique"]},
            client("wiki", clients.url("wiki")),
        ]
    )
    tokens = [
        {"name": "idp", "token": API_TOKEN, "scopes": ["publish"]},
        {"name": "sre", "token": "r", "scopes": ["read", "repair"]},
        {"name": "other", "token": "o", "scopes": ["read", "repair"], "issuers": ["https://other.example.com"]},
    ]
    (folder / "tokens.yaml").write_text(json.dumps(tokens))
    return site


async def ran(site: Site, *words: str, status: int = 0) -> Any:
    """What this command prints as JSON."""
    done = await notifier_at(site, *words, "--json")
    assert done.returncode == status, done.stderr + done.stdout
    return json.loads(done.stdout)


async def deferred(site: Site, count: int) -> None:
    """Wait until so many deliveries wait for the end of a pause."""
    await until(lambda: rows(site, "--reason", "paused"), lambda shown: len(shown) == count)


def calls(clients: Clients, name: str) -> int:
    """How often the client was called."""
    return sum(hit.path == f"/{name}" for hit in clients.hits)


async def test_client_is_paused_and_resumed(place: tuple[str, str], tmp_path: Path) -> None:
    """No call follows the answer; others are called; after the resume all arrive. Each is logged with its operator."""
    async with Clients() as clients:
        site = site_of(tmp_path, clients, place)
        async with replying_worker(site) as running:
            answer = await ran(site, *PAUSE, "--for", "2h")
            assert (answer["workers"]["seen"], len(answer["workers"]["applied"])) == (1, 1)
            for number in range(20):
                assert (await running.post(event(number, "shop", "wiki")))[0] == 202
            await deferred(site, 20)
            await until(lambda: asyncio.sleep(0, calls(clients, "wiki")), lambda count: count == 20)
            assert calls(clients, "shop") == 0
            [listed] = (await ran(site, "pauses"))["pauses"]
            assert (listed["client_id"], listed["reason"], listed["ended_at"]) == ("shop", "deploy", None)
            retried = await ran(site, "retry", "--client-id", "shop", "--iss", ISSUER, status=1)
            assert ("notifier resume" in retried["unfinished"], calls(clients, "shop")) == (True, 0)
            resumed = await ran(site, *RESUME)
            assert [each["reason"] for each in resumed["former"]] == ["deploy"]
            await until(lambda: asyncio.sleep(0, calls(clients, "shop")), lambda count: count == 20)
            assert await rows(site) == []
            [ended] = (await ran(site, "pauses"))["pauses"]
            assert ended["ended_by"].endswith("(claimed)")
        lines = running.logged("client_paused") + running.logged("client_resumed")
        assert [(line["event"], line["client_id"], line["audit"]) for line in lines] == [
            ("client_paused", "shop", True), ("client_resumed", "shop", True),
        ]  # fmt: skip
        assert all(line["who"].endswith(" (claimed)") for line in lines)


async def test_pause_holds_through_a_restart_and_ends_without_a_worker(place: tuple[str, str], tmp_path: Path) -> None:
    """A worker that starts during the pause calls no client; a worker that starts after its end delivers."""
    async with Clients() as clients:
        site = site_of(tmp_path, clients, place)
        async with replying_worker(site) as running:
            await ran(site, *PAUSE, "--for", "2h")
            await running.post(event(1, "shop"))
            await deferred(site, 1)
        async with replying_worker(site) as running:
            await running.post(event(2, "shop", "wiki"))
            await until(lambda: asyncio.sleep(0, calls(clients, "wiki")), lambda count: count == 1)
            await deferred(site, 2)
            assert calls(clients, "shop") == 0
            end = time.time() + 3.0
            await ran(site, *PAUSE, "--until", format_moment(end))
        await asyncio.sleep(max(0.0, end - time.time()))
        async with worker(site):
            await until(lambda: asyncio.sleep(0, calls(clients, "shop")), lambda count: count == 2)


async def test_pause_without_a_worker_holds(place: tuple[str, str], tmp_path: Path) -> None:
    """The command reports that none runs; the audit line is on stderr."""
    async with Clients() as clients:
        site = site_of(tmp_path, clients, place)
        async with worker(site):
            pass  # it makes the queue
        done = await notifier_at(site, *PAUSE, "--for", "2h")
        assert (done.returncode, "no worker runs" in done.stdout, "client_paused" in done.stderr) == (0, True, True)
        async with replying_worker(site) as running:
            await running.post(event(1, "shop", "wiki"))
            await deferred(site, 1)
            assert calls(clients, "shop") == 0


async def test_pause_ends_by_itself(place: tuple[str, str], tmp_path: Path) -> None:
    """The worker releases the deliveries within seconds, not after the 512 s of a deferral."""
    async with Clients() as clients:
        site = site_of(tmp_path, clients, place)
        async with replying_worker(site) as running:
            answer = await ran(site, *PAUSE, "--for", "3s")
            for number in range(5):
                await running.post(event(number, "shop"))
            await until(lambda: asyncio.sleep(0, calls(clients, "shop")), lambda count: count == 5)
            assert min(hit.at for hit in clients.hits) >= parse_moment(answer["paused"][0]["until"])
        assert [line["client_id"] for line in running.logged("pause_ended")] == ["shop"]


async def test_pauses_by_the_api(place: tuple[str, str], tmp_path: Path) -> None:
    """An alias pauses its client; the log has the proven name, too; a token of another issuer sees nothing."""
    async with Clients() as clients:
        site = site_of(tmp_path, clients, place)
        async with replying_worker(site) as running:
            body = {"client_id": "boutique", "iss": ISSUER, "for": "2h", "reason": "deploy"}
            status, answer = await running.ask("POST", "/v1/pause", "r", body)
            assert (status, answer["paused"][0]["client_id"], answer["paused"][0]["who"]) == (200, "shop", "sre")
            assert (answer["expiring"], len(answer["workers"]["applied"])) == (0, 1)
            await running.post(event(1, "shop", "wiki"))
            await deferred(site, 1)
            _, listed = await running.ask("GET", "/v1/pauses?expiring=true", "r")
            assert [(each["client_id"], each["expiring"]) for each in listed["pauses"]] == [("shop", 0)]
            assert (await running.ask("GET", "/v1/pauses", "o"))[1]["pauses"] == []
            retry = {"client_id": "boutique", "iss": ISSUER, "dry_run": True}
            assert (await running.ask("POST", "/v1/retry", "r", retry))[1]["client_id"] == "shop"
            for path, members, token, expected in (
                ("/v1/pause", body | {"client_id": "shpo"}, "r", 404),
                ("/v1/pause", body | {"until": "2030-01-01T00:00:00Z"}, "r", 400),
                ("/v1/pause", body | {"reason": "a\nb"}, "r", 400),
                ("/v1/pause", body | {"more": 1}, "r", 400),
                ("/v1/pause", body, "o", 403),
                ("/v1/resume", {"client_id": "shop", "iss": ISSUER}, "o", 403),
                ("/v1/resume", {"client_id": "shop", "iss": ISSUER}, API_TOKEN, 403),
                ("/v1/resume", {"client_id": "shpo", "iss": ISSUER}, "r", 404),
            ):
                status, answer = await running.ask("POST", path, token, members)
                assert status == expected, (path, members, answer)
            status, answer = await running.ask("POST", "/v1/resume", "r", {"client_id": "shop", "iss": ISSUER})
            assert (status, len(answer["former"]), answer["note"]) == (200, 1, None)
            await until(lambda: asyncio.sleep(0, calls(clients, "shop")), lambda count: count == 1)
        for action in ("client_paused", "client_resumed"):
            lines = running.logged(action)
            assert {line["who"] for line in lines} == {"sre", "sre (claimed)"}
            assert len({line["action_id"] for line in lines}) == 1


@pytest.mark.full
async def test_frozen_worker_calls_nobody_that_was_paused_meanwhile(amqp_url: str, prefix: str, tmp_path: Path) -> None:
    """It is not listed as applying the pause, and reads the pauses before its next attempt."""
    async with Clients() as clients:
        site = site_of(tmp_path, clients, (amqp_url, prefix))
        async with replying_worker(site) as running:
            await running.post(event(1, "wiki"))
            await until(lambda: asyncio.sleep(0, calls(clients, "wiki")), lambda count: count == 1)
            os.kill(running.pid, signal.SIGSTOP)
            try:
                for number in range(20):
                    await notifier_at(site, "publish", stdin=json.dumps(event(number, "shop")))
                answer = await ran(site, *PAUSE, "--for", "2h", status=3)
                assert answer["workers"]["applied"] == []
                await asyncio.sleep(4.0)
            finally:
                os.kill(running.pid, signal.SIGCONT)
            await deferred(site, 20)
            assert calls(clients, "shop") == 0


@pytest.mark.full
async def test_no_worker_calls_a_paused_client(amqp_url: str, prefix: str, tmp_path: Path) -> None:
    """Under a flow of events, with three workers, of which one is killed and replaced during the pause."""
    async with Clients() as clients, AsyncExitStack() as stack:
        site = site_of(tmp_path, clients, (amqp_url, prefix))
        workers = [await stack.enter_async_context(replying_worker(site)) for _ in range(3)]
        stopping = asyncio.Event()

        async def publish() -> int:
            number = 0
            while not stopping.is_set():
                assert (await workers[0].post(event(number, "shop", "wiki")))[0] == 202
                number += 1
                await asyncio.sleep(0.02)
            return number

        publishing = asyncio.create_task(publish())
        await until(lambda: asyncio.sleep(0, calls(clients, "shop")), lambda count: count >= 20)
        answer = await ran(site, *PAUSE, "--for", "2h")
        answered_at, before = time.time(), calls(clients, "shop")
        assert (answer["workers"]["seen"], len(answer["workers"]["applied"])) == (3, 3)
        await until(lambda: rows(site, "--reason", "paused"), lambda shown: len(shown) >= 130)
        os.kill(workers[2].pid, signal.SIGKILL)
        await stack.enter_async_context(replying_worker(site))
        await asyncio.sleep(1.0)
        stopping.set()
        number = await publishing
        await until(lambda: asyncio.sleep(0, calls(clients, "wiki")), lambda count: count >= number)
        late = [hit for hit in clients.hits if hit.path == "/shop" and hit.at > answered_at]
        assert (late, calls(clients, "shop") - before) == ([], 0)
        await notifier_at(site, *RESUME)  # a worker that does not answer in time reads the pauses within 30 s
        await until(lambda: asyncio.sleep(0, calls(clients, "shop")), lambda count: count >= number)
