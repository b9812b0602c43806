"""The page that signs a browser into the demo's console: once, without a token in an address, and for nobody else."""

import re

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from notifier.demo.hand_over import HandOver
from notifier.feature import Running


async def test_it_opens_once() -> None:
    """Whoever comes second, or by another path, gets nothing."""
    door = HandOver("a-token")
    running = door.feature().run(None)  # type: ignore[arg-type]  # it needs nothing of the worker
    assert isinstance(running, Running)
    app = web.Application()
    app.add_routes(running.api)
    async with TestClient(TestServer(app)) as client:
        assert (await client.get("/demo/")).status == 404
        first, second = [await client.get(door.path) for _ in range(2)]
        page = await first.text()
        assert (first.status, second.status) == (200, 404)
        assert "a-token" not in door.path + await second.text()
        [nonce] = re.findall('<script nonce="(.*?)">', page)
        assert f"script-src 'nonce-{nonce}'" in first.headers["Content-Security-Policy"]
        assert (first.headers["Cache-Control"], first.headers["Referrer-Policy"]) == ("no-store", "no-referrer")


def test_each_demo_has_its_own_path() -> None:
    """Nobody can guess it."""
    assert HandOver("a").path != HandOver("a").path
    assert len(HandOver("a").path) > len("/demo/") + 20
