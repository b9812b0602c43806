"""The demo of the console: an incident to watch and to repair, with the real service and its clients, all on loopback.

A client goes down. Its logouts are retried and finally given up. The client recovers, and the user of the console
replays its logouts; otherwise the demo does. Then the incident begins again.
"""

import asyncio
import json
import secrets
import signal
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import uuid4

import aiohttp
import yaml
from aiohttp import web
from rich.console import Console

from notifier.demo.bookkeeping import SignOut
from notifier.demo.embedded import EmbeddedService, start_service
from notifier.demo.receivers import LOOPBACK, Behaviour, Receiver, sample_receivers
from notifier.demo.story import ISS, event_of, write_configuration, write_key
from notifier.feature import Feature, FeatureRuntime
from notifier.model.durations import format_in_words
from notifier.model.own_thread import run_in_thread

STORAGE_KEY = "notifier.token"
"""The name under which the console stores the token of the tab (`session.js`)."""

FAILING_CLIENT = "payroll"
POLL_SECONDS = 0.2  # between two checks


class TokenPage:
    """Signs the first visitor of its `path` into the console. Only the demo's service has this route.

    The console accepts no token in an address, since a link could sign in a user as another. So this page, of the same
    origin, stores the token for the console. The path is secret, and the page is shown once, since process lists and
    histories show addresses.
    """

    def __init__(self, token: str) -> None:
        self.path = f"/demo/{secrets.token_urlsafe(16)}"
        self._token: str | None = token

    def feature(self) -> Feature:
        """Return the feature that adds this page to the demo's service."""
        return Feature(name="demo", run=lambda _given: FeatureRuntime(api=[web.get(self.path, self._show)]))

    async def _show(self, _request: web.Request) -> web.Response:
        """Return a page that stores the token and opens the console. Raises 404 from the second request on."""
        token, self._token = self._token, None
        if token is None:
            raise web.HTTPNotFound(text="This address has been opened. Start the demo again.")
        nonce = secrets.token_urlsafe(16)
        script = (
            f'sessionStorage.setItem("{STORAGE_KEY}", {json.dumps(token)});'
            ' location.replace("/console/" + location.hash);'
        )
        headers = {
            "Content-Security-Policy": f"default-src 'none'; script-src 'nonce-{nonce}'; frame-ancestors 'none'",
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
        }
        page = f'<!doctype html><title>notifier</title><script nonce="{nonce}">{script}</script>'
        return web.Response(text=page, content_type="text/html", headers=headers)


CLIENT_BEHAVIOURS: Mapping[str, Behaviour] = {
    "shop": Behaviour.HEALTHY,
    "reports": Behaviour.SLOW,
    "forum": Behaviour.HEALTHY,
    "payroll": Behaviour.HEALTHY,
}
PrintStory = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """The durations of the incident, and the interval between sign-outs.

    `max_age_seconds`: how long a logout is tried. The client is down until `dead_letter_count` logouts are given up.
    `repair_seconds`: how long the user has for the repair. `max_seconds`: the duration of the whole demo.
    """

    sign_out_interval_seconds: float = 0.7
    healthy_seconds: float = 10.0
    max_age_seconds: int = 12
    dead_letter_count: int = 12
    repair_seconds: float = 90.0
    max_seconds: float = 900.0


class DemoScenario:
    """The service and its clients, one of which fails."""

    def __init__(self, service: EmbeddedService, receivers: Mapping[str, Receiver], api: str, token: str) -> None:
        self.address = ""
        self.failing_client = receivers[FAILING_CLIENT]
        self._service = service
        self._receivers = receivers
        self._api = api
        self._token = token

    async def sign_out(self) -> None:
        """Sign a user out of all clients."""
        sid = uuid4().hex
        for receiver in self._receivers.values():
            receiver.sessions.add(sid)
        sign_out = SignOut(event_id=str(uuid4()), sid=sid, at=time.time())
        await self._service.publish(event_of(sign_out, f"user-{sid[:4]}", [*self._receivers]))

    async def wait_for_dead_letters(self, enough: Callable[[int], bool]) -> None:
        """Return when `enough` is true for the number of the failing client's dead letters."""
        while True:
            letters = await self._service.dead_letters()
            if enough(sum(letter.client_id == FAILING_CLIENT for letter in letters)):
                return
            await asyncio.sleep(POLL_SECONDS)

    async def repair_client(self) -> None:
        """Retry the client now and replay its dead letters, as the console does."""
        client = {"client_id": FAILING_CLIENT, "iss": ISS}
        headers = {"Authorization": f"Bearer {self._token}"}
        async with aiohttp.ClientSession(self._api, headers=headers, raise_for_status=True) as api:
            for path in ("/v1/retry", "/v1/dead-letters/replay"):
                async with api.post(path, json=client):
                    pass


