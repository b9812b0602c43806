"""`notifier run` as a separate process: start it, wait for log lines, send requests to its listeners, signal it.

Everything it writes to stderr is kept as lines, and every wait is on a line or an answer, bounded by PATIENCE.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from tests.system.loaded_program import LoadedProcess, start_loaded
from tests.system.site import API_TOKEN, Site
from tests.system.waiting import PATIENCE, until

ROOT = Path(__file__).parents[2]
LONGEST_LINE = 1024 * 1024


class WorkerProcess:
    """One worker. Made by `worker`."""

    def __init__(self, process: Process | LoadedProcess, keep: Callable[[str], bool]) -> None:
        self.lines: list[str] = []
        self._keep = keep
        self._process = process
        self._changed = asyncio.Condition()
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self._process.stderr is not None
        async for raw in self._process.stderr:
            if not self._keep(line := raw.decode()):
                continue
            async with self._changed:
                self.lines.append(line)
                self._changed.notify_all()
        async with self._changed:
            self._changed.notify_all()

    # ── its log ──

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.returncode is None

    @property
    def log(self) -> str:
        """The log so far."""
        return "".join(self.lines)

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The log lines of one kind."""
        return [line for line in map(_parsed, self.lines) if line.get("event") == event]

    async def until_logged(
        self, event: str, condition: Callable[[dict[str, Any]], bool] = lambda _: True, *, patience: float = PATIENCE
    ) -> dict[str, Any]:
        """The first line of that kind which satisfies the condition; waits for it."""
        seen = 0
        async with asyncio.timeout(patience), self._changed:
            while True:
                for raw in self.lines[seen:]:
                    line = _parsed(raw)
                    if line.get("event") == event and condition(line):
                        return line
                seen = len(self.lines)
                assert not self._reader.done(), f"the worker ended without saying {event}: {self.log[-4000:]}"
                await self._changed.wait()

    # ── its listeners ──

    async def at(self, face: str) -> str:
        """The base URL of a listener: `ops`, `api` or `web`."""
        return str((await self.until_logged("listening", lambda line: face in line))[face])

    async def ops(self) -> str:
        """The base URL of `/metrics` and the probes."""
        return await self.at("ops")

    async def get(self, path: str) -> tuple[int, str]:
        """Status and body of a GET at the ops listener."""
        url = await self.ops() + path
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return response.status, await response.text()

    async def until_ready(self, *, ready: bool = True, patience: float = PATIENCE) -> None:
        """Wait until `/readyz` answers so."""
        await until(lambda: self.get("/readyz"), lambda answer: answer[0] == (200 if ready else 503), patience)

    async def metric(self, name: str, **labels: str) -> float:
        """Return the sum of the series of `notifier_<name>` with these labels."""
        _, text = await self.get("/metrics")
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == f"notifier_{name}" and labels.items() <= sample.labels.items()
        )

    async def until_metric(self, wanted: float, name: str, **labels: str) -> None:
        """Wait until `metric` has exactly this value: a delivery is counted a moment after its client was notified."""
        await until(lambda: self.metric(name, **labels), lambda value: value == wanted)

    async def post(
        self,
        body: bytes | Mapping[str, object],
        *,
        headers: Mapping[str, str] | None = None,
        token: str | None = API_TOKEN,
        lane: str = "events",
    ) -> tuple[int, dict[str, Any]]:
        """POST /v1/events; status and answer."""
        api = await self.at("api")
        sent = {"Content-Type": "application/json", **(headers or {})}
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        url = f"{api}/v1/events?lane={lane}"
        async with aiohttp.ClientSession() as session, session.post(url, data=data, headers=sent) as response:
            return response.status, await response.json(content_type=None)

    async def ask(self, method: str, path: str, token: str = API_TOKEN, body: object = None) -> tuple[int, Any]:
        """Status and document of a request to the API."""
        async with (
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session,
            session.request(method, await self.at("api") + path, json=body) as response,
        ):
            return response.status, await response.json(content_type=None)

    # ── its life ──

    async def descriptors(self) -> int:
        """How many files and sockets it has open."""
        return len(await asyncio.to_thread(os.listdir, f"/proc/{self.pid}/fd"))

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        # Not by `send_signal`: that looks whether the process lives, and may take its exit status from asyncio.
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    async def ended(self, patience: float = PATIENCE) -> int:
        """Its exit code, once it has one."""
        async with asyncio.timeout(patience):
            code = await self._process.wait()
            await self._reader
        return code

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal it, and wait for its exit code."""
        self.send(number)
        return await self.ended()


def _parsed(line: str) -> dict[str, Any]:
    try:
        return dict(json.loads(line))
    except ValueError:
        return {}


def console_script() -> list[str]:
    """The console script where the package is installed, the module otherwise."""
    script = Path(sys.executable).with_name("notifier")
    return [str(script)] if script.exists() else [sys.executable, "-m", "notifier"]


@contextlib.asynccontextmanager
async def worker(
    site: Site,
    *,
    ready: bool = True,
    command: Sequence[str] | None = None,
    keep: Callable[[str], bool] = lambda _: True,
    settings: Mapping[str, str] | None = None,
) -> AsyncIterator[WorkerProcess]:
    """A running worker, killed at the end if it still runs. `ready`: only once it consumes.

    `command`: another program than `notifier`. `settings`: what its environment has besides. `keep`: which of the lines
    that it writes are kept; a long run would fill the memory with attempts.
    """
    environment = {
        name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "VIRTUAL_ENV", "TMPDIR")
    }
    environment |= {"PYTHONPATH": str(ROOT), **(settings or {})}
    words: tuple[str, ...] = ("run", "-c", str(site.file))
    if command is not None and command[0] == sys.executable and command[1].endswith(".py"):
        words, command = (*command[1:], *words), None
    process: Process | LoadedProcess
    if command is None:
        process = await start_loaded(words, cwd=site.folder, env=environment, limit=LONGEST_LINE)
    else:
        process = await asyncio.create_subprocess_exec(
            *command, *words, cwd=site.folder, env=environment, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, limit=LONGEST_LINE,
        )  # fmt: skip
    running = WorkerProcess(process, keep)
    try:
        if ready:
            await running.until_logged("consuming")
            await running.until_ready()
        yield running
    except Exception as error:
        error.add_note(f"the worker's last log lines: {running.log[-4000:]}")
        raise
    finally:
        if running.running:
            process.kill()
        code = await running.ended()
        logs = site.folder / "logs"  # which a failed test may keep
        logs.mkdir(exist_ok=True)
        (logs / f"worker-{running.pid}.log").write_text(f"{running.log}ended with {code}\n")


@contextlib.asynccontextmanager
async def replying_worker(site: Site) -> AsyncIterator[WorkerProcess]:
    """A running worker that replies to others on its broker; an embedded queue has no others."""
    async with worker(site) as running:
        if site.queue_url.startswith("amqp"):
            await running.until_logged("replying")
        yield running
