"""An identity server of ours with a publisher in it: a process that prints its port, and is asked over HTTP."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from publishers.conformance.subject import Away, Session, SignOutFailed

ANSWER_WITHIN = 60.0  # seconds
ISSUER = "https://id.example.com"


class HostProcess:
    """What subjects of this kind have in common. `part`: this process's own, in the folder of all."""

    def __init__(self, folder: Path, part: str) -> None:
        self._folder = folder
        self._log = folder / f"{part}.log"
        self._process: asyncio.subprocess.Process | None = None
        self._http: aiohttp.ClientSession | None = None
        self._at = ""
        self._siblings = 0

    async def _begin(self, *words: str, folder: Path, environment: Mapping[str, str]) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *words, stdout=asyncio.subprocess.PIPE, stderr=log, cwd=folder, env=environment
            )
        assert self._process.stdout is not None
        port = (await self._process.stdout.readline()).decode().strip()
        assert port, f"it did not start: {self.log()[-3000:]}"
        self._at = f"http://127.0.0.1:{port}"

    async def stop(self) -> None:
        """SIGTERM."""
        await self._end(kill=False)

    async def kill(self) -> None:
        """SIGKILL."""
        await self._end(kill=True)

    async def _end(self, *, kill: bool) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill() if kill else process.terminate()
            await process.wait()

    async def close(self) -> None:
        """Nothing is left."""
        await self.kill()
        if self._http is not None:
            await self._http.close()
            self._http = None

    def _part_of_sibling(self) -> str:
        self._siblings += 1
        return f"{self._log.stem}-{self._siblings}"

    async def _sign_in(self, count: int, *clients: object) -> list[Session]:
        """Sign users in at these clients. Secrets: the key of the store, `sub`, `sid`, and a cookie if there is one."""
        made = await self._ask("POST", "/sign-in", params={"count": str(count)})
        named = {"iss": ISSUER, "clients": [*clients]}
        return [
            Session(
                key=each["sid"],
                expected={**named, "sub": each["sub"], "sid": each["sid"]},
                secret=tuple(each[name] for name in ("key", "sub", "sid", "cookie") if name in each),
            )
            for each in made
        ]

    async def end_in_bulk(self, sessions: Sequence[Session]) -> None:
        """Have the server end them: its administrator, or its clean-up after they ran out."""
        await self._ask("POST", "/end-all", json=[session.secret[0] for session in sessions])

    def key_of(self, event: Mapping[str, Any]) -> str:
        """The session's id."""
        return str(event["sid"])

    async def _ask(self, method: str, path: str, **more: Any) -> Any:
        if self._http is None:  # cookies are each session's own, and are handed in
            self._http = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=ANSWER_WITHIN), cookie_jar=aiohttp.DummyCookieJar()
            )
        try:
            async with self._http.request(method, self._at + path, **more) as answer:
                text = await answer.text()
                if answer.status != 200:
                    raise SignOutFailed(f"{answer.status}: {text[:500]}")
                return json.loads(text) if answer.content_type == "application/json" else text
        except TimeoutError:
            raise SignOutFailed(f"no answer within {ANSWER_WITHIN} s") from None
        except aiohttp.ClientError as error:
            raise Away(repr(error)) from error

    def log(self) -> str:
        """Its standard error."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""
