"""Strangers flood the web listener, which has no token. Deliveries by back-channel, the API and the probes go on.

Its limits: 1,000 connections, beyond which the oldest idle ones are closed; 256 requests at a time; 10 s for a header
and 10 s for a body, of 64 KiB at most; 60 s to read an answer that is larger.
"""

import asyncio
import contextlib
import json
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import aiohttp
import pytest
from cryptography.fernet import Fernet, MultiFernet

from notifier.features.browsers.front_channel_context import seal
from notifier.model.front_channel import FrontChannelContext
from notifier.network.listeners.web_app import CONNECTIONS
from tests.faults.conftest import Form, Tell
from tests.faults.embedded_rig import embedded
from tests.faults.soak_figures import resident
from tests.faults.web_rig import SAME_SUB, WebFace, faced
from tests.system.site import ISSUER
from tests.system.waiting import until
from tests.system.worker_process import WorkerProcess, worker

APPS = tuple(f"app-{number:03}" for number in range(100))  # clients of the page that is asked for
FLOOD = CONNECTIONS + 200
PART = 25  # events that are delivered during each flood
POSTERS = 50  # of reports, each without a pause
ROOM = 64.0  # MiB that a worker may grow


def context_of(face: WebFace, sid: str) -> str:
    """A context as the worker itself seals it."""
    key = MultiFernet([Fernet((face.made.site.folder / "web.keys").read_bytes())])
    clients = tuple((name, None) for name in APPS)
    return seal(FrontChannelContext(iss=ISSUER, sid=sid, clients=clients), key, time.time())


def floods(context: str, unread: int) -> Mapping[bytes, int]:
    """What each of so many connections says, before it falls silent and reads nothing. `unread`: answers to make."""
    page = f"GET /front-channel/{context} HTTP/1.1\r\nHost: login.example.com\r\n\r\n"
    token = "POST /upstreams/login/backchannel-logout HTTP/1.1\r\nHost: login.example.com\r\n"
    form = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 60000\r\n\r\nlogout_token="
    return {b"": FLOOD, page[:100].encode(): FLOOD, (token + form).encode(): FLOOD, page.encode(): unread}


@contextlib.contextmanager
def connected(port: int, said: bytes, count: int) -> Iterator[None]:
    """So many connections, each of which says that, and reads nothing."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            one = stack.enter_context(socket.socket())
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.settimeout(30)
            one.connect(("127.0.0.1", port))
            with contextlib.suppress(OSError):  # the listener was first
                one.sendall(said)
        yield


@contextlib.asynccontextmanager
async def reported(face: WebFace, seen: Counter[int]) -> AsyncIterator[None]:
    """Reports in a flood: every other one of a context that nobody sealed. `seen` counts the answers."""
    url = f"http://127.0.0.1:{face.web}/front-channel/"
    context = context_of(face, "s-reported")
    report = json.dumps({"how": "done", "clients": ["loaded"] * len(APPS)})

    async def post(session: aiohttp.ClientSession, nth: int) -> None:
        while True:
            async with session.post(url + (context if nth % 2 else context[:-20]), data=report) as answer:
                seen[answer.status] += 1

    async with aiohttp.ClientSession() as session:
        posters = [asyncio.create_task(post(session, nth)) for nth in range(POSTERS)]
        try:
            yield
        finally:
            for poster in posters:
                poster.cancel()
            ended = await asyncio.gather(*posters, return_exceptions=True)
            assert {type(each) for each in ended} == {asyncio.CancelledError}


class Installed:
    """A worker under load, and what goes on while it is flooded."""

    def __init__(self, face: WebFace, running: WorkerProcess) -> None:
        self._face = face
        self._running = running
        self._number = 0
        self.slowest = 0.0  # seconds that a probe took
        self.largest = 0  # bytes of the worker

    async def goes_on(self) -> None:
        """Publish some events, and wait until each was delivered, while health and metrics are asked for."""
        made, first = self._face.made, self._number
        self._number += PART
        await made.publisher.publish(range(first, self._number), rate=50)
        await asyncio.gather(made.clients.until_told("healthy", made.publisher.confirmed), self._is_seen())
        self.largest = max(self.largest, resident(self._running.pid))

    async def _is_seen(self) -> None:
        for path in ("/readyz", "/metrics", "/livez"):
            began = time.monotonic()
            assert (await self._running.get(path))[0] == 200
            self.slowest = max(self.slowest, time.monotonic() - began)

    async def page(self, context: str) -> int:
        """The status that a browser gets which behaves."""
        url = f"http://127.0.0.1:{self._face.web}/front-channel/{context}"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            await answer.read()
            return answer.status


@pytest.mark.fault(
    "web listener",
    "connections by the thousand that say nothing, half a header or half a body, or read no answer; reports in a flood",
)
@pytest.mark.timeout(900)
async def test_nobody_feels_a_flood(tmp_path: Path, form: Form[int], tell: Tell) -> None:
    """A browser that behaves gets its page, or 429 while all places are taken; and its page once they are free."""
    rounds = form(1, 10)
    async with embedded(tmp_path) as made, faced(made, {"login": SAME_SUB}) as face:
        fronts = [
            {"client_id": name, "issuer": ISSUER, "frontchannel_logout_uri": f"https://{name}.example.com/signed-out"}
            for name in APPS
        ]
        made.site.write_clients([*json.loads((tmp_path / "clients.yaml").read_text()), *fronts])
        context, seen = context_of(face, "s-shown"), Counter[int]()
        async with worker(made.site) as running:
            installed = Installed(face, running)
            await installed.goes_on()
            before = installed.largest
            for _ in range(rounds):
                for said, count in floods(context, form(300, FLOOD)).items():
                    flood = connected(face.web, said, count)
                    await asyncio.to_thread(flood.__enter__)
                    try:
                        await installed.goes_on()
                        assert await installed.page(context) in (200, 429)
                        await installed.goes_on()
                    finally:
                        flood.__exit__(None, None, None)
                async with reported(face, seen):
                    await installed.goes_on()
            await until(lambda: installed.page(context), lambda status: status == 200)
            await made.settle(running)
        grown = (installed.largest - before) / 2**20
        told = f"probes took {installed.slowest:.2f} s at most, the worker grew by {grown:.0f} MiB"
        print(told, dict(seen))  # noqa: T201  as the account is
        assert grown < ROOM
        assert installed.slowest < 5
        tell(await made.account(), times=5 * rounds)
