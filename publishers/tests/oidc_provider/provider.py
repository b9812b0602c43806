"""A provider process of a test: server.js with one version of the library, and with the package or without it."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from publishers.tests.oidc_provider.installed import NODE, npm_folder
from tests.system.waiting import PATIENCE

SERVER = Path(__file__).with_name("server.js")
VERSIONS = ("9.13.3", "8.8.1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What server.js reads. `publisher`: the package's options, None for the library alone.

    `path`: mounted there in Express. `redis`: its sessions are there; empty: in its memory, with the library's own
    adapter. `session`: how many seconds one lives. `emit`: write the library's events to stdout. `faults`: what
    fails from the start. `late`: the package is called after `callback()`, where it should not be.
    """

    version: str
    port: int
    issuer: str
    clients: Sequence[Mapping[str, Any]]
    keys: str
    publisher: Mapping[str, Any] | None = None
    redis: str = ""
    path: str = ""
    session: int = 3600
    emit: bool = True
    late: bool = False
    faults: Mapping[str, str] = field(default_factory=dict)


class Provider:
    """One process, which may be killed and started again."""

    def __init__(self, folder: Path, settings: Settings, environment: Mapping[str, str] | None = None) -> None:
        self.settings = settings
        self.url = f"http://127.0.0.1:{settings.port}{settings.path}"
        self.events: list[dict[str, Any]] = []
        self.lines: list[str] = []
        self._environment = {**os.environ, "NODE_NO_WARNINGS": "1", **(environment or {})}
        self._file = folder / f"provider-{settings.port}.json"
        self._file.write_text(json.dumps(asdict(settings)))
        self._server = _server_in(folder)
        self._process: asyncio.subprocess.Process | None = None
        self._readers: list[asyncio.Task[None]] = []
        self._changed = asyncio.Condition()

    # ── its life ──

    async def start(self) -> None:
        """Start it, and return once it listens."""
        self._process = await asyncio.create_subprocess_exec(
            str(NODE), "--expose-gc", str(self._server), str(self._file),
            env=self._environment, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, limit=1024 * 1024,
        )  # fmt: skip
        started = len(self.events)
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._readers = [
            asyncio.create_task(self._read_events(self._process.stdout)),
            asyncio.create_task(self._read_log(self._process.stderr)),
        ]
        async with asyncio.timeout(PATIENCE), self._changed:
            await self._changed.wait_for(
                lambda: any(each["event"] == "listening" for each in self.events[started:]) or self._readers[0].done()
            )
        assert not self._readers[0].done(), f"the provider ended: {self.log[-4000:]}"

    async def kill(self) -> None:
        """SIGKILL, if it runs."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> int:
        """SIGTERM; its exit code."""
        return await self._end(signal.SIGTERM)

    async def died(self) -> None:
        """Wait for an end that it comes to by itself."""
        assert self._process is not None
        async with asyncio.timeout(PATIENCE):
            await self._process.wait()
            await asyncio.gather(*self._readers)

    async def _end(self, number: signal.Signals) -> int:
        if self._process is None:
            return 0
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)
        await self.died()
        return self._process.returncode or 0

    # ── output ──

    @property
    def log(self) -> str:
        """All that it has written besides, since its first start."""
        return "".join(self.lines)

    async def until_logged(self, *words: str, patience: float = PATIENCE) -> str:
        """The first line of the log that has all these words; waits for it."""

        def found() -> str | None:
            return next((line for line in self.lines if all(word in line for word in words)), None)

        try:
            async with asyncio.timeout(patience), self._changed:
                await self._changed.wait_for(lambda: found() is not None)
        except TimeoutError:
            raise AssertionError(f"{words} is not in the log: {self.log[-4000:]}") from None
        return found() or ""

    async def _read_events(self, stream: asyncio.StreamReader) -> None:
        async for raw in stream:
            async with self._changed:
                if raw.startswith(b'{"event"'):
                    self.events.append(json.loads(raw))
                else:  # the package's log, and advice of the library's
                    self.lines.append(raw.decode())
                self._changed.notify_all()
        async with self._changed:
            self._changed.notify_all()

    async def _read_log(self, stream: asyncio.StreamReader) -> None:
        async for raw in stream:
            async with self._changed:
                self.lines.append(raw.decode())
                self._changed.notify_all()

    # ── asking it ──

    async def own(self, what: str, **query: str) -> dict[str, Any]:
        """Ask the application for something that is about nobody's session."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.url}/own/{what}", params=query) as answer,
        ):
            return dict(await answer.json(content_type=None))

    async def fault(self, name: str, value: str = "") -> None:
        """Let something fail from now on; without a value: no longer."""
        await self.own("fault", name=name, value=value)

    async def jwks(self) -> dict[str, Any]:
        """What the provider publishes."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/jwks") as answer:
            return dict(await answer.json(content_type=None))


def _server_in(folder: Path) -> Path:
    """A copy of server.js that finds the package and the library by their names."""
    server = folder / SERVER.name
    if not server.exists():
        (folder / "node_modules").symlink_to(npm_folder() / "node_modules")
        shutil.copyfile(SERVER, server)
    return server


@contextlib.asynccontextmanager
async def running(folder: Path, settings: Settings) -> AsyncIterator[Provider]:
    """A provider that runs, and is gone at the end."""
    provider = Provider(folder, settings)
    try:
        await provider.start()
        yield provider
    except Exception as error:
        error.add_note(f"the provider's log ends: {provider.log[-4000:]}")
        raise
    finally:
        await provider.kill()
