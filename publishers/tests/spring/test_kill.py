"""The process is killed between the end of a session and its file: the next start publishes it by the table's rows.

Its refresh tokens are revoked all the same.
"""

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from publishers.tests.spring.sample_server import CLIENTS, Browser, SampleServer, entry
from publishers.tests.spring.starter import boot_under_test, sample_jar

PATIENCE = 60.0  # seconds
pytestmark = [pytest.mark.full, pytest.mark.asyncio, pytest.mark.timeout(600)]


async def test_killed_between_session_end_and_file(tmp_path: Path) -> None:
    """A session that is gone has no file at the kill; after the next start it has one, a living session has none."""
    settings = {
        "url": "http://127.0.0.1:9",
        "secret": "none",
        "public-keys": "none",
        "outbox.folder": tmp_path / "outbox",
        "sweep.interval": "1h",
    }
    server = SampleServer(await asyncio.to_thread(sample_jar, boot_under_test()), tmp_path, tmp_path / "log")
    await asyncio.to_thread(server.start, settings, {})
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:
        try:
            gone = await Browser(http, "gone").sign_in(server.url, *CLIENTS)
            living = await Browser(http, "living").sign_in(server.url, *CLIENTS)
            deleted = await gone.ask("POST", f"{server.url}/sample/admin/delete", data={"session": gone.session_id})
            assert deleted.status == 200
            await asyncio.to_thread(server.kill)
            assert _events(tmp_path) == []
            await asyncio.to_thread(server.start, settings, {})
            async with asyncio.timeout(PATIENCE):
                while not _events(tmp_path):  # noqa: ASYNC110  files do not notify
                    await asyncio.sleep(0.1)
            assert (await gone.refresh(server.url, "shop"))[1]["error"] == "invalid_grant"
            assert (await living.refresh(server.url, "shop"))[0] == 200
            [event] = _events(tmp_path)
            assert event["sid"] == gone.claims("shop")["sid"]
            assert sorted(event["clients"], key=str) == sorted((entry(client, "gone") for client in CLIENTS), key=str)
            assert (await living.sign_out(server.url)).status == 302
            async with asyncio.timeout(PATIENCE):
                while len(_events(tmp_path)) < 2:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
        finally:
            await asyncio.to_thread(server.kill)


def _events(folder: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line)["event"]
        for file in sorted((folder / "outbox").rglob("[0-9]*.json"))
        for line in file.read_text().splitlines()
    ]
