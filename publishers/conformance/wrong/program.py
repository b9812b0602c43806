"""A publisher for `tests/publishers/python/host.py` that keeps the contract, unless it is told to break a part of it.

It proves that the cases can fail, and is for nothing else. What it logs goes to standard error.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import ssl
import sys
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aio_pika
import aiohttp

from notifier.publisher import SessionEnded
from tests.publishers.python.host import Sessions, serve

PAUSE = 0.1
WINDOW = 0.5  # seconds in which a kill must hit: of four sign-outs at once, on a busy machine too
LANES = ["events", "bulk"]
HELD: list[Any] = []  # locks, and what the greedy one keeps


class Program:
    """See the module. `wrong`: which part of the contract it breaks."""

    def __init__(self, wrong: str, options: dict[str, Any], sessions: Sessions) -> None:
        self.wrong = wrong
        self.options = options
        self.sessions = sessions
        self.root = Path(options["outbox"])
        self.memory: list[tuple[str, dict[str, Any]]] = []
        self.password = self._secret()
        self.channels: dict[str, aio_pika.abc.AbstractChannel] = {}
        self.connections: dict[str, aio_pika.abc.AbstractConnection] = {}
        self.closing: set[asyncio.Future[Any]] = set()
        self.folder: Path

    def _secret(self) -> str:
        return Path(self.options["secret_file"]).read_text().strip()

    # ── the outbox ──

    async def claim(self) -> Path:
        self.root.mkdir(parents=True, exist_ok=True)
        for number in range(16):
            folder = self.root / f"{number:02d}"
            folder.mkdir(exist_ok=True)
            lock = (folder / "lock").open("w")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if self.wrong != "steals":
                    continue
            HELD.append(lock)
            await self._take_over(folder)
            return folder
        raise RuntimeError("no folder is free")

    async def _take_over(self, folder: Path) -> None:
        """At a start: of a `.pending` the session says what becomes of it. Other dead processes' files too."""
        for other in [folder] if self.wrong == "steals" else sorted(self.root.iterdir()):
            with contextlib.suppress(OSError), (other / "lock").open("w") as lock:
                if other != folder:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for path in sorted(other.glob("*.pending")):
                    await self._settle(path)
                for path in sorted(other.glob("*.json")):
                    path.replace(folder / path.name)

    async def _settle(self, path: Path) -> None:
        with contextlib.suppress(ValueError, OSError):
            lives = await self.sessions.lives(json.loads(path.read_text())["session"])
            if self.wrong == "steals" or (lives and self.wrong != "tells living"):
                path.unlink()
            else:
                path.rename(path.with_suffix(".json"))

    def write(self, lane: str, session: str, event: dict[str, Any]) -> Path | None:
        """The file, durable; None if it is kept in memory."""
        full = len(list(self.folder.glob("*.json"))) >= self.options["outbox_max_events"] and self.wrong != "no limit"
        if full or self.wrong == "no file":
            self._keep(lane, event)
            return None
        part = self.folder / f"{time.time_ns():020d}.part"
        try:
            with part.open("w") as file:
                file.write(json.dumps({"lane": lane, "session": session, "event": event}))
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            part.unlink()
            if self.wrong == "fails on a full disk":
                raise
            self._keep(lane, event)
            return None
        return part.rename(part.with_suffix(".pending"))

    def _keep(self, lane: str, event: dict[str, Any]) -> None:
        log(f"the outbox takes nothing: event {event['id']} is kept in memory")
        self.memory.append((lane, event))

    def next(self, lane: str) -> tuple[Path | None, dict[str, Any]] | None:
        """The oldest event of the lane; what is no event or too old is set aside."""
        found = sorted(self.folder.glob("*.json"), reverse=self.wrong == "newest first")
        for path in found:
            try:
                held = json.loads(path.read_text())
            except ValueError:
                if self.wrong == "stumbles":
                    raise
                path.rename(path.with_suffix(".refused"))
                log(f"{path.name} holds no event")
                continue
            if time.time_ns() - int(path.stem) > self.options["outbox_max_age"] * 1e9 and self.wrong != "never too old":
                path.rename(path.with_suffix(".expired"))
                continue
            if held["lane"] == lane or self.wrong == "one lane":
                return path, held
        kept = (event for of, event in self.memory if of == lane)
        event = next(kept, None)
        return None if event is None else (None, {"lane": lane, "event": event})

    # ── the sign-out ──

    @contextlib.asynccontextmanager
    async def ending(self, ended: SessionEnded, *, session: str, bulk: bool) -> AsyncIterator[None]:
        """Write; the session is deleted; rename: in this order."""
        lane = LANES[bulk]
        event = {name: getattr(ended, name) for name in ("iss", "sub", "sid", "clients")}
        event["id"] = str(uuid.uuid4())
        path = None if self.wrong == "file after" else self.write(lane, session, event)
        if self.wrong == "tells living":
            await asyncio.sleep(WINDOW)
        if self.wrong == "steals" and path is not None:
            await _until_gone(path)
        yield
        if self.wrong == "file after":
            await asyncio.sleep(WINDOW)
            path = self.write(lane, session, event)
        if path is not None:
            path.rename(path.with_suffix(".json"))
        if self.wrong == "greedy":
            HELD.append(os.urandom(2**20))
        if self.wrong == "talks":
            log(f"session {session} ended")
        while self.wrong == "waits" and path is not None and path.with_suffix(".json").exists():
            await asyncio.sleep(0.02)

    # ── publishing ──

    async def publish_for_ever(self, lane: str) -> None:
        """The oldest of the lane, again and again."""
        while True:
            try:
                found = self.next(lane)
                if found is not None:
                    await self._publish_one(*found)
            except Exception as error:  # noqa: BLE001  a proof of cases, not a product
                log(f"not published: {type(error).__name__}")
                found = None
            await asyncio.sleep(PAUSE if found is None else 0)

    async def _publish_one(self, path: Path | None, held: dict[str, Any]) -> None:
        event, lane = held["event"], held["lane"]
        if self.wrong == "new id":
            event["id"] = str(uuid.uuid4())
        async with asyncio.timeout(self.options["publish_limit"]):
            if self.options["url"].startswith("http"):
                await self._post(path, lane, event)
            else:
                await self._send(lane, event)
        if path is not None:
            path.unlink(missing_ok=True)
        elif (lane, event) in self.memory:
            self.memory.remove((lane, event))

    async def _send(self, lane: str, event: dict[str, Any]) -> None:
        try:
            channel = await self._channel(lane)
            exchange = await channel.get_exchange(f"notifier.{lane}", ensure=False)
            message = aio_pika.Message(
                json.dumps(event).encode(),
                content_type="application/json",
                delivery_mode=1 if self.wrong == "transient" else 2,
                user_id=None if self.wrong == "nameless" else "idp",
                message_id=event["id"],
            )
            mandatory = self.wrong != "not mandatory"
            sending = asyncio.ensure_future(exchange.publish(message, "session.ended", mandatory=mandatory))
            if self.wrong == "no confirm":
                self.closing.add(sending)
                await asyncio.sleep(0)
            else:
                await sending
        except aio_pika.exceptions.DeliveryError:
            raise
        except BaseException:
            self._hang_up(lane)
            raise

    def _hang_up(self, lane: str) -> None:
        """Whatever the broker says, or does not say."""
        connection = self.connections.pop(lane, None)
        self.channels.pop(lane, None)
        if connection is not None:
            self.closing.add(asyncio.ensure_future(connection.close()))

    async def _channel(self, lane: str) -> aio_pika.abc.AbstractChannel:
        """On a connection of the lane's own."""
        if lane not in self.channels:
            url = self.options["url"].replace("idp@", f"idp:{self._now()}@")
            connection = await aio_pika.connect(f"{url}?heartbeat=10", ssl_context=self._tls())
            self.connections[lane] = connection
            self.channels[lane] = await connection.channel(on_return_raises=True)
        return self.channels[lane]

    def _now(self) -> str:
        return self.password if self.wrong == "password once" else self._secret()

    def _tls(self) -> ssl.SSLContext | None:
        if not self.options["url"].startswith("amqps"):
            return None
        context = ssl.create_default_context(cafile=self.options["ca_file"])
        context.check_hostname = self.wrong != "any name"
        return context

    async def _post(self, path: Path | None, lane: str, event: dict[str, Any]) -> None:
        headers = {"Authorization": f"Bearer {self._secret()}"}
        url = f"{self.options['url']}/v1/events" + ("?lane=bulk" if lane == "bulk" else "")
        redirects = self.wrong == "follows"
        async with (
            aiohttp.ClientSession() as http,
            http.post(url, json=event, headers=headers, allow_redirects=redirects) as answer,
        ):
            pause = float(answer.headers.get("Retry-After", 0))
        if answer.status in (400, 413) and path is not None:
            log(f"event {event['id']} was refused")
            if self.wrong != "drops":
                path.rename(path.with_suffix(".refused"))
        elif answer.status != 202 and not (answer.status == 200 and self.wrong == "200 will do"):
            await asyncio.sleep(0 if self.wrong == "hasty" else pause)
            raise RuntimeError(f"answered {answer.status}")


async def _until_gone(path: Path) -> None:
    """Another process has taken it, or not yet."""
    for _ in range(20):
        if not path.exists():
            return
        await asyncio.sleep(0.05)


def log(text: str) -> None:
    """A line."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201  a process of its own


async def main(options: dict[str, Any]) -> None:
    """In place of the publisher that keeps the contract."""
    sessions = Sessions(Path(options["sessions"]))
    program = Program(options["wrong"], options["publisher"], sessions)
    program.folder = await program.claim()
    wanted = LANES[:1] if program.wrong == "one lane" else LANES
    lanes = [asyncio.create_task(program.publish_for_ever(lane)) for lane in wanted]
    await serve(sessions, program)
    for lane in lanes:
        lane.cancel()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
