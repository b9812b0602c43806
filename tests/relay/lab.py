"""An identity server that sends its logout tokens once, two clients, nginx in front, and two workers as its relay.

The servers are real, and so is the clients' library, express-openid-connect. nginx is configured as in docs/relay.md.
Everything listens on private ports of loopback, and ends with the test.
"""

import asyncio
import os
import re
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp

from notifier.model.client import Algorithm
from notifier.model.record import record
from notifier.tokens.key_files import generate_key
from tests.cluster.processes import TIED
from tests.relay.browser import Browser
from tests.relay.keys_reader import KeysReader
from tests.support.npm_modules import NODE, node_modules
from tests.support.proxies import answers, documented, running, write_nginx
from tests.support.rabbitmq_node import free_ports
from tests.system.site import Site
from tests.system.waiting import until
from tests.system.worker_process import WorkerProcess, worker

SCRIPTS = Path(__file__).parent / "node"
RELAY = "server"
CLIENTS = ("shop", "mail")
SECRET = "a-secret-of-both-clients-0123456789"


@record
class Kind:
    """An identity server of this kind. `path`: of its issuer; `keys`: of its JWK Set. `answers`: the user's, to it."""

    path: str
    keys: str
    algorithm: Algorithm
    answers: Mapping[str, str]


class Lab:
    """What runs. Made by `relay_lab`."""

    def __init__(self, folder: Path, kind: Kind) -> None:
        self.folder = folder
        self.kind = kind
        ports = iter(free_ports(4 + len(CLIENTS)))
        self.front, self.own, *self.web = (next(ports) for _ in range(4))
        self.client_ports = dict(zip(CLIENTS, ports, strict=True))
        self.workers: list[WorkerProcess] = []
        self.sites: list[Site] = []
        self.reader = KeysReader(f"http://127.0.0.1:{self.own}{kind.keys}")
        self.issuer = f"http://localhost:{self.front}{kind.path}"
        self.jwks_uri = f"http://localhost:{self.front}{kind.keys}"
        self.own_jwks_uri = f"http://127.0.0.1:{self.own}{kind.keys}"
        self.logout_address = f"http://localhost:{self.front}/connect/notify/relays/{RELAY}/backchannel-logout"
        self.ready_ports: Sequence[int] = self.web  # of the workers to which nginx sends
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    # ── processes ──

    async def start(self, name: str, command: Sequence[str | Path], port: int, **environment: str) -> None:
        """Start a program, and wait until it listens at this port of loopback."""
        await asyncio.to_thread(self._start, name, command, environment)
        await until(lambda: answers(port), bool)

    def _start(self, name: str, command: Sequence[str | Path], environment: Mapping[str, str]) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [*TIED, *map(str, command)], stdout=log, stderr=log, cwd=self.folder, env={**os.environ, **environment}
            )

    async def stop(self, name: str) -> None:
        """End it."""
        process = self._processes.pop(name)
        process.kill()
        await asyncio.to_thread(process.wait)

    async def run_script(self, name: str, script: str, port: int, **environment: str) -> None:
        """Run one of our scripts with the packages of the lock file."""
        folder = self.folder / "node"
        if not folder.exists():
            folder.mkdir()
            (folder / "node_modules").symlink_to(await asyncio.to_thread(node_modules, SCRIPTS))
        shutil.copy(SCRIPTS / script, folder)  # Node looks for packages beside the script
        await self.start(name, [NODE, folder / script], port, ISSUER=self.issuer, PORT=str(port), **environment)

    @property
    def names(self) -> list[str]:
        """Return the names of the programs that run."""
        return [*self._processes]

    def log(self, name: str) -> str:
        """Return what it has written."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    # ── clients and users ──

    def client_url(self, name: str) -> str:
        """Return where a client is."""
        return f"http://localhost:{self.client_ports[name]}"

    async def run_client(self, name: str, client_id: str = "", secret: str = SECRET) -> None:
        """Start a client. Its server must run, since it reads the metadata."""
        await self.run_script(
            name, "client.mjs", self.client_ports[name],
            CLIENT_ID=client_id or name, CLIENT_SECRET=secret, ALGORITHM=self.kind.algorithm,
        )  # fmt: skip

    def send(self, name: str, number: signal.Signals) -> None:
        """Send a program a signal."""
        self._processes[name].send_signal(number)

    async def toggle_listener(self, name: str) -> None:
        """Stop a client's listener, or start it again. Return when its port is closed or open."""
        before = await answers(self.client_ports[name])
        self.send(name, signal.SIGUSR2)
        await until(lambda: answers(self.client_ports[name]), lambda is_open: is_open != before)

    def browser(self) -> Browser:
        """Return a user's."""
        return Browser(self.kind.answers)

    async def sign_in(self, browser: Browser, *names: str) -> None:
        """Sign the user in at these clients."""
        for name in names:
            page = await browser.visit(f"{self.client_url(name)}/login")
            assert await browser.claims(self.client_url(name)), (page, browser.visited, self.log(name))

    async def sign_out(self, browser: Browser, name: str) -> None:
        """Sign the user out at this client and at the server."""
        page = await browser.visit(f"{self.client_url(name)}/logout")
        assert page.status == 200, (page, browser.visited)

    async def until_signed_out(self, browser: Browser, *names: str) -> None:
        """Wait until these clients have ended the user's session."""
        for name in names:
            await until(partial(browser.claims, self.client_url(name)), lambda claims: claims is None)

    async def sign_out_with_client_down(self, browser: Browser) -> None:
        """Sign in at both clients, and out at one while the other is down, until two attempts there have failed."""
        await self.sign_in(browser, *CLIENTS)
        claims = await browser.claims(self.client_url("mail"))
        assert claims is not None
        await self.toggle_listener("mail")
        await self.sign_out(browser, "shop")
        await self.until_attempts(lambda outcomes: len(outcomes) >= 2, sid=claims["sid"], client_id=claims["aud"])
        await self.toggle_listener("mail")
        await self.until_signed_out(browser, *CLIENTS)
        await self.until_attempts(lambda outcomes: outcomes[-1:] == ["delivered"], sid=claims["sid"])

    # ── keys and tokens ──

    async def read_keys(self, url: str = "") -> list[str]:
        """Return the `kid`s of a JWK Set, by default of the issuer's `jwks_uri`."""
        async with aiohttp.ClientSession() as session, session.get(url or self.jwks_uri) as answer:
            assert answer.status == 200, await answer.text()
            return [key["kid"] for key in (await answer.json(content_type=None))["keys"]]

    async def read_joined_set(self, worker_index: int) -> tuple[int, list[str]]:
        """Return status and `kid`s of the set that a worker itself answers."""
        url = f"http://127.0.0.1:{self.web[worker_index]}/relays/{RELAY}/jwks"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            keys = (await answer.json(content_type=None))["keys"] if answer.status == 200 else []
            return answer.status, [key["kid"] for key in keys]

    async def post_token(self, token: str, worker_index: int | None = None) -> tuple[int, str]:
        """Send a token to this worker, or through nginx as the server does; return status and answer.

        nginx ends the connection of each answer: on a reused one, a token that meets a reload would be lost.
        """
        url = self.logout_address
        if worker_index is not None:
            url = f"http://127.0.0.1:{self.web[worker_index]}/relays/{RELAY}/backchannel-logout"
        async with aiohttp.ClientSession() as session, session.post(url, data={"logout_token": token}) as answer:
            assert worker_index is not None or answer.headers["Connection"] == "close"
            return answer.status, await answer.text()

    async def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric over both workers."""
        return sum([await each.metric(name, **labels) for each in self.workers])

    def attempts(self, **members: str) -> list[dict[str, Any]]:
        """Return the attempts with these members of both workers, in their order."""
        found = [line for each in self.workers for line in each.logged("attempt") if members.items() <= line.items()]
        return sorted(found, key=lambda line: str(line["time"]))

    async def until_attempts(self, good: Callable[[list[str]], bool], **members: str) -> None:
        """Wait until the outcomes of the attempts with these members are good."""

        async def outcomes() -> list[str]:
            return [line["outcome"] for line in self.attempts(**members)]

        await until(outcomes, good)

    # ── notifier and nginx ──

    @asynccontextmanager
    async def running_workers(self) -> AsyncIterator[None]:
        """Run both workers."""
        async with AsyncExitStack() as stack:
            self.workers = [await stack.enter_async_context(worker(site)) for site in self.sites]
            yield

    @asynccontextmanager
    async def following_readiness(self) -> AsyncIterator[None]:
        """Have nginx send only to workers whose `/readyz` was 200 in the last second, as a Service does."""
        file = self.folder / "nginx" / "nginx.conf"
        text, process = file.read_text(), int((self.folder / "nginx" / "pid").read_text())

        async def follow() -> None:
            while True:
                ready = [port for port, each in zip(self.web, self.workers, strict=True) if await _is_ready(each)]
                if ready != self.ready_ports:
                    marked = text
                    for port in {*self.web} - {*ready}:
                        marked = marked.replace(f"127.0.0.1:{port} max_fails=0", f"127.0.0.1:{port} down")
                    file.write_text(marked)
                    os.kill(process, signal.SIGHUP)
                    self.ready_ports = ready
                await asyncio.sleep(1.0)

        following = asyncio.create_task(follow())
        try:
            yield
        finally:
            following.cancel()
            await asyncio.wait({following})
            if not following.cancelled():
                await following

    def registry(self, *, pairwise: Sequence[str] = (), ids: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """Return notifier's registry: both clients, and `looped` with the address of the relay."""
        known = [
            {
                "client_id": (ids or {}).get(name, name),
                "backchannel_logout_uri": f"http://127.0.0.1:{port}/backchannel-logout",
                "id_token_signed_response_alg": self.kind.algorithm,
                "subject_type": "pairwise" if name in pairwise else "public",
            }
            for name, port in self.client_ports.items()
        ]
        return [*known, {**known[0], "client_id": "looped", "backchannel_logout_uri": self.logout_address}]

    def write_sites(self, queue: tuple[str, str], clients: Sequence[Any], jwks_uri: str = "") -> None:
        """Write the files of both workers, which share key and registry.

        `queue`: its URL and prefix. `jwks_uri`: where they read the server's keys, by default at the server.
        """
        (self.folder / "key.pem").write_bytes(generate_key(self.kind.algorithm))
        self.sites = [_site(self.folder / f"worker-{index}", *queue) for index in range(len(self.web))]
        for site, port in zip(self.sites, self.web, strict=True):
            keys = [{"file": str(self.folder / "key.pem")}]
            site.config["issuers"] = {self.issuer: {"keys": keys, "jwks_uri": self.jwks_uri}}
            site.config["web"] = {"listen": f"127.0.0.1:{port}"}
            site.config["relays"] = {RELAY: {"issuer": self.issuer, "jwks_uri": jwks_uri or self.own_jwks_uri}}
            site.config["log"]["subject"] = "raw"
            site.write_clients(clients)
            site.write()

    def nginx_block(self, through: int | None = None) -> str:
        """Return nginx's block of docs/relay.md, for the ports here.

        `through`: the port of a proxy that leads to the workers. There is no fallback then.
        """
        block = documented("nginx", "docs/relay.md")
        first, second = self.web if through is None else (through, through)
        replacements = {
            "server notifier-1:8090": f"server 127.0.0.1:{first}",
            "server notifier-2:8090": f"server 127.0.0.1:{second}",
            "http://dex:5556": f"http://127.0.0.1:{self.own}",
            "listen 443 ssl": f"listen 127.0.0.1:{self.front}",
            "location = /dex/keys": f"location = {self.kind.keys}",
            "allow 10.0.0.0/8": "allow 127.0.0.0/8",
            "/relays/dex/": f"/relays/{RELAY}/",
        }
        for text, other in replacements.items():
            assert text in block, text
            block = block.replace(text, other)
        return block if through is None else re.sub(r"error_page .*;.*", "", block)


@asynccontextmanager
async def relay_lab(folder: Path, kind: Kind, through: int | None = None) -> AsyncIterator[Lab]:
    """Run nginx (`through`: see `nginx_block`). The test starts the server, its clients and the workers."""
    lab = Lab(folder, kind)
    try:
        async with AsyncExitStack() as stack:
            place = folder / "nginx"
            command = write_nginx(place, lab.nginx_block(through), reloads=True)
            await stack.enter_async_context(lab.reader)
            await stack.enter_async_context(running(command, place, lab.front))
            yield lab
    except Exception as error:
        for name in lab.names:
            error.add_note(f"the log of {name} ends: {lab.log(name)[-1500:]}")
        raise
    finally:
        for name in lab.names:
            await lab.stop(name)


async def _is_ready(running: WorkerProcess) -> bool:
    try:
        is_listening = any("ops" in line for line in running.logged("listening"))
        return running.running and is_listening and (await running.get("/readyz"))[0] == 200
    except aiohttp.ClientError:  # it has just ended
        return False


def _site(folder: Path, queue_url: str, prefix: str) -> Site:
    folder.mkdir()
    return Site(folder, queue_url, prefix)
