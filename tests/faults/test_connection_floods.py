"""Strangers hold bytes in connections. No listener grows by more than a bound, and each answers meanwhile."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.connection_floods import FLOODS, Flood, flood
from tests.faults.soak_figures import resident
from tests.system.site import Site
from tests.system.worker_process import WorkerProcess, worker

ROOM = 64.0  # MiB that a worker may grow
SLOWEST = 3.0  # seconds of CPU until an answer: at most 1.0 on an undisturbed core
SECONDS = 2.0  # of each flood
ATTEMPTS = 10  # of a good request
PATH = {"ops": "/livez", "api": "/v1/openapi.json", "web": "/none"}


async def request(pid: int, port: int, path: str) -> float:
    """Send a good request. Returns the seconds that the worker computed until its answer, whatever else is running.

    A connection may be closed for a newer one, where too many come at once. Then the request is sent again.
    """
    began = computed(pid)
    for _ in range(ATTEMPTS):
        with contextlib.suppress(ConnectionError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with contextlib.closing(writer):
                writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
                if (await reader.read()).startswith(b"HTTP/1.1 "):
                    return computed(pid) - began
    raise AssertionError(f"no answer in {ATTEMPTS} attempts")


def computed(pid: int) -> float:
    """Return the seconds of processor time that all threads of a process have used, also ended ones."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def suffered(running: WorkerProcess, port: int, path: str, one: Flood) -> tuple[float, float]:
    """Return by how many MiB the worker grew, and the slowest answer in seconds."""
    before, most, slowest = resident(running.pid), 0, 0.0
    flooding = asyncio.create_task(asyncio.to_thread(flood, port, one, SECONDS))
    while not flooding.done():
        slowest = max(slowest, await request(running.pid, port, path))
        most = max(most, resident(running.pid))
        await asyncio.wait([flooding], timeout=0.02)
    await flooding
    return (max(most, resident(running.pid)) - before) / 2**20, slowest


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[WorkerProcess]:
    """A worker with three listeners."""
    site = Site(tmp_path, f"sqlite:{tmp_path / 'queue.db'}")
    site.config["log"]["level"] = "info"
    site.serve_web()
    site.write()
    async with worker(site) as running:
        yield running


@pytest.mark.alone
@pytest.mark.timeout(600)
@pytest.mark.parametrize("listener", PATH)
async def test_strangers_hold_little_memory(running: WorkerProcess, listener: str) -> None:
    """Whatever they send and do not read, the worker grows by 64 MiB at most, and answers within 3 s of CPU."""
    port = int((await running.at(listener)).rpartition(":")[2])
    await request(running.pid, port, PATH[listener])
    began, bad = resident(running.pid), []
    for name, one in FLOODS.items():
        grown, slowest = await suffered(running, port, PATH[listener], one)
        line = f"{listener}: {name}: {grown:.0f} MiB, {slowest:.2f} s"
        print(line)  # noqa: T201  the figures
        if grown > ROOM or slowest > SLOWEST:
            bad.append(line)
    total = (resident(running.pid) - began) / 2**20
    print(f"{listener}: {total:.0f} MiB in the end")  # noqa: T201
    assert not bad
    assert total < 1.6 * ROOM  # after all of them; of the API's half is for unread copies of its description
