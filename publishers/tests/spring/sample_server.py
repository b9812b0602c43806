"""A private sample server with the starter on a free loopback port, on a database; and the browsers of its users."""

import base64
import contextlib
import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import aiohttp

from tests.support.apt_programs import program
from tests.support.keycloak_installation import JDK
from tests.support.rabbitmq_node import _guard, free_ports

ISSUER = "https://id.example.com"
CLIENTS = ("shop", "mail")
CALLBACK = "http://127.0.0.1/callback"
COOKIE = "IDP"
STARTING = 240.0  # seconds; 14 on a loaded machine
ENDING = 60.0  # seconds
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_JAVA = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")  # compiles quickly rather than well: a short run


def entry(client: str, user: str) -> Mapping[str, Any]:
    """Return the client's entry in an event."""
    return {
        "client_id": client,
        "sub": user,
        "backchannel_logout_uri": f"https://{client}.example.com/backchannel-logout",
        "backchannel_logout_session_required": True,
        "id_token_signed_response_alg": "RS256",
    }


class SampleServer:
    """One process. After `kill` or `terminate` it may be started again at the same address.

    `database`: the folder of the database that processes share. `log`: appended to. `profile`: the sample's, with
    sessions in the database (`jdbc`) or in the memory of each process (`table`).
    """

    def __init__(self, jar: Path, database: Path, log: Path, profile: str = "jdbc") -> None:
        [self.port] = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        self._jar = jar
        self._profile = profile
        self._database = database
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, settings: Mapping[str, object], environment: Mapping[str, str]) -> None:
        """Return when it is ready. `settings`: those of the starter, without `notifier.`."""
        more = {
            "spring.profiles.active": self._profile,
            "spring.datasource.url": f"jdbc:h2:file:{self._database}/db;AUTO_SERVER=TRUE;WRITE_DELAY=0",
            "server.address": "127.0.0.1",
            "server.port": self.port,
            "sample.issuer": ISSUER,
            **{f"notifier.{name}": value for name, value in settings.items()},
        }
        command = [
            program("java", JDK), *_JAVA, "-jar", str(self._jar), *(f"--{name}={value}" for name, value in more.items())
        ]  # fmt: skip
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "JAVA_HOME")}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env={**kept, "LANG": "C.UTF-8", **environment}, cwd=self._database, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self._guard = _guard(self._process.pid)
        until = time.monotonic() + STARTING
        while time.monotonic() < until and self._process.poll() is None:
            with contextlib.suppress(OSError):
                _OPENER.open(f"{self.url}/actuator/health/readiness", timeout=10).close()
                return
            time.sleep(0.1)
        raise AssertionError(f"the sample server did not start: {self.log.read_text(errors='replace')[-3000:]}")

    @property
    def pid(self) -> int:
        """Return the process's id."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """Send SIGKILL."""
        self._end(signal.SIGKILL)

    def terminate(self) -> None:
        """Send SIGTERM, as an operator does."""
        self._end(signal.SIGTERM)

    def _end(self, sign: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        process.wait(ENDING)
        self._guard.kill()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer of the server."""

    status: int
    location: str
    text: str


class Browser:
    """The browser of one user. Each request names the process that it is sent to, so that a user may change it."""

    def __init__(self, http: aiohttp.ClientSession, user: str) -> None:
        self._http = http
        self.user = user
        self.cookie = ""
        self.id_tokens: dict[str, str] = {}
        self.refresh_tokens: dict[str, str] = {}

    async def sign_in(self, url: str, *clients: str) -> Self:
        """Sign in by the server's form, then at these clients, which redeem their codes."""
        signed_in = await self.ask("POST", f"{url}/login", data={"username": self.user, "password": "pw"})
        assert signed_in.status == 302, signed_in
        for client in clients:
            query = {"response_type": "code", "client_id": client, "scope": "openid", "state": "x"}
            found = await self.ask("GET", f"{url}/oauth2/authorize", params={**query, "redirect_uri": CALLBACK})
            [code] = parse_qs(urlsplit(found.location).query)["code"]
            form = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK}
            status, tokens = await self.redeem(url, client, form)
            assert status == 200, tokens
            self.id_tokens[client] = tokens["id_token"]
            self.refresh_tokens[client] = tokens["refresh_token"]
        return self

    async def refresh(self, url: str, client: str) -> tuple[int, Mapping[str, Any]]:
        """Use the client's refresh token. Return the status and the answer. A new ID token replaces the former."""
        form = {"grant_type": "refresh_token", "refresh_token": self.refresh_tokens[client]}
        status, tokens = await self.redeem(url, client, form)
        self.id_tokens[client] = tokens.get("id_token", self.id_tokens[client])
        return status, tokens

    async def redeem(self, url: str, client: str, form: Mapping[str, str]) -> tuple[int, Mapping[str, Any]]:
        """Post to the token endpoint as the client. Return the status and the answer."""
        credentials = base64.b64encode(f"{client}:s-{client}".encode()).decode()
        headers = {"Authorization": f"Basic {credentials}"}
        async with self._http.post(f"{url}/oauth2/token", data=form, headers=headers) as answer:
            return answer.status, await answer.json()

    async def sign_out(self, url: str) -> Reply:
        """By RP-Initiated Logout of the first client."""
        hint = next(iter(self.id_tokens.values()))
        return await self.ask("GET", f"{url}/connect/logout", params={"id_token_hint": hint})

    async def ask(self, method: str, url: str, **more: Any) -> Reply:
        """Send a request with the session's cookie, and follow no redirect."""
        headers = {"Cookie": f"{COOKIE}={self.cookie}"} if self.cookie else {}
        async with self._http.request(method, url, headers=headers, allow_redirects=False, **more) as answer:
            if COOKIE in answer.cookies:
                self.cookie = answer.cookies[COOKIE].value
            location = answer.headers.get("Location", "")
            return Reply(status=answer.status, location=location, text=await answer.text())

    def claims(self, client: str) -> Mapping[str, Any]:
        """Return the claims of the client's ID token."""
        return dict(json.loads(base64.urlsafe_b64decode(self.id_tokens[client].split(".")[1] + "==")))

    @property
    def session_id(self) -> str:
        """Return the session's id: with Spring Session the cookie has it."""
        return base64.b64decode(self.cookie).decode()
