"""Keycloak with the plug-in: a real one, of the newest version, on PostgreSQL. Users sign in and out by its pages."""

import asyncio
import contextlib
import itertools
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import sqlalchemy as sa

from publishers.conformance.subject import Away, Missing, Session, Settings, SignOutFailed, Subject, Traits
from publishers.tests.keycloak.plugged import Database, new_database, plugged_in
from publishers.tests.keycloak.shop_realm import CALLBACK, GOODBYE, PASSWORD, realm, user
from tests.support.apt_programs import ProgramMissing, program
from tests.support.databases import postgresql
from tests.support.keycloak_browser import KeycloakBrowser
from tests.support.keycloak_installation import JDK, KeycloakMissing, keycloak_version
from tests.support.keycloak_server import KeycloakServer

REALMS = tuple(f"conformance-{number}" for number in range(4))
"""Each call for sessions takes the next one, so that all sessions of a realm can be ended, and others live on."""
WARM = "warm"
"""A realm that the plug-in is configured to ignore. A first sign-in and sign-out after a start take seconds."""
CLIENTS = ("web", "pair")
AT_ONCE = 4  # sign-ins
LOCK = 7
HOLD_BACK = f"""
    CREATE FUNCTION held_back() RETURNS trigger LANGUAGE plpgsql
        AS 'BEGIN PERFORM pg_advisory_xact_lock_shared({LOCK}); RETURN NULL; END';
    CREATE CONSTRAINT TRIGGER held_back AFTER DELETE ON offline_user_session DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION held_back();
"""
"""A commit waits for LOCK where it deletes sessions. PostgreSQL does not see meanwhile that its client is gone."""
IN_HAND = 1.0  # seconds from a start until it goes on


