"""One Keycloak or several on one database, each with the plug-in; RabbitMQ behind a proxy; every event that came."""

import asyncio
import contextlib
import itertools
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from notifier.adapters.queues.rabbitmq.administration import delete_topology
from tests.conftest import declare_at_once
from tests.databases import DatabaseServer
from tests.keycloak_browser import KeycloakBrowser
from tests.keycloak_installation import keycloak_version
from tests.keycloak_server import ADMIN, KeycloakServer
from tests.publishers.keycloak.crowd import Crowd, Verdict
from tests.publishers.keycloak.plugged import Database, behind, metric, new_database, plugged_in, proxy_to
from tests.publishers.keycloak.plugin_settings import plugin_settings
from tests.publishers.keycloak.shop_realm import CALLBACK, PASSWORD, realm, user
from tests.publishers.tap import Tap, tap
from tests.rabbit_options import rabbit_options
from tests.rabbitmq_node import free_ports
from tests.system.tcp_proxy import TcpProxy

MANY = "many"
"""The realm."""
CLIENTS = ("web", "app")
TOKEN_LIFE = 25.0  # seconds; less than what Keycloak gives it
ACCOUNT = ("written_total", "published_total", "lost_total", "waiting")
GONE = (aiohttp.ClientError, TimeoutError, OSError)
"""What a caller sees of a node that is killed."""


class Node:
    """One Keycloak."""

    def __init__(self, server: KeycloakServer) -> None:
        self.server = server
        self._token, self._until = "", 0.0
        self._asking = asyncio.Lock()

    async def start(self) -> None:
        """And wait until it answers."""
        self._until = 0.0
        await asyncio.to_thread(self.server.start)
        await asyncio.to_thread(self.server.wait)

    async def kill(self) -> None:
        """By SIGKILL."""
        await asyncio.to_thread(self.server.kill)

    async def terminate(self) -> None:
        """By SIGTERM."""
        await asyncio.to_thread(self.server.terminate)

    async def token(self, session: aiohttp.ClientSession) -> str:
        """Of its administrator."""
        async with self._asking:
            if time.monotonic() > self._until:
                form = {"grant_type": "password", "client_id": "admin-cli", "username": ADMIN, "password": ADMIN}
                url = f"{self.server.url}/realms/master/protocol/openid-connect/token"
                async with session.post(url, data=form) as answer:
                    answer.raise_for_status()
                    self._token = (await answer.json())["access_token"]
                self._until = time.monotonic() + TOKEN_LIFE
        return self._token

    async def ask(self, session: aiohttp.ClientSession, method: str, path: str) -> int:
        """Of the Admin API, below the realm; the status."""
        headers = {"Authorization": f"Bearer {await self.token(session)}"}
        url = f"{self.server.url}/admin/realms/{MANY}{path}"
        async with session.request(method, url, headers=headers, timeout=aiohttp.ClientTimeout(600)) as answer:
            await answer.read()
            return answer.status

    async def account(self) -> str:
        """What the plug-in says of its events since the start."""
        try:
            return ", ".join([f"{name} {await metric(self.server, name):.0f}" for name in ACCOUNT])
        except GONE as gone:
            return repr(gone)


