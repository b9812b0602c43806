"""`logout_notifier_publisher` in a small identity server: `publishers/tests/python/host.py`."""

import asyncio
import contextlib
import json
import os
import sqlite3
import sys
import time
from pathlib import Path

from publishers.conformance.host_process import HostProcess
from publishers.conformance.subject import Away, Session, Settings, Traits

ROOT = Path(__file__).parents[3]
HOST = "publishers.tests.python.host"
IN_HAND = 1.0  # seconds from a start until the store completes what it had in hand


def subject(folder: Path) -> "Python":
    """One, not started."""
    return Python(folder, "host")


class Python(HostProcess):
    """See the module."""

    name = "python"
    traits = Traits()

    def __init__(self, folder: Path, part: str) -> None:
        super().__init__(folder, part)
        self._sessions = folder / "sessions.db"
        self._in_hand: list[str] = []

    async def start(self, settings: Settings) -> None:
        """It prints its port."""
        options = {"sessions": str(self._sessions), "publisher": _publisher(settings)}
        words = (sys.executable, "-m", HOST, json.dumps(options))
        await self._begin(*words, folder=ROOT, environment={**os.environ, **settings.environment})
        if self._in_hand:
            await asyncio.sleep(IN_HAND)
            with contextlib.closing(sqlite3.connect(self._sessions)) as store, store:
                store.execute("DELETE FROM sessions WHERE key = ?", (self._in_hand.pop(),))

    async def sibling(self) -> "Python":
        """At the same store."""
        return Python(self._folder, self._part_of_sibling())

    async def sign_in(self, count: int = 1) -> list[Session]:
        """The cookie is the key of the store."""
        return await self._sign_in(count, "mail", "shop")

    async def sign_out(self, session: Session) -> float:
        """With the cookie."""
        before = time.monotonic()
        await self._ask("POST", "/sign-out", params={"key": session.secret[0]})
        return time.monotonic() - before

    async def die_deleting(self, session: Session) -> None:
        """The store is played by us from then on."""
        with contextlib.suppress(Away):
            await self._ask("POST", "/die-deleting", params={"key": session.secret[0]})
        await self.kill()
        self._in_hand.append(session.secret[0])

    async def lives(self, session: Session) -> bool:
        """Return the store's answer. No process need run."""
        with contextlib.closing(sqlite3.connect(self._sessions)) as store:
            return store.execute("SELECT 1 FROM sessions WHERE key = ?", session.secret[:1]).fetchone() is not None

    def memory(self) -> int:
        """Resident."""
        process = self._process
        assert process is not None
        pages = Path(f"/proc/{process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _publisher(settings: Settings) -> dict[str, object]:
    return {
        "url": settings.url,
        "secret_file": str(settings.secret_file),
        "outbox": str(settings.outbox),
        "ca_file": None if settings.ca_file is None else str(settings.ca_file),
        "outbox_max_events": settings.max_events,
        "outbox_max_bytes": settings.max_bytes,
        "outbox_max_age": settings.max_age,
        "sign_out_limit": settings.sign_out_limit,
        "publish_limit": settings.publish_limit,
        "drain_limit": settings.drain_limit,
    }