@asynccontextmanager
async def console_demo(incident: Incident) -> AsyncIterator[DemoScenario]:
    """Run clients and service for the block. The scenario's `address` opens the console, signed in, once."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="notifier-demo-")))
        receivers = await stack.enter_async_context(
            sample_receivers(iss=ISS, jwks=write_key(folder), clock=time.time, behaviours=CLIENT_BEHAVIOURS)
        )
        port, visitor_token, demo_token = _find_free_port(), secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        tokens = {"you": visitor_token, "demo": demo_token}
        entries = [{"name": name, "token": token, "scopes": ["read", "repair"]} for name, token in tokens.items()]
        tokens_file = folder / "tokens.yaml"
        tokens_file.touch(mode=0o600)
        tokens_file.write_text(yaml.safe_dump(entries))
        config = write_configuration(
            folder, receivers, {FAILING_CLIENT: f"{incident.max_age_seconds}s"},
            api={"listen": f"{LOOPBACK}:{port}", "tokens_file": tokens_file.name},
            delivery={"retry": {"base": "1s", "max_delay": "5s"}},
        )  # fmt: skip
        page = TokenPage(visitor_token)
        service = await stack.enter_async_context(start_service(config, lambda _fact: None, page.feature()))
        api = f"http://{LOOPBACK}:{port}"
        scenario = DemoScenario(service, receivers, api, demo_token)
        scenario.address = f"{api}{page.path}"
        yield scenario


async def show_console(
    console: Console, open_page: Callable[[str], object] | None, incident: Incident | None = None
) -> None:
    """Run the demo until SIGINT or SIGTERM, or for `max_seconds` of the incident.

    `open_page` opens the console in a browser; without it, only the address is printed.
    """
    incident, stop, loop = incident or Incident(), asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    started_at = time.monotonic()

    def print_story(text: str) -> None:
        console.print(f"{time.monotonic() - started_at:4.0f} s  {text}", highlight=False, soft_wrap=True)

    async with console_demo(incident) as scenario:
        console.print(f"Open {scenario.address} in a browser on this machine. It opens once.", soft_wrap=True)
        console.print(f"The demo ends by Ctrl-C, or after {format_in_words(incident.max_seconds)}.\n")
        if open_page is not None and not stop.is_set():
            await run_in_thread(partial(open_page, scenario.address), "browser")
        with suppress(TimeoutError):
            async with asyncio.timeout(incident.max_seconds), asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(sign_users_out(scenario, incident)),
                    group.create_task(play_incidents(scenario, incident, print_story)),
                ]
                await stop.wait()
                for task in tasks:
                    task.cancel()


async def sign_users_out(scenario: DemoScenario, incident: Incident) -> None:
    """Sign users out at regular intervals, until cancelled."""
    while True:
        await scenario.sign_out()
        await asyncio.sleep(incident.sign_out_interval_seconds)


async def play_incidents(scenario: DemoScenario, incident: Incident, print_story: PrintStory) -> None:
    """Let the client fail, recover and be repaired, repeatedly until cancelled."""
    while True:
        print_story("Users sign out of shop, reports, forum and payroll. All of them are notified.")
        await asyncio.sleep(incident.healthy_seconds)
        scenario.failing_client.kind = Behaviour.DOWN
        print_story(
            "payroll goes down: it answers 503. See Overview and its page: since when, last answer, next attempt."
        )
        await scenario.wait_for_dead_letters(lambda count: count >= incident.dead_letter_count)
        print_story(
            f"payroll has missed {incident.dead_letter_count} logouts that notifier has given up: see Dead letters."
        )
        scenario.failing_client.kind = Behaviour.HEALTHY
        print_story(
            "payroll works again. Press *Resolved* on its page: it is retried, and its dead letters are replayed."
        )
        while not await _wait_for_repair(scenario, incident.repair_seconds):
            await scenario.repair_client()
            print_story("Nobody did, so the demo does: see the audit log.")
        print_story("payroll was notified of every logout.\n")


async def _wait_for_repair(scenario: DemoScenario, within: float) -> bool:
    """Wait until the failing client has no dead letter. Return False if that takes longer than `within` seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(within):
            await scenario.wait_for_dead_letters(lambda count: count == 0)
            return True
    return False


def _find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port
