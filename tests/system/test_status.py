"""`notifier status` and `GET /v1/status` query every worker, and make up nothing."""

import asyncio
import json
import re
import signal
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from aiohttp import web

from tests.support.rabbitmq_node import RabbitmqNode
from tests.system.clients import Answer, Clients, Hit
from tests.system.command import notifier_at
from tests.system.site import API_TOKEN, ISSUER, OTHER, Site, client
from tests.system.waiting import until
from tests.system.worker_process import WorkerProcess, replying_worker, worker

EVENT = {"iss": ISSUER, "sub": "alice", "sid": "s1", "clients": ["shop", "down"]}


def judge(hit: Hit) -> Answer:
    """By the client's name."""
    return web.Response(status=503, headers={"Retry-After": "600"}) if hit.path == "/down" else 200


def site_of(folder: Path, clients: Clients, url: str, prefix: str) -> Site:
    """Two clients, one of which is down and requests a pause that ends long after the test."""
    site = Site(folder, url, prefix)
    site.config["registry"]["grace"] = "5m"
    del site.config["delivery"]["retry"]["max_delay"]  # it bounds the pause
    site.write()
    site.write_clients([client(name, clients.url(name)) for name in ("shop", "down")])
    tokens = [
        {"name": "idp", "token": API_TOKEN, "scopes": ["publish"]},
        {"name": "sre", "token": "r", "scopes": ["read"]},
    ]
    (folder / "tokens.yaml").write_text(json.dumps(tokens))
    return site


async def status(running: WorkerProcess) -> tuple[int, Any]:
    """Return the status document."""
    return await running.ask("GET", "/v1/status", "r")


async def run(site: Site, *words: str) -> CompletedProcess[str]:
    """`notifier status`."""
    return await notifier_at(site, "status", *words, settings={"COLUMNS": "140"})


def reported(document: Any) -> dict[str, tuple[int, str | None]]:
    """Return each client's count and reason."""
    return {each["client_id"]: (each["delivered"] + each["put_off"], each["reason"]) for each in document["clients"]}


@pytest.mark.parametrize("place", [pytest.param("sqlite", marks=pytest.mark.full), "rabbitmq"], indirect=True)
async def test_status_shows_clients_and_pending_deliveries(place: tuple[str, str], tmp_path: Path) -> None:
    """Over HTTP and at the command line alike: pending deliveries, and which client is down and why."""
    async with Clients(judge) as clients:
        site = site_of(tmp_path, clients, *place)
        async with replying_worker(site) as running:
            assert (await running.post(EVENT))[0] == 202
            expected = {"shop": (1, None), "down": (1, "server_error")}
            _, document = await until(lambda: status(running), lambda answer: reported(answer[1]) == expected)
            assert document["workers"]["answered"] == 1
            assert document["clients"][0]["client_id"] == "down"
            await until(lambda: status(running), lambda answer: answer[1]["queues"]["delayed"]["ready"] == 1)
            assert (await running.ask("GET", "/v1/status"))[0] == 403
            # A busy machine may exceed the two seconds for an answer: hence again.
            done = await until(lambda: run(site, "--json"), lambda done: reported(json.loads(done.stdout)) == expected)
            assert (done.returncode, done.stderr) == (0, "")
            done = await until(lambda: run(site), lambda done: "1 of 1 worker answered" in done.stdout)
            assert re.search(r"down +unreachable .* server_error 503 +circuit +in [0-9]+ min", done.stdout)
            assert "1 client is healthy" in done.stdout
            doctor = await notifier_at(site, "doctor")
            assert re.search(r"✗ down: .* accepts connections, but a worker reports server_error 503", doctor.stdout)
            assert re.search(r"✓ shop: .* accepts connections", doctor.stdout)
        done = await run(site)
        assert done.returncode == 0
        assert re.search(r"delayed +[1-3] ", done.stdout)
        if place[0].startswith("sqlite"):
            assert "No worker consumes the queue" in done.stdout


