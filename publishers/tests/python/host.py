"""A small identity server: sessions in SQLite, sign-in and sign-out over HTTP, events by `logout_notifier_publisher`.

`python -m publishers.tests.python.host OPTIONS`, as JSON. It prints its port once it serves.
"""

import asyncio
import json
import logging
import os
import secrets
import signal
import sqlite3
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from aiohttp import web
from logout_notifier_publisher import Publisher, PublisherSettings, SessionEnded

ISSUER = "https://id.example.com"
CLIENTS = ["mail", "shop"]


class Sessions:
    """The store: what it is asked blocks, and so runs on its own thread. `deadly`: whoever deletes is killed."""

    deadly = False

    def __init__(self, path: Path) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._database = sqlite3.connect(path, check_same_thread=False, timeout=30)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = OFF")  # the process is killed, not the machine
        self._database.execute("CREATE TABLE IF NOT EXISTS sessions (key TEXT PRIMARY KEY, sub TEXT, sid TEXT)")
        self._database.commit()

    async def _ask(self, sql: str, *values: str) -> list[tuple[str, ...]]:
        def ask() -> list[tuple[str, ...]]:
            with self._database:
                return self._database.execute(sql, values).fetchall()

        return await asyncio.get_running_loop().run_in_executor(self._thread, ask)

    async def create(self) -> dict[str, str]:
        """A user has signed in."""
        made = {"key": secrets.token_hex(16), "sub": f"user-{secrets.token_hex(4)}", "sid": secrets.token_hex(8)}
        await self._ask("INSERT INTO sessions VALUES (?, ?, ?)", made["key"], made["sub"], made["sid"])
        return made

    async def get(self, key: str) -> dict[str, str] | None:
        """The session, if it lives."""
        rows = await self._ask("SELECT sub, sid FROM sessions WHERE key = ?", key)
        return {"sub": rows[0][0], "sid": rows[0][1]} if rows else None

    async def lives(self, key: object) -> bool:
        """What the publisher asks."""
        return await self.get(str(key)) is not None

    async def delete(self, key: str) -> None:
        """Its end."""
        if self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        await self._ask("DELETE FROM sessions WHERE key = ?", key)


class Server:
    """The routes."""

    def __init__(self, sessions: Sessions, publisher: Publisher) -> None:
        self._sessions = sessions
        self._publisher = publisher

    def routes(self) -> list[web.RouteDef]:
        """All there are."""
        return [
            web.post("/sign-in", self._sign_in),
            web.post("/sign-out", self._sign_out),
            web.post("/end-all", self._end_all),
            web.post("/die-deleting", self._die_deleting),
        ]

    async def _sign_in(self, request: web.Request) -> web.Response:
        count = int(request.query.get("count", "1"))
        return web.json_response([await self._sessions.create() for _ in range(count)])

    async def _sign_out(self, request: web.Request) -> web.Response:
        await self._end(request.query["key"], "user_logout")
        return web.Response(text="signed out")

    async def _end_all(self, request: web.Request) -> web.Response:
        for key in await request.json():
            await self._end(key, "terminated", bulk=True)
        return web.Response(text="signed out")

    async def _die_deleting(self, request: web.Request) -> web.Response:
        self._sessions.deadly = True
        return await self._sign_out(request)

    async def _end(self, key: str, reason: str, *, bulk: bool = False) -> None:
        session = await self._sessions.get(key)
        if session is None:
            return
        ended = SessionEnded(iss=ISSUER, sub=session["sub"], sid=session["sid"], clients=CLIENTS, reason=reason)
        async with self._publisher.publishing(ended, session=key, bulk=bulk):
            await self._sessions.delete(key)


async def serve(sessions: Sessions, publisher: Publisher) -> None:
    """Until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    application = web.Application()
    application.add_routes(Server(sessions, publisher).routes())
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)  # noqa: T201  whoever started it reads this
    await stop.wait()
    await runner.cleanup()


async def main(options: dict[str, Any]) -> None:
    """With the publisher as it is."""
    sessions = Sessions(Path(options["sessions"]))
    async with Publisher(PublisherSettings.from_mapping(options["publisher"]), alive=sessions.lives) as publisher:
        await serve(sessions, publisher)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    asyncio.run(main(json.loads(sys.argv[1])))
