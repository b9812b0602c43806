"""A Prometheus of the test's own: scrapes a worker every second, with the rules that we ship."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from tests.apt_programs import program
from tests.system.waiting import until

RULES = Path(__file__).parents[2] / "deploy" / "prometheus"


class Prometheus:
    """Asked by its API."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url
        self._session = session

    async def get(self, path: str, **parameters: str) -> Any:
        """The `data` of an answer; None where it is not there (yet). A query that is wrong fails the test."""
        try:
            async with self._session.get(self._url + path, params=parameters) as response:
                assert response.status != 400, await response.text()
                return (await response.json())["data"] if response.status == 200 else None
        except aiohttp.ClientConnectionError:
            return None

    async def query(self, expr: str) -> list[dict[str, Any]]:
        """The samples of an instant query, without those that are no number."""
        data = await self.get("/api/v1/query", query=expr)
        return [] if data is None else [one for one in data["result"] if one["value"][1] != "NaN"]


@contextlib.asynccontextmanager
async def prometheus(folder: Path, targets: Sequence[str]) -> AsyncIterator[Prometheus]:
    """A server that scrapes these (host:port), for as long as it is entered."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    (folder / "prometheus.yml").write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                "rule_files": [str(RULES / "recording.yaml"), str(RULES / "alerts.yaml")],
                "scrape_configs": [{"job_name": "notifier", "static_configs": [{"targets": list(targets)}]}],
            }
        )
    )
    with (folder / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            program("prometheus", "prometheus"), f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={address}",
            cwd=folder, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            async with aiohttp.ClientSession() as session:
                server = Prometheus(f"http://{address}", session)
                await until(lambda: server.query("up"), bool, patience=60.0)
                yield server
        finally:
            process.kill()
            await process.wait()