@pytest.mark.full
async def test_broker_policy_is_reported_in_log_metric_status_doctor(
    rabbitmq: RabbitmqNode | None, own_vhost: str, tmp_path: Path, amqp_url: str, prefix: str
) -> None:
    """By the worker's log, metric and status, and by the doctor, which fails over it. The worker goes on."""
    if rabbitmq is None:
        pytest.skip("needs a node of ours")
    definition = ("--apply-to", "queues", prefix, f"^{prefix}[.]", '{"overflow": "drop-head"}')
    await asyncio.to_thread(rabbitmq.ctl, "set_policy", "-p", own_vhost, *definition)
    try:
        async with Clients(judge) as clients:
            site = site_of(tmp_path, clients, amqp_url, prefix)
            async with worker(site) as running:
                line = await running.until_logged("queue_policy", patience=10)
                assert line["level"] == "warning"
                await running.until_metric(1, "queue_policy_overrides", key="overflow")
                await running.until_metric(1, "queue_policy_overrides")
                assert line["reason"] in (await run(site)).stdout
                assert (await running.post({**EVENT, "clients": ["shop"]}))[0] == 202
                await clients.until_notified("shop", {"s1"})
            doctor = await notifier_at(site, "doctor")
            assert doctor.returncode == 1
            assert line["reason"] in " ".join(doctor.stdout.split())
    finally:
        await asyncio.to_thread(rabbitmq.ctl, "clear_policy", "-p", own_vhost, prefix)


@pytest.mark.full  # a worker is missed after 30 s
@pytest.mark.timeout(300)
async def test_hung_worker_is_still_listed(tmp_path: Path, amqp_url: str, prefix: str) -> None:
    """By status and doctor, as last seen; a stopped worker is not, and a resumed worker is listed again."""
    async with Clients(judge) as clients:
        site = site_of(tmp_path, clients, amqp_url, prefix)
        async with replying_worker(site) as first, replying_worker(site) as second:
            async with replying_worker(site) as third:
                assert await third.stop() == 0
            second.send(signal.SIGSTOP)
            try:
                await until(lambda: first.metric("workers_vanished"), lambda count: count == 1, 60)
                shown = (await run(site)).stdout
                assert re.search(r"^! worker vanished \S+:\d+, since ", shown, re.MULTILINE)
                examined = await notifier_at(site, "doctor")
                assert "worker vanished" in examined.stdout
            finally:
                second.send(signal.SIGCONT)
            await until(lambda: first.metric("workers_vanished"), lambda count: count == 0, 60)
            assert "vanished" not in (await run(site)).stdout


@pytest.mark.full
async def test_worker_that_is_not_ready_is_listed(tmp_path: Path, amqp_url: str, prefix: str) -> None:
    """In each call, with the reason: it waits for its list of clients."""
    async with Clients(judge) as clients:
        site = site_of(tmp_path, clients, amqp_url, prefix)
        async with replying_worker(site):
            source = {"name": "list", "issuers": [ISSUER, OTHER], "http": {"url": "http://127.0.0.1:9/"}}
            site.config["registry"] = {"sources": [source]}
            site.write()
            async with worker(site, ready=False) as waiting:
                await waiting.until_logged("replying")
                # A busy machine may exceed the two seconds for an answer: hence until.
                done = await until(lambda: run(site), lambda done: "2 of 2 workers answered" in done.stdout)
                assert done.stdout.count("not ready: ") == 1
                for _ in range(3):
                    assert "of 2 workers answered" in (await run(site)).stdout


@pytest.mark.full
async def test_no_delivery_is_pending_after_a_pause_ended(tmp_path: Path) -> None:
    """Deliveries deferred for minutes are released by the reload, and leave the counts of the worker."""

    async with Clients() as clients:
        site = site_of(tmp_path, clients, "sqlite:notifier.db", "notifier")
        shop = client("shop", clients.url("shop"))
        site.write_clients([shop | {"notifier": {"paused": True}}])

        async with worker(site) as running:

            async def delayed() -> int:
                _, document = await status(running)
                return sum(row["delayed"] for row in document["clients"])

            for number in range(3):
                await running.post({"iss": ISSUER, "sub": "alice", "sid": f"s{number}", "clients": ["shop"]})
            await until(delayed, lambda count: count == 3)
            site.write_clients([shop])
            await clients.until_notified("shop", ["s0", "s1", "s2"])
            await until(delayed, lambda count: count == 0)