class KeycloakSubject:
    """One Keycloak. Its database and its address stay the same over starts."""

    name = "keycloak"
    traits = Traits(sign_ins=10)

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._resources = contextlib.AsyncExitStack()
        self._database: Database | None = None
        self._keycloak: KeycloakServer | None = None
        self._browsers: dict[str, tuple[KeycloakBrowser, str]] = {}
        self._in_hand: contextlib.ExitStack | None = None
        self._names = (f"somebody-{number}" for number in itertools.count(1))
        self._realms = itertools.cycle(REALMS)

    async def start(self, settings: Settings) -> None:
        """The realms are made at the first start."""
        try:
            await asyncio.to_thread(self._start, settings)
        except (ProgramMissing, KeycloakMissing) as missing:
            raise Missing(str(missing)) from None
        assert self._keycloak is not None
        if self._in_hand is not None:
            await asyncio.sleep(IN_HAND)
            self._in_hand.close()
            self._in_hand = None
        async with KeycloakBrowser(self._keycloak.url, WARM) as browser:
            claims = await browser.sign_in("web", CALLBACK, WARM, PASSWORD)
            await browser.sign_out(claims["raw"], GOODBYE)

    def _start(self, settings: Settings) -> None:
        first = self._database is None
        if self._database is None:
            server = self._resources.enter_context(postgresql())
            self._database = new_database(server)
        port = self._keycloak.port if self._keycloak else 0
        version = keycloak_version()
        keycloak = plugged_in(
            version, self._folder, self._database, _spelled(settings), settings.environment, port=port
        )
        self._keycloak = keycloak
        keycloak.start()
        keycloak.wait()
        if first:
            for name in (*REALMS, WARM):
                keycloak.admin("POST", "", realm(name, "http://127.0.0.1:9"))
            keycloak.admin("POST", f"/{WARM}/users", user(WARM))

    async def stop(self) -> None:
        """By SIGTERM."""
        if self._keycloak:
            await asyncio.to_thread(self._keycloak.terminate)

    async def kill(self) -> None:
        """By SIGKILL."""
        if self._keycloak:
            await asyncio.to_thread(self._keycloak.kill)

    async def close(self) -> None:
        """With its database and the browsers."""
        await self.kill()
        await self._resources.aclose()

    async def sibling(self) -> Subject:
        """Several nodes of Keycloak share more than an outbox; other tests have them."""
        raise NotImplementedError

    async def sign_in(self, count: int = 1) -> list[Session]:
        """Sign in one user several times, each in a separate browser."""
        assert self._keycloak is not None
        name, where = next(self._names), next(self._realms)
        await asyncio.to_thread(self._keycloak.admin, "POST", f"/{where}/users", user(name))
        found: list[Session] = []
        while len(found) < count:
            some = min(AT_ONCE, count - len(found))
            found += await asyncio.gather(*(self._sign_in(where, name) for _ in range(some)))
        return found

    async def _sign_in(self, where: str, name: str) -> Session:
        assert self._keycloak is not None
        browser = await self._resources.enter_async_context(KeycloakBrowser(self._keycloak.url, where))
        claims = {each: await browser.sign_in(each, CALLBACK, name, PASSWORD) for each in CLIENTS}
        web = claims["web"]
        self._browsers[web["sid"]] = browser, web["raw"]
        clients = [{"client_id": "web"}, {"client_id": "pair", "sub": claims["pair"]["sub"]}]
        expected = {"iss": web["iss"], "sub": web["sub"], "sid": web["sid"], "clients": clients}
        return Session(key=web["sid"], expected=expected, secret=(web["sid"], web["sub"], name, PASSWORD))

    async def sign_out(self, session: Session) -> float:
        """By RP-Initiated Logout, from the browser."""
        browser, id_token = self._browsers[session.key]
        began = time.monotonic()
        try:
            await browser.sign_out(id_token, GOODBYE)
        except AssertionError as error:
            raise SignOutFailed(str(error)) from None
        except aiohttp.ClientError as error:
            raise Away(str(error)) from None
        return time.monotonic() - began

    async def end_in_bulk(self, sessions: Sequence[Session]) -> None:
        """`logout-all` of their realm."""
        assert self._keycloak is not None
        for where in {str(session.expected["iss"]).rpartition("/")[2] for session in sessions}:
            await asyncio.to_thread(self._keycloak.admin, "POST", f"/{where}/logout-all")

    async def die_deleting(self, session: Session) -> None:
        """PostgreSQL is within the commit."""
        assert self._database is not None
        engine = sa.create_engine(self._database.url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
        self._in_hand = self._resources.enter_context(contextlib.ExitStack())
        connection = self._in_hand.enter_context(engine.connect())
        connection.exec_driver_sql(HOLD_BACK)
        connection.exec_driver_sql(f"SELECT pg_advisory_lock({LOCK})")
        self._in_hand.callback(connection.exec_driver_sql, "DROP FUNCTION held_back CASCADE")
        self._in_hand.callback(connection.exec_driver_sql, f"SELECT pg_advisory_unlock({LOCK})")
        leaving = asyncio.create_task(self.sign_out(session))
        held = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        while connection.exec_driver_sql(held).first() is None:
            assert not leaving.done(), "it does not wait for the store"
            await asyncio.sleep(0.01)
        await self.kill()
        with contextlib.suppress(Away):
            await leaving

    async def lives(self, session: Session) -> bool:
        """As the database has it, so that Keycloak need not run."""
        return await asyncio.to_thread(self._lives, session.key)

    def _lives(self, sid: str) -> bool:
        assert self._database is not None
        engine = sa.create_engine(self._database.url, poolclass=sa.NullPool)
        with engine.connect() as connection:
            rows = sa.text("SELECT 1 FROM offline_user_session WHERE user_session_id = :sid AND offline_flag = '0'")
            return connection.execute(rows, {"sid": sid}).first() is not None

    def key_of(self, event: Mapping[str, Any]) -> str:
        """The session's id."""
        return str(event["sid"])

    def log(self) -> str:
        """Of all its starts."""
        return (self._folder / "keycloak.log").read_text(errors="replace")

    def memory(self) -> int:
        """The heap after a full collection."""
        assert self._keycloak is not None
        jcmd, pid = program("jcmd", JDK), str(self._keycloak.pid)
        subprocess.run([jcmd, pid, "GC.run"], check=True, capture_output=True)
        heap = subprocess.run([jcmd, pid, "GC.heap_info"], check=True, capture_output=True, text=True).stdout
        return 1024 * sum(map(int, re.findall(r"(?:heap|generation)\s+total \d+K, used (\d+)K", heap)))


def _spelled(settings: Settings) -> Mapping[str, object]:
    """As the plug-in has them."""
    tls = {"tls-ca-file": settings.ca_file} if settings.ca_file else {}
    return {
        "url": settings.url,
        "secret-file": settings.secret_file,
        "outbox-folder": settings.outbox,
        "outbox-max-events": settings.max_events,
        "outbox-max-bytes": settings.max_bytes,
        "outbox-max-age": _duration(settings.max_age),
        "sign-out-limit": _duration(settings.sign_out_limit),
        "publish-limit": _duration(settings.publish_limit),
        "drain-limit": _duration(settings.drain_limit),
        "include-client-metadata": "false",
        "realms": ",".join(REALMS),
        **tls,
    }


def _duration(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"


def subject(folder: Path) -> Subject:
    """One, in this folder."""
    return KeycloakSubject(folder)
