"""Spring Authorization Server with the starter: the sample server, on the line of Spring Boot under test.

Users sign in at two clients, and out by RP-Initiated Logout.
"""

import asyncio
import itertools
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from publishers.conformance.subject import Away, Missing, Session, Settings, SignOutFailed, Traits
from publishers.tests.spring.sample_server import CLIENTS, ISSUER, Browser, SampleServer, entry
from publishers.tests.spring.starter import boot_under_test, sample_jar
from tests.support.apt_programs import ProgramMissing, program
from tests.support.installing import InstallFailed
from tests.support.keycloak_installation import JDK, KeycloakMissing

AT_ONCE = 4  # sign-ins
ANSWER_WITHIN = 60.0  # seconds
SWEEP = "1s"


@dataclass(slots=True, kw_only=True)
class Users:
    """What processes share: the jar, the database's folder, the sample's profile, and the browsers of the users.

    With the profile `jdbc` they share the sessions, too; with `table` each has its sessions in memory.
    """

    jar: Path
    database: Path
    profile: str = "jdbc"
    browsers: dict[str, Browser] = field(default_factory=dict)
    names: "itertools.count[int]" = field(default_factory=itertools.count)
    siblings: "itertools.count[int]" = field(default_factory=itertools.count)


class Spring:
    """One process. Its address stays the same over starts."""

    name = "spring"
    traits = Traits(looks_up=False, lane_after_kill="bulk", sign_ins=40)

    def __init__(self, users: Users, log: Path) -> None:
        self._users = users
        self._server = SampleServer(users.jar, users.database, log, users.profile)
        self._http: aiohttp.ClientSession | None = None

    async def start(self, settings: Settings) -> None:
        """With the first sign-in and sign-out, which take seconds; without clients they make no event."""
        if self._http is None:
            self._http = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=ANSWER_WITHIN), cookie_jar=aiohttp.DummyCookieJar()
            )
        await asyncio.to_thread(self._server.start, _properties(settings), settings.environment)
        warm = await Browser(self._http, "warm").sign_in(self._server.url)
        await warm.ask("POST", f"{self._server.url}/logout")

    async def stop(self) -> None:
        """By SIGTERM."""
        await asyncio.to_thread(self._server.terminate)

    async def kill(self) -> None:
        """By SIGKILL."""
        await asyncio.to_thread(self._server.kill)

    async def close(self) -> None:
        """The database ends with its process."""
        await self.kill()
        if self._http is not None:
            await self._http.close()
            self._http = None

    async def sibling(self) -> "Spring":
        """A second node on the same database."""
        return Spring(self._users, self._server.log.with_name(f"sibling-{next(self._users.siblings)}.log"))

    async def sign_in(self, count: int = 1) -> list[Session]:
        """Each user has a separate browser."""
        found: list[Session] = []
        while len(found) < count:
            some = min(AT_ONCE, count - len(found))
            found += await asyncio.gather(*(self._sign_in(f"somebody-{next(self._users.names)}") for _ in range(some)))
        return found

    async def _sign_in(self, user: str) -> Session:
        assert self._http is not None
        browser = await Browser(self._http, user).sign_in(self._server.url, *CLIENTS)
        sid = str(browser.claims(CLIENTS[0])["sid"])
        self._users.browsers[sid] = browser
        clients = [entry(client, user) for client in CLIENTS]
        expected = {"iss": ISSUER, "sub": user, "sid": sid, "clients": clients}
        session_id = browser.session_id if self._users.profile == "jdbc" else browser.cookie
        return Session(key=sid, expected=expected, secret=(session_id, browser.cookie, sid, user))

    async def sign_out(self, session: Session) -> float:
        """By RP-Initiated Logout, at this process."""
        began = time.monotonic()
        try:
            answer = await self._users.browsers[session.key].sign_out(self._server.url)
        except TimeoutError:
            raise SignOutFailed(f"no answer within {ANSWER_WITHIN} s") from None
        except aiohttp.ClientError as error:
            raise Away(repr(error)) from None
        if answer.status != 302 or urlsplit(answer.location).path != "/":  # the sign-in page is a redirect, too
            raise SignOutFailed(f"{answer.status}: {answer.location} {answer.text}; the log ends: {self.log()[-3000:]}")
        return time.monotonic() - began

    async def end_in_bulk(self, sessions: Sequence[Session]) -> None:
        """Delete them in the store, as an administrator's job does. The sweep finds them."""
        form = [("session", session.secret[0]) for session in sessions]
        await self._ask("POST", "/sample/admin/delete", data=form)

    async def die_deleting(self, session: Session) -> None:
        """An event is written once its session has ended: no file exists before."""
        raise NotImplementedError

    async def lives(self, session: Session) -> bool:
        """As the store has it, or as its browser sees it."""
        if self._users.profile != "jdbc":
            page = f"{self._server.url}/sample/session"
            return (await self._users.browsers[session.key].ask("GET", page)).text == session.secret[0]
        return await self._ask("GET", "/sample/admin/lives", params={"session": session.secret[0]}) == "true"

    async def _ask(self, method: str, path: str, **more: Any) -> str:
        assert self._http is not None
        async with self._http.request(method, self._server.url + path, **more) as answer:
            text = await answer.text()
            assert answer.status == 200, f"{answer.status}: {text[:500]}"
            return text

    def key_of(self, event: Mapping[str, Any]) -> str:
        """The session's id, as clients know it."""
        return str(event["sid"])

    def log(self) -> str:
        """Of all its starts."""
        return self._server.log.read_text(errors="replace") if self._server.log.exists() else ""

    def memory(self) -> int:
        """The heap after a full collection."""
        jcmd, pid = program("jcmd", JDK), str(self._server.pid)
        subprocess.run([jcmd, pid, "GC.run"], check=True, capture_output=True)
        heap = subprocess.run([jcmd, pid, "GC.heap_info"], check=True, capture_output=True, text=True).stdout
        return 1024 * sum(map(int, re.findall(r"(?:heap|generation)\s+total \d+K, used (\d+)K", heap)))


def _properties(settings: Settings) -> Mapping[str, object]:
    """As the starter has them."""
    return {
        "url": settings.url,
        "secret-file": settings.secret_file,
        "public-keys": "none",
        "outbox.folder": settings.outbox,
        "outbox.max-events": settings.max_events,
        "outbox.max-bytes": settings.max_bytes,
        "outbox.max-age": _duration(settings.max_age),
        "sign-out-limit": _duration(settings.sign_out_limit),
        "publish-limit": _duration(settings.publish_limit),
        "drain-limit": _duration(settings.drain_limit),
        "sweep.interval": SWEEP,
        **({"tls.ca-file": settings.ca_file} if settings.ca_file else {}),
    }


def _duration(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"


def subject(folder: Path, profile: str = "jdbc") -> Spring:
    """One, in this folder."""
    try:
        program("java", JDK)
        jar = sample_jar(boot_under_test())
    except (ProgramMissing, InstallFailed, KeycloakMissing) as missing:
        raise Missing(str(missing)) from None
    return Spring(Users(jar=jar, database=folder, profile=profile), folder / "spring.log")
