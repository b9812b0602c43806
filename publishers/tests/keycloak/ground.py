"""Everything between a browser and the clients: a Keycloak with the plug-in, RabbitMQ, a worker, and receivers.

The plug-in reaches RabbitMQ by a proxy, so that a test can take it away. The database is PostgreSQL, so that what was
committed outlives Keycloak, and a test can make sessions old.
"""

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import sqlalchemy as sa
from joserfc.jwk import import_key

from notifier.model.client import Algorithm
from notifier.queues.rabbitmq.administration import delete_topology
from notifier.tokens.key_files import generate_key
from publishers.tests.keycloak.plugged import behind, new_database, plugged_in, proxy_to
from publishers.tests.keycloak.plugin_settings import key_component, plugin_settings
from publishers.tests.keycloak.shop_realm import CALLBACK, PASSWORD, realm, user
from publishers.tests.tap import Tap, tap
from tests.features.registries.keycloak_realm import SECRET
from tests.support.databases import DatabaseServer
from tests.support.keycloak_browser import KeycloakBrowser
from tests.support.keycloak_installation import keycloak_version
from tests.support.keycloak_server import Keycloak
from tests.support.keycloak_shared import PLUGGED, PREFIX, SharedKeycloak
from tests.support.rabbit_options import rabbit_options
from tests.support.topologies import declare_at_once
from tests.system.clients import Clients
from tests.system.site import Site
from tests.system.tcp_proxy import TcpProxy
from tests.system.worker_process import WorkerProcess, worker

SHOP, BRIEF, DOOMED = PLUGGED
"""Realms: the usual, one with sessions that are idle after some seconds, one for ends of a whole realm."""
IDLE = 12  # seconds until a session of BRIEF is idle
LONG_AGO = 400 * 86_400  # seconds
ALGORITHMS = (Algorithm.RS256, Algorithm.ES256)


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """A browser that is signed in, the name of its user, and the ID token's claims by client."""

    browser: KeycloakBrowser
    user: str
    claims: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def sid(self) -> str:
        """The session, as the client knows it that came last."""
        return str([*self.claims.values()][-1]["sid"])

    @property
    def sub(self) -> str:
        """The user, as most clients know him."""
        return str(next(claims["sub"] for name, claims in self.claims.items() if name != "pair"))

    def refresh_token(self, client_id: str) -> dict[str, str]:
        """Return the credentials with which a client sends its refresh token."""
        return {"client_id": client_id, "refresh_token": self.browser.tokens[client_id]["refresh_token"]}


class Ground:
    """Made by `ground`."""

    def __init__(self, version: str, keycloak: Keycloak, database: sa.URL | None, proxy: TcpProxy) -> None:
        self.version = version
        self.keycloak = keycloak
        self.proxy = proxy
        self.clients: Clients
        self.outbox: Path
        self.jwks: dict[str, Any] = {}
        self.endings: list[Any] = []
        self.amqp_url = ""
        self.expiring: asyncio.Task[Sequence[Any]]
        self.kids: set[str] = set()
        self.tap: Tap
        self.worker: WorkerProcess
        self._engine = sa.create_engine(database, poolclass=sa.NullPool) if database else None
        self._names = (f"user{number}" for number in itertools.count(1))
        self._browsers = contextlib.AsyncExitStack()

    def issuer(self, realm_name: str) -> str:
        """As it is in tokens."""
        return f"{self.keycloak.url}/realms/{realm_name}"

    async def admin(self, method: str, path: str, body: object = None) -> Any:
        """Ask the Admin API, below /admin/realms."""
        return await asyncio.to_thread(self.keycloak.admin, method, path, body)

    async def sign_in(
        self, *client_ids: str, name: str | None = None, realm_name: str = SHOP, visit: Visit | None = None, **more: str
    ) -> Visit:
        """Sign in at these clients in turn. `name`: of a user, else a new one. `visit`: in that browser."""
        if visit is None:
            if name is None:
                name = next(self._names)
                await self.admin("POST", f"/{realm_name}/users", user(name))
            browser = await self._browsers.enter_async_context(KeycloakBrowser(self.keycloak.url, realm_name))
            visit = Visit(browser=browser, user=name)
        for client_id in client_ids:
            visit.claims.pop(client_id, None)
            visit.claims[client_id] = await visit.browser.sign_in(client_id, CALLBACK, visit.user, PASSWORD, **more)
        return visit

    async def client(self, client_id: str, realm_name: str = SHOP) -> dict[str, Any]:
        """A client as the Admin API shows it."""
        [found] = await self.admin("GET", f"/{realm_name}/clients?clientId={client_id}")
        return dict(found)

    async def sql(self, statement: str, **values: object) -> Sequence[Any]:
        """Run it in Keycloak's database; the rows, if any."""

        engine = self._engine
        assert engine is not None, "it is the Keycloak of the whole run"

        def run() -> Sequence[Any]:
            with engine.begin() as connection:
                done = connection.execute(sa.text(statement), values)
                return done.all() if done.returns_rows else []

        return await asyncio.to_thread(run)

    async def make_old(self, sid: str) -> None:
        """As if nobody had used the session for a year, in the database alone."""
        changed = "UPDATE offline_user_session SET last_session_refresh = last_session_refresh - :long"
        await self.sql(f"{changed} WHERE user_session_id = :sid", long=LONG_AGO, sid=sid)

    async def close(self) -> None:
        """Close the browsers."""
        await self._browsers.aclose()
        if self._engine is not None:
            self._engine.dispose()


