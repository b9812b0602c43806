"""A full disk below the embedded queue: probe, metric, commands and API say the same, before anything was refused."""

import asyncio
import json
from pathlib import Path

import aiohttp

from tests.support.rabbitmq_node import free_ports
from tests.support.small_disk import filled, small_disk
from tests.system.command import notifier
from tests.system.site import API_TOKEN, Site
from tests.system.waiting import until
from tests.system.worker_process import WorkerProcess, worker


async def health(running: WorkerProcess) -> tuple[int, str | None, float]:
    """What the probe and the metrics say: status, problem, blocked."""
    status, body = await running.get("/readyz")
    told = json.loads(body)
    assert told["blocked"] == (told["problem"] is not None)
    return status, told["problem"], await running.metric("publishing_blocked")


async def post(port: int, size: int) -> tuple[int, str]:
    """The status that an event of so many bytes more is answered with, and the beginning of what it says."""
    event = {"iss": "https://id.example.com", "sub": "alice", "clients": ["shop"], "note": "." * size}
    headers = {"Authorization": f"Bearer {API_TOKEN}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"http://127.0.0.1:{port}/v1/events", json=event) as response,
    ):
        return response.status, (await response.json(content_type=None)).get("title", "")[:29]


async def said(site: Site, command: str) -> tuple[int, str]:
    """How a command ends, and what it prints."""
    done = await asyncio.to_thread(
        notifier, command, "-c", site.file, cwd=site.file.parent, settings={"COLUMNS": "250"}
    )
    return done.returncode, done.stdout + done.stderr


async def test_a_full_disk_is_told_alike_by_all(tmp_path: Path) -> None:
    """Nobody speaks of a broker. When there is room again, all is well."""
    with small_disk(tmp_path / "disk", mib=12) as disk:
        [port] = free_ports(1)
        site = Site(tmp_path, f"sqlite:{disk / 'queue.db'}")
        site.config["api"]["listen"] = f"127.0.0.1:{port}"
        site.write()
        site.write_clients([])
        text = f"the disk of the queue file {disk / 'queue.db'} is full (less than 2 MiB is free); make room there"
        async with worker(site) as running:
            await running.until_ready()
            with filled(disk):
                await until(lambda: health(running), lambda told: told == (200, text, 1.0))
                status, printed = await said(site, "status")
                assert (status, text in printed, "broker" in printed) == (0, True, False), printed
                status, printed = await said(site, "doctor")
                assert (status, text in printed, "broker" in printed) == (1, True, False), printed
                assert "is whole" not in printed
                assert [await post(port, size) for size in (0, 500, 100_000)] == [
                    (503, "The disk of the queue is full")
                ] * 3
                assert (await health(running))[1] == text
                await running.until_said("publishing_blocked")
            await until(lambda: health(running), lambda told: told == (200, None, 0.0))
            assert [await post(port, size) for size in (0, 100_000)] == [(202, "")] * 2
            status, printed = await said(site, "doctor")
            assert "is whole" in printed
            [line] = running.said("publishing_blocked")
            assert (line["reason"], "broker" in str(line)) == (text, False)
            await running.until_said("publishing_unblocked")
