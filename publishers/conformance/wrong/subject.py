"""The program of this folder as a subject: right, or wrong in one way."""

import asyncio
import json
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from publishers.conformance.subject import Away, Session, Settings, SignOutFailed, Traits

ROOT = Path(__file__).parents[3]
ANSWER_WITHIN = 3.0


def subject(folder: Path, wrong: str = "") -> "Program":
    """One, not started."""
    return Program(folder, wrong)


class Program:
    """See the module."""

    name = "program"
    traits = Traits(bulk=True)

    def __init__(self, folder: Path, wrong: str = "") -> None:
        self._folder = folder
        self._wrong = wrong
        self._log = folder / f"log-{uuid.uuid4()}"
        self._process: asyncio.subprocess.Process | None = None
        self._answers: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._reading: asyncio.Task[None] | None = None
        (folder / "sessions").mkdir(parents=True, exist_ok=True)

    async def start(self, settings: Settings) -> None:
        options = {
            "wrong": self._wrong,
            "sessions": str(self._folder / "sessions"),
            "outbox": str(settings.outbox),
            "url": settings.url,
            "secret_file": str(settings.secret_file),
            "ca_file": str(settings.ca_file),
            "publish_limit": settings.publish_limit,
            "max_events": settings.max_events,
            "max_age": settings.max_age,
        }
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "publishers.conformance.wrong.program", json.dumps(options),
                cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log,
            )  # fmt: skip
        assert self._process.stdout is not None
        assert await self._process.stdout.readline(), self.log()
        self._reading = asyncio.create_task(self._read(self._process.stdout))

    async def _read(self, stdout: asyncio.StreamReader) -> None:
        async for line in stdout:
            answer = json.loads(line)
            waiting = self._answers.pop(answer["key"])
            if not waiting.done():
                waiting.set_result(answer)
        for waiting in self._answers.values():
            if not waiting.done():
                waiting.set_exception(Away())
        self._answers.clear()

    async def stop(self) -> None:
        await self._end(kill=False)

    async def kill(self) -> None:
        await self._end(kill=True)

    async def _end(self, *, kill: bool) -> None:
        if self._process is None or self._reading is None:
            return
        process, self._process = self._process, None
        if kill:
            process.kill()
        else:
            process.terminate()
        await process.wait()
        await self._reading

    async def close(self) -> None:
        await self.kill()

    async def sibling(self) -> "Program":
        return subject(self._folder, self._wrong)

    async def sign_in(self, count: int = 1) -> list[Session]:
        made = []
        for _ in range(count):
            key = str(uuid.uuid4())
            (self._folder / "sessions" / key).touch()
            clients = [{"client_id": "mail"}, {"client_id": "shop"}]
            expected = {"iss": "https://id.example.com", "sid": key, "clients": clients}
            made.append(Session(key=key, expected=expected, secret=(key,)))
        return made

    async def sign_out(self, session: Session) -> float:
        return await self._ask(session, "events")

    async def end_in_bulk(self, sessions: Sequence[Session]) -> None:
        await asyncio.gather(*(self._ask(session, "bulk") for session in sessions))

    async def _ask(self, session: Session, lane: str) -> float:
        if self._process is None:
            raise Away
        assert self._process.stdin is not None
        waiting = self._answers[session.key] = asyncio.get_running_loop().create_future()
        self._process.stdin.write(json.dumps({"key": session.key, "lane": lane}).encode() + b"\n")
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                answer = await waiting
        except TimeoutError:
            raise SignOutFailed(f"no answer within {ANSWER_WITHIN} s") from None
        if "failed" in answer:
            raise SignOutFailed(answer["failed"])
        return float(answer["seconds"])

    async def lives(self, session: Session) -> bool:
        return (self._folder / "sessions" / session.key).exists()

    def key_of(self, event: Mapping[str, Any]) -> str:
        return str(event["sid"])

    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def memory(self) -> int:
        assert self._process is not None
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * 4096
