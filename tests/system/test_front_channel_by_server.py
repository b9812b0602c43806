"""Clients that a worker calls at their front-channel URI: told with `iss` and `sid`, and again if that fails."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from urllib.parse import parse_qsl

from aiohttp import web

from tests.system.command import notifier
from tests.system.loopback import LoopbackServer
from tests.system.site import ISSUER, Site
from tests.system.waiting import until
from tests.system.worker_process import worker


class FrontChannels:
    """Clients at paths of their own. `down` answer 503; `hung` not at all."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.down: set[str] = set()
        self.hung: set[str] = set()
        self.server = LoopbackServer(self._handle)

    @property
    def counts(self) -> Counter[str]:
        """How often each was asked."""
        return Counter(path for _, path, _ in self.asked)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        assert await request.read() == b""
        assert "Cookie" not in request.headers
        assert "Content-Type" not in request.headers
        self.asked.append((request.method, request.path, dict(parse_qsl(request.query_string))))
        self.server.changed.set()
        if request.path in self.hung:
            await asyncio.Event().wait()
        return web.Response(status=503 if request.path in self.down else 302 if request.path == "/moves" else 200)


@contextlib.asynccontextmanager
async def site_of(folder: Path, place: tuple[str, str]) -> AsyncIterator[tuple[Site, FrontChannels]]:
    clients = FrontChannels()
    async with clients.server:
        site = Site(folder, *place)
        site.write()
        settings = {"front_channel": "server", "timeout": "1s"}
        site.write_clients(
            [
                {
                    "client_id": name,
                    "issuer": ISSUER,
                    "frontchannel_logout_uri": f"{clients.server.base}/{name}?of=us",
                    "notifier": settings | ({"success_statuses": [302]} if name == "moves" else {}),
                }
                for name in ("shop", "moves", "down", "hung")
            ]
        )
        yield site, clients


def event(number: int, names: Sequence[str], sid: str | None = "5F2A-secret-session") -> dict[str, object]:
    found: dict[str, object] = {"iss": ISSUER, "sub": "alice", "id": f"e{number}", "clients": names}
    return found | ({"sid": sid} if sid else {})


async def test_each_client_is_asked_once_with_iss_and_sid(place: tuple[str, str], tmp_path: Path) -> None:
    """An event without a sid is a dead letter `no_sid`, and no log shows a sid."""
    async with site_of(tmp_path, place) as (site, clients), worker(site) as running:
        assert (await running.post(event(1, ["shop", "moves"])))[0] == 202
        await clients.server.until(lambda: len(clients.asked) == 2)
        asked = {"of": "us", "iss": ISSUER, "sid": "5F2A-secret-session"}
        assert sorted(clients.asked) == [("GET", "/moves", asked), ("GET", "/shop", asked)]
        assert (await running.post(event(2, ["shop"], sid=None)))[0] == 202

        async def letters() -> list[dict[str, str]]:
            done = await asyncio.to_thread(
                notifier, "dead-letters", "list", "-c", "notifier.yaml", "--json", cwd=tmp_path
            )
            return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]

        found = await until(letters, bool)
        assert "no_sid" in json.dumps(found)
        assert len(clients.asked) == 2
        assert "secret-session" not in running.log
        assert await running.stop() == 0
