"""node-oidc-provider 9 with our package, on a separate Redis; its users have browsers, and sign in at two clients."""

import asyncio
import json
import urllib.request
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from publishers.conformance.subject import Away, Missing, Session, Settings, SignOutFailed, Traits
from publishers.tests.oidc_provider.browser import Browser
from publishers.tests.oidc_provider.clients import registrations
from publishers.tests.oidc_provider.harness import Keys, entry, make_keys
from publishers.tests.oidc_provider.provider import VERSIONS, Provider
from publishers.tests.oidc_provider.provider import Settings as ProviderSettings
from publishers.tests.oidc_provider.redis_server import RedisServer, redis_server
from tests.support.apt_programs import ProgramMissing
from tests.support.rabbitmq_node import free_ports

CLIENTS = ("shop", "mail")
RECEIVERS = "https://clients.example.com"
SIGNED_OUT = 303
ASK_WITHIN = 30.0
EXISTS = "return redis.call('EXISTS', 'Session:' .. (redis.call('GET', KEYS[1]) or ''))"
DELETE = EXISTS.replace("'EXISTS'", "'DEL'")
KEPT_OPEN = 3.0  # seconds; Node hangs up after five
IN_HAND = 1.0  # seconds from a start until the store completes what it had in hand


def subject(folder: Path) -> "OidcProvider":
    """One, not started."""
    keys = make_keys(folder)
    return OidcProvider(folder, Users(keys=keys))


@dataclass(slots=True, kw_only=True)
class Users:
    """What processes with the same sessions share: keys, Redis, issuer, and the browsers of the users."""

    keys: Keys
    issuer: str = ""
    redis: RedisServer | None = None
    browsers: dict[str, Browser] = field(default_factory=dict)
    kept: AsyncExitStack = field(default_factory=AsyncExitStack)
    servers: ExitStack = field(default_factory=ExitStack)
    connector: aiohttp.TCPConnector | None = None

    async def open(self, issuer: str) -> None:
        """Start what is needed, once."""
        if self.redis is not None:
            return
        try:
            self.redis = self.servers.enter_context(redis_server())
        except ProgramMissing as missing:
            raise Missing(str(missing)) from None
        self.issuer = issuer
        self.connector = aiohttp.TCPConnector(keepalive_timeout=KEPT_OPEN)
        self.kept.push_async_callback(self.connector.close)

    async def close(self) -> None:
        """End it."""
        await self.kept.aclose()
        self.servers.close()


class OidcProvider:
    """One process."""

    name = "oidc_provider"
    traits = Traits(sign_ins=40)

    def __init__(self, folder: Path, users: Users, *, first: bool = True) -> None:
        self._folder = folder
        self._users = users
        self._first = first
        [self._port] = free_ports(1)
        self._provider: Provider | None = None
        self._logged: list[str] = []
        self._in_hand: list[str] = []

    async def start(self, settings: Settings) -> None:
        await self._users.open(f"http://127.0.0.1:{self._port}")
        assert self._users.redis is not None
        options = {
            "url": settings.url,
            "secretFile": str(settings.secret_file),
            "outbox": {
                "folder": str(settings.outbox),
                "maxEvents": settings.max_events,
                "maxBytes": settings.max_bytes,
                "maxAge": round(settings.max_age * 1000),
            },
            **({} if settings.ca_file is None else {"tls": {"caFile": str(settings.ca_file)}}),
            "limits": {
                "signOut": round(settings.sign_out_limit * 1000),
                "publish": round(settings.publish_limit * 1000),
                "drain": round(settings.drain_limit * 1000),
            },
        }
        server = ProviderSettings(
            version=VERSIONS[0],
            port=self._port,
            issuer=self._users.issuer,
            clients=registrations(RECEIVERS),
            keys=str(self._users.keys.file),
            publisher=options,
            redis=self._users.redis.url,
            emit=False,
        )
        self._provider = Provider(self._folder, server, settings.environment)
        await self._provider.start()
        if self._in_hand:
            await asyncio.sleep(IN_HAND)
            self._users.redis.ask(f'EVAL "{DELETE}" 1 uid:{self._in_hand.pop()}')

    async def stop(self) -> None:
        await self._end(kill=False)

    async def kill(self) -> None:
        await self._end(kill=True)

    async def _end(self, *, kill: bool) -> None:
        if self._provider is None:
            return
        provider, self._provider = self._provider, None
        await (provider.kill() if kill else provider.stop())
        self._logged.append(provider.log)

    async def close(self) -> None:
        await self.kill()
        if self._first:
            await self._users.close()

    async def sibling(self) -> "OidcProvider":
        return OidcProvider(self._folder, self._users, first=False)

    async def sign_in(self, count: int = 1) -> list[Session]:
        return [await self._sign_in() for _ in range(count)]

    async def _sign_in(self) -> Session:
        user = f"user-{uuid.uuid4()}"
        browser = Browser(self._users.issuer, user, at=self._url, connector=self._users.connector)
        await self._users.kept.enter_async_context(browser)
        await browser.sign_in(*CLIENTS)
        self._users.browsers[user] = browser
        uid = str((await browser.own("state"))["uid"])
        registered = {each["client_id"]: each for each in registrations(RECEIVERS)}
        clients = [entry(browser, name, registered[name]) for name in CLIENTS]
        sids = [str(browser.claims[name]["sid"]) for name in CLIENTS]
        expected = {"iss": self._users.issuer, "sub": user, "clients": clients}
        return Session(key=user, expected=expected, secret=(user, uid, *sids, *browser.cookies))

    async def sign_out(self, session: Session) -> float:
        async with self._asking(session) as browser:
            answer = await browser.sign_out()
        if answer.status != SIGNED_OUT:
            raise SignOutFailed(f"status {answer.status}")
        return answer.seconds

    async def end_in_bulk(self, sessions: Sequence[Session]) -> None:
        async with self._asking(sessions[0]) as browser:
            await browser.own("destroy-in-bulk", uids=",".join(session.secret[1] for session in sessions))

    @asynccontextmanager
    async def _asking(self, session: Session) -> AsyncIterator[Browser]:
        """The user's browser, at this process."""
        browser = self._users.browsers[session.key]
        browser.at = self._url
        try:
            yield browser
        except aiohttp.ClientConnectionError as error:
            raise Away from error

    @property
    def _url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def die_deleting(self, session: Session) -> None:
        """The store is played by us from then on."""
        assert self._provider is not None
        await self._provider.fault("die", "before")
        with suppress(Away):
            await self.sign_out(session)
        await self.kill()
        self._in_hand.append(session.secret[1])

    async def lives(self, session: Session) -> bool:
        """Redis is asked itself: no process need run."""
        assert self._users.redis is not None
        return self._users.redis.ask(f'EVAL "{EXISTS}" 1 uid:{session.secret[1]}').startswith(b":1")

    def key_of(self, event: Mapping[str, Any]) -> str:
        return str(event["sub"])

    def log(self) -> str:
        running = "" if self._provider is None else self._provider.log
        return "".join((*self._logged, running))

    def memory(self) -> int:
        with urllib.request.urlopen(f"{self._url}/own/memory", timeout=ASK_WITHIN) as answer:
            return int(json.load(answer)["memory"])