class Nodes:
    """Made by `nodes`."""

    def __init__(self, folder: Path, database: Database, made: Sequence[Node], crowd: Crowd, proxy: TcpProxy) -> None:
        self.folder = folder
        self.outbox = folder / "outbox"
        self.database = database
        self.nodes = made
        self.crowd = crowd
        self.proxy = proxy
        self.tap: Tap
        self.template, self.last_user = "", ""
        self.answered = self.failed = 0
        self._answer = asyncio.Event()
        self._names = (f"user{number}" for number in itertools.count(1))

    @property
    def node(self) -> Node:
        """The first."""
        return self.nodes[0]

    async def prepare(self) -> None:
        """The realm, and the session that others are copied from. It lives for ever."""
        made = {**realm(MANY, "http://127.0.0.1:9"), "ssoSessionMaxLifespan": 10 * LIFE, "ssoSessionIdleTimeout": LIFE}
        await asyncio.to_thread(self.node.server.admin, "POST", "", made)
        async with KeycloakBrowser(self.node.server.url, MANY) as browser:
            self.template = await self.sign_in(browser)

    async def sign_in(self, browser: KeycloakBrowser, name: str | None = None) -> str:
        """A user, else a new one, at both clients; the session's id."""
        if name is None:
            name = self.last_user = next(self._names)
            await asyncio.to_thread(self.node.server.admin, "POST", f"/{MANY}/users", user(name))
        found = [await browser.sign_in(client_id, CALLBACK, name, PASSWORD) for client_id in CLIENTS]
        return str(found[-1]["sid"])

    async def more(self, count: int) -> Sequence[str]:
        """So many more sessions; their ids."""
        return await asyncio.to_thread(self.crowd.copy, self.template, count)

    async def end(self, sids: Sequence[str], at_once: int = 8, pause: float = 0.0) -> list[float]:
        """An administrator ends them, in turn at each node, so many at once; how long each took.

        He asks again elsewhere where a node is gone. One that is killed may have done it and not said so: the tables
        say what became of it.
        """
        left, took = iter(sids), list[float]()
        turns = itertools.cycle(self.nodes)

        async def work(session: aiohttp.ClientSession) -> None:
            for sid in left:
                status, began = 0, time.monotonic()
                while status not in (204, 404):
                    node = next(turns)
                    try:
                        await node.token(session)
                        began = time.monotonic()
                        status = await node.ask(session, "DELETE", f"/sessions/{sid}")
                    except GONE:
                        await asyncio.sleep(0.2)
                    self.failed += status >= 500
                took.append(time.monotonic() - began)
                self.answered += 1
                self._answer.set()
                await asyncio.sleep(pause)

        async with aiohttp.ClientSession() as session:
            await asyncio.gather(*(work(session) for _ in range(at_once)))
        return took

    async def until_answered(self, count: int) -> None:
        """That so many sign-outs are answered in all."""
        while self.answered < count:
            self._answer.clear()
            await self._answer.wait()

    async def verdict(self, sids: Sequence[str], **more: float) -> Verdict:
        """Once nothing more comes."""
        found = await self.crowd.verdict(self.tap, sids, CLIENTS, **more)
        if not found.holds:
            found.metrics = "; ".join([await node.account() for node in self.nodes])
        return found

    def files(self, ending: str) -> int:
        """How many of this ending wait in the outbox."""
        return len([*self.outbox.glob(f"*/*{ending}")])

    def log(self) -> str:
        """Of all nodes."""
        return "".join(each.server.log.read_text(errors="replace") for each in self.nodes)


LIFE = 30 * 86_400


def _node(number: int, folder: Path, database: Database, settings: Mapping[str, object], **more: Any) -> Node:
    home = folder / f"node-{number}"
    home.mkdir()
    groups = f"-Djgroups.bind.address=127.0.0.1 -Djgroups.bind.port={free_ports(1)[0]}"
    environment = {"JAVA_OPTS_APPEND": f"-XX:TieredStopAtLevel=1 {groups}", **more.pop("environment")}
    return Node(plugged_in(keycloak_version(), home, database, settings, environment, **more))


@contextlib.asynccontextmanager
async def nodes(
    folder: Path, server: DatabaseServer, amqp_url: str, *, count: int = 1,
    environment: Mapping[str, str] | None = None, **settings: object,
) -> AsyncIterator[Nodes]:  # fmt: skip
    """Everything, started. `settings`: more of the plug-in's own."""
    prefix = f"test-{secrets.token_hex(4)}"
    async with contextlib.AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(proxy_to(amqp_url))
        chosen = plugin_settings(behind(proxy, amqp_url), prefix, folder, include_client_metadata="false", **settings)
        database = await asyncio.to_thread(new_database, server)
        ports = free_ports(count)
        more: dict[str, Any] = {"environment": environment or {}}
        if count > 1:  # all of them say that they are the first
            more |= {"options": (f"--hostname=http://127.0.0.1:{ports[0]}",), "cache": "ispn"}
        made = [
            await asyncio.to_thread(_node, number, folder, database, chosen, port=port, **more)
            for number, port in enumerate(ports)
        ]
        await declare_at_once(amqp_url, prefix)
        stack.push_async_callback(delete_topology, rabbit_options(amqp_url, prefix))
        whole = Nodes(folder, database, made, Crowd(database), proxy)
        whole.tap = await stack.enter_async_context(tap(amqp_url, prefix))
        for node in made:
            stack.push_async_callback(node.kill)
            await node.start()
        await whole.prepare()
        yield whole
