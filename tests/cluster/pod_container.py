"""One container of a pod: its process, its probes, and its next start."""

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

from tests.cluster.sandbox import Sandbox

Begin = Callable[[], Awaitable[Sandbox]]
MOST_BACK_OFF = 20.0  # seconds; a kubelet waits up to 300


def now() -> str:
    """The time, as the API writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class PodContainer:
    """From its first start to its end. `changed` is called whenever its status is another."""

    def __init__(
        self, spec: Mapping[str, Any], address: str, log: Path, changed: Callable[[], Awaitable[None]]
    ) -> None:
        self.spec = spec
        self.log = log
        self.sandbox: Sandbox | None = None
        self.ready = False
        self.ended: dict[str, Any] | None = None
        self._address = address
        self._changed = changed
        self._state: dict[str, Any] = {"waiting": {"reason": "ContainerCreating"}}
        self._restarts = 0
        self._started = False

    @property
    def name(self) -> str:
        """As the pod names it."""
        return str(self.spec["name"])

    def status(self) -> dict[str, Any]:
        """As a kubelet tells it."""
        return {
            "name": self.name, "image": self.spec["image"], "imageID": "", "ready": self.ready,
            "started": self._started, "restartCount": self._restarts, "state": self._state,
        }  # fmt: skip

    async def wait_for(self, reason: str, message: str) -> None:
        """It cannot start yet."""
        await self._become({"waiting": {"reason": reason, "message": message}})

    async def pretend(self, *, ends: bool) -> None:
        """Run nothing, and be ready; or be done, where it `ends`."""
        since = now()
        self.ready = self._started = True
        await self._become({"running": {"startedAt": since}})
        if ends:
            await self._over(0, since)

    async def run(self, begin: Begin, again: Callable[[int], bool]) -> None:
        """Run it, and again after each end whose status `again` is true of."""
        while True:
            since = now()
            self.sandbox = await begin()
            await self._become({"running": {"startedAt": since}})
            probes = asyncio.create_task(self._probe(self.sandbox))
            try:
                await self.sandbox.ended()
            finally:
                probes.cancel()
            code = self.sandbox.code
            self.ready = self._started = False
            if not again(code):
                await self._over(code, since)
                return
            self._restarts += 1
            await self.wait_for("CrashLoopBackOff", f"exit {code}")
            await asyncio.sleep(min(2.0**self._restarts, MOST_BACK_OFF))

    async def stop(self, until: float) -> bool:
        """`preStop`, SIGTERM, and SIGKILL at that time of the loop. Whether it had to be killed."""
        loop = asyncio.get_running_loop()
        if self.sandbox is None or not self.sandbox.running:
            return False
        before = self.spec.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        await asyncio.sleep(min(before, max(0.0, until - loop.time())))
        self.sandbox.signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self.sandbox.ended()
                return False
        await self.sandbox.kill()
        return True

    async def kill(self) -> None:
        """End it at once."""
        if self.sandbox is not None:
            await self.sandbox.kill()

    async def _become(self, state: dict[str, Any]) -> None:
        self._state = state
        await self._changed()

    async def _over(self, code: int, since: str) -> None:
        reason = "Error" if code else "Completed"
        self.ready = False
        self.ended = {"exitCode": code, "reason": reason, "startedAt": since, "finishedAt": now()}
        await self._become({"terminated": self.ended})

    # ── probes ──

    async def _probe(self, sandbox: Sandbox) -> None:
        """Startup; then readiness and liveness side by side."""
        async with aiohttp.ClientSession() as session:
            startup = self.spec.get("startupProbe")
            if startup and not await self._passes(session, startup):
                await sandbox.kill()
                return
            self._started = True
            await asyncio.gather(self._watch_ready(session), self._watch_alive(session, sandbox))

    async def _passes(self, session: aiohttp.ClientSession, probe: Mapping[str, Any]) -> bool:
        for _ in range(probe.get("failureThreshold", 3)):
            if await self._ask(session, probe):
                return True
            await asyncio.sleep(probe.get("periodSeconds", 10))
        return False

    async def _watch_ready(self, session: aiohttp.ClientSession) -> None:
        probe, failed = self.spec.get("readinessProbe"), 0
        while True:
            good = probe is None or await self._ask(session, probe)
            failed = 0 if good else failed + 1
            wanted = good or (self.ready and failed < (probe or {}).get("failureThreshold", 3))
            if wanted != self.ready:
                self.ready = wanted
                await self._changed()
            if probe is None:
                return
            await asyncio.sleep(probe.get("periodSeconds", 10))

    async def _watch_alive(self, session: aiohttp.ClientSession, sandbox: Sandbox) -> None:
        probe, failed = self.spec.get("livenessProbe"), 0
        while probe:
            failed = 0 if await self._ask(session, probe) else failed + 1
            if failed >= probe.get("failureThreshold", 3):
                await sandbox.kill()
                return
            await asyncio.sleep(probe.get("periodSeconds", 10))

    async def _ask(self, session: aiohttp.ClientSession, probe: Mapping[str, Any]) -> bool:
        ports = {port.get("name"): port["containerPort"] for port in self.spec.get("ports") or ()}
        asked = probe.get("httpGet") or probe["tcpSocket"]
        port = ports.get(asked["port"], asked["port"])
        with contextlib.suppress(OSError, TimeoutError, aiohttp.ClientError):
            async with asyncio.timeout(probe.get("timeoutSeconds", 1)):
                if "tcpSocket" in probe:
                    _, writer = await asyncio.open_connection(self._address, port)
                    writer.close()
                    return True
                async with session.get(f"http://{self._address}:{port}{asked.get('path', '/')}") as answer:
                    return answer.status < 400
        return False