@contextlib.asynccontextmanager
async def ground(
    version: str, folder: Path, postgresql: DatabaseServer, amqp_url: str, *, inline: bool
) -> AsyncIterator[Ground]:
    """Everything, started. `inline`: events have what the worker must know of clients; else it reads them itself."""
    prefix = f"test-{secrets.token_hex(4)}"
    async with contextlib.AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(proxy_to(amqp_url))
        settings = plugin_settings(behind(proxy, amqp_url), prefix, folder, include_client_metadata=str(inline).lower())
        database = await asyncio.to_thread(new_database, postgresql)
        java = {"JAVA_OPTS_APPEND": "-XX:TieredStopAtLevel=1"}
        keycloak = await asyncio.to_thread(plugged_in, version, folder, database, settings, java)
        stack.callback(keycloak.kill)
        await asyncio.to_thread(keycloak.start)
        await asyncio.to_thread(keycloak.wait)
        made = Ground(version, keycloak, database.url, proxy)
        yield await stack.enter_async_context(_around(made, folder, amqp_url, prefix, inline=inline))


@contextlib.asynccontextmanager
async def shared_ground(shared: SharedKeycloak, folder: Path, amqp_url: str) -> AsyncIterator[Ground]:
    """On the Keycloak of the whole run: without a database to reach into, and nothing there may be killed."""
    async with proxy_to(amqp_url, shared.broker_port) as proxy:
        made = Ground(keycloak_version(), shared.keycloak, None, proxy)
        async with _around(made, folder, amqp_url, PREFIX, inline=True):
            yield made


@contextlib.asynccontextmanager
async def _around(made: Ground, folder: Path, amqp_url: str, prefix: str, *, inline: bool) -> AsyncIterator[Ground]:
    """All but Keycloak and the way from there to the broker."""
    async with contextlib.AsyncExitStack() as stack:
        await declare_at_once(amqp_url, prefix)
        stack.push_async_callback(delete_topology, rabbit_options(amqp_url, prefix))
        made.clients = await stack.enter_async_context(Clients())
        stack.push_async_callback(made.close)
        made.amqp_url, made.outbox = amqp_url, folder / "outbox"
        made.tap = await stack.enter_async_context(tap(amqp_url, prefix))
        site = Site(folder, amqp_url, prefix)
        await _make_realms(made, site, registry=not inline)
        made.worker = await stack.enter_async_context(worker(site))
        yield made


async def _make_realms(made: Ground, site: Site, *, registry: bool) -> None:
    """In Keycloak, with notifier's public keys; and in the worker's configuration, which has the private ones."""
    site.config["issuers"].clear()
    keys = [_make_key(site, algorithm) for algorithm in ALGORITHMS]
    made.kids = {key["kid"] for key in keys}
    (site.folder / "reader").write_text(SECRET)
    (site.folder / "reader").chmod(0o600)
    for name in (SHOP, BRIEF, DOOMED):
        more = {"ssoSessionIdleTimeout": IDLE} if name == BRIEF else {}
        await made.admin("POST", "", realm(name, made.clients.base, **more))
        realm_id = (await made.admin("GET", f"/{name}"))["id"]
        await made.admin("POST", f"/{name}/components", key_component(realm_id, keys))
        made.jwks[made.issuer(name)] = await _jwks(made.issuer(name))
        _configure(site, made.keycloak.url, name)
    if not registry:
        del site.config["registry"]
        for issuer in site.config["issuers"].values():  # events have the clients' addresses, by the broker's user
            issuer["publishers"] = [urlsplit(made.amqp_url).username or "guest"]
    site.write()


def _make_key(site: Site, algorithm: Algorithm) -> dict[str, Any]:
    """Written for notifier; its public half."""
    path = site.folder / f"{algorithm}.pem"
    path.write_bytes(generate_key(algorithm))
    path.chmod(0o600)
    key = import_key(path.read_text(), "EC" if algorithm is Algorithm.ES256 else "RSA")
    return {**key.as_dict(private=False), "kid": key.thumbprint(), "use": "sig", "alg": algorithm.value}


def _configure(site: Site, url: str, name: str) -> None:
    issuer = f"{url}/realms/{name}"
    jwks_uri = f"{issuer}/protocol/openid-connect/certs"
    keys = [{"file": f"{algorithm}.pem"} for algorithm in ALGORITHMS]
    site.config["issuers"][issuer] = {"keys": keys, "jwks_uri": jwks_uri}
    reading = {"url": url, "realm": name, "client_id": "reader", "client_secret_file": "reader"}
    registry = site.config["registry"]
    site.config["registry"] = {
        "cache": "cache",
        "sources": [*registry.get("sources", []), {"name": name, "keycloak": reading}],
    }


async def _jwks(issuer: str) -> Any:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{issuer}/protocol/openid-connect/certs") as answer,
    ):
        return await answer.json()
