"""A Prometheus for a test: it scrapes a worker every second, with the shipped rules."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.apt_programs import program
from tests.system.waiting import until

PATIENCE = 90.0
RULES = Path(__file__).parents[2] / "deploy" / "prometheus"


class Prometheus:
    """A running Prometheus, queried by its API."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self._session = session

    async def get(self, path: str, **parameters: str) -> Any:
        """Return the `data` of an answer; None if it is not available (yet). An invalid query fails the test."""
        try:
            async with self._session.get(self.url + path, params=parameters) as response:
                assert response.status != 400, await response.text()
                return (await response.json())["data"] if response.status == 200 else None
        except aiohttp.ClientConnectionError:
            return None

    async def query(self, expr: str) -> list[dict[str, Any]]:
        """Return the samples of an instant query that are numbers."""
        data = await self.get("/api/v1/query", query=expr)
        return [] if data is None else [one for one in data["result"] if one["value"][1] != "NaN"]


@contextlib.asynccontextmanager
async def prometheus(folder: Path, targets: Sequence[str]) -> AsyncIterator[Prometheus]:
    """Run a server that scrapes these (host:port) while it is entered."""
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES / "recording.yaml"), str(RULES / "alerts.yaml")],
        "scrape_configs": [{"job_name": "notifier", "static_configs": [{"targets": list(targets)}]}],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))
    async with aiohttp.ClientSession() as session, contextlib.AsyncExitStack() as stack:
        for _ in range(3):  # somebody else may take the port between our look and its start
            server = Prometheus(f"http://{_free_address()}", session)
            process = await stack.enter_async_context(_running(folder, server.url))
            if await _started(server, process):
                yield server
                return
        raise AssertionError((folder / "prometheus.log").read_text()[-2000:])


async def _started(server: Prometheus, process: asyncio.subprocess.Process) -> bool:
    """Return whether it answers and has scraped; False if it has ended."""
    await until(lambda: server.query("up"), lambda up: bool(up) or process.returncode is not None, patience=PATIENCE)
    return process.returncode is None


def _free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"127.0.0.1:{free.getsockname()[1]}"


@contextlib.asynccontextmanager
async def _running(folder: Path, url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    with (folder / "prometheus.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            program("prometheus", "prometheus"), f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={url.removeprefix('http://')}",
            cwd=folder, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
