"""The demo in a browser: an identity server with its upstream, three clients and the real service, all on loopback.

Everything is in one process and a temporary folder. It ends when it is stopped, or when nobody has been there for a
while.
"""

import asyncio
import signal
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web
from cryptography.fernet import Fernet
from rich.console import Console

from notifier.demo.browser_clients import Notes, Photos, Shop
from notifier.demo.embedded import start
from notifier.demo.happenings import Happenings
from notifier.demo.identity_server import PAGES, SESSIONS, STATE_COOKIE, EndSession, IdentityServer
from notifier.demo.token_check import TokenCheck
from notifier.demo.upstream_provider import AUDIENCE, CALLED, Upstream
from notifier.model.client import Algorithm
from notifier.model.durations import in_words
from notifier.tokens.key_files import KeySource, generate_key, load_keys
from notifier.tokens.key_ring import KeyRing

IDLE = 900.0  # seconds without a visit, a sign-in or a sign-out
LOOPBACK = "127.0.0.1"


@asynccontextmanager
async def browser_demo() -> AsyncIterator[tuple[str, Happenings]]:
    """Run the whole demo while entered. Gives the address to open, and what happens there."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="notifier-demo-")))
        doors = [stack.enter_context(_door()) for _ in range(5)]
        origins = [f"http://localhost:{door.getsockname()[1]}" for door in doors]
        happenings, issuer = Happenings(time.time), origins[0]
        pages, api = (f"{LOOPBACK}:{free_port()}" for _ in range(2))
        provider = IdentityServer(issuer, f"http://{pages}", happenings)
        jwks = _write_keys(folder, issuer)
        shop, photos, notes, company = origins[1:]
        clients = [Shop(shop, provider, _check("shop", issuer, jwks)), Photos(photos, provider), Notes(notes, provider)]
        upstream = Upstream(company, f"{issuer}{PAGES}", _keys_of(folder, "company.pem", company), happenings)
        metadata = [*(client.metadata() for client in clients), provider.metadata()]
        config = _write_configuration(folder, issuer, (pages, api), metadata, upstream)
        await stack.enter_async_context(start(config, happenings.observe))
        known = {client.client_id: client for client in clients}
        provider.know(known, _end_session(api), upstream, _check(AUDIENCE, issuer, jwks))
        apps = [provider.app(), *(client.app() for client in clients), upstream.app()]
        for door, app in zip(doors, apps, strict=True):
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.SockSite(runner, door).start()
        yield issuer, happenings


async def show_in_browser(console: Console, open_page: Callable[[str], object] | None, idle: float = IDLE) -> None:
    """Run the demo until SIGINT or SIGTERM, or until nobody has been there for `idle` seconds."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with browser_demo() as (url, happenings):
        console.print(f"Open {url} in a browser on this machine: sign in, sign out, and watch.")
        console.print(f"It ends by Ctrl-C, or after {in_words(idle)} in which nobody signs in or out.")
        if open_page is not None and not stop.is_set():
            await asyncio.to_thread(open_page, url)
        await _stopped_or_idle(stop, happenings, idle)


async def _stopped_or_idle(stop: asyncio.Event, happenings: Happenings, idle: float) -> None:
    while (left := happenings.last_visit + idle - time.monotonic()) > 0:
        with suppress(TimeoutError):  # each visit puts the end off
            async with asyncio.timeout(left):
                await stop.wait()
                return


def _end_session(api: str) -> EndSession:
    """Hands an event over by notifier's API, which makes it durable before it answers."""

    async def end(event: Mapping[str, object]) -> str | None:
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"http://{api}/v1/sign-outs", json=event, raise_for_status=True) as answer,
        ):
            page = (await answer.json())["front_channel"]
            return None if page is None else str(page["url"])

    return end


def _door() -> socket.socket:
    door = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    door.bind((LOOPBACK, 0))
    return door


def free_port() -> int:
    with _door() as door:
        port: int = door.getsockname()[1]
        return port


def _write_keys(folder: Path, issuer: str) -> Mapping[str, Any]:
    """The issuer's signing key, and the key of its pages. Returns the JWK Set."""
    write_secret(folder / "web.keys", Fernet.generate_key())
    return _keys_of(folder, "key.pem", issuer).jwks(issuer)


def _keys_of(folder: Path, name: str, issuer: str) -> KeyRing:
    """A key of its own, in a file."""
    write_secret(folder / name, generate_key(Algorithm.RS256))
    return load_keys({issuer: [KeySource(path=folder / name)]})


def write_secret(path: Path, secret: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(secret)


def _check(client_id: str, issuer: str, jwks: Mapping[str, Any]) -> TokenCheck:
    return TokenCheck(iss=issuer, client_id=client_id, alg="RS256", jwks=jwks, clock=time.time)


def _write_configuration(
    folder: Path, issuer: str, listening: tuple[str, str], clients: Sequence[Mapping[str, object]], upstream: Upstream
) -> Path:
    pages, api = listening
    page = {"issuer": issuer, "formula": "specification", "cookie": STATE_COOKIE}
    settings = {
        "queue": {"url": "sqlite:notifier.db"},
        "ops": {"listen": f"{LOOPBACK}:0"},
        "issuers": {issuer: {"keys": [{"file": "key.pem"}]}},
        "egress": {"allow": ["127.0.0.0/8", "::1/128"], "allow_http": True},  # the clients are on this machine
        "registry": {"file": "clients.yaml"},
        "api": {"listen": api},
        "web": {
            "listen": pages,
            "keys_file": "web.keys",
            "issuers": {issuer: {"url": f"{issuer}{PAGES}"}},
            "check_session": {"demo": page},
        },
        "upstreams": {CALLED: upstream.settings(f"{issuer}{SESSIONS}")},
        "log": {"level": "error"},
    }
    path = folder / "notifier.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    (folder / "clients.yaml").write_text(yaml.safe_dump([{**client, "issuer": issuer} for client in clients]))
    return path
