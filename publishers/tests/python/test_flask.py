"""The example for Flask, as it stands, on gunicorn with workers that are forked from the loaded application."""

import asyncio
from pathlib import Path

import aiohttp
import pytest

from publishers.tests.python.harness import Queue, files, until
from publishers.tests.python.server_process import ROOT, gunicorn

pytestmark = pytest.mark.full
EXAMPLES = ROOT / "publishers" / "python" / "examples"


def environment(folder: Path, url: str, prefix: str) -> dict[str, str]:
    """What the example reads."""
    (folder / "password").write_text("guest\n")
    return {
        "SESSIONS": str(folder / "sessions.db"),
        "NOTIFIER_URL": url.replace("guest:guest@", "guest@"),
        "NOTIFIER_SECRET_FILE": str(folder / "password"),
        "NOTIFIER_OUTBOX": str(folder / "outbox"),
        "NOTIFIER_EXCHANGE": f"{prefix}.events",
    }


async def sign_in_and_out(url: str, user: str) -> str:
    """The `sid`."""
    async with aiohttp.ClientSession(url, cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
        async with browser.post("/sign-in", data={"user": user}) as answer:
            sid = str((await answer.json())["sid"])
        async with browser.post("/sign-out") as answer:
            assert await answer.text() == "signed out"
    return sid


async def test_forked_workers_each_publish(amqp_url: str, queue: Queue, tmp_path: Path) -> None:
    """Each worker has its own folder and thread. A killed worker loses nothing: another takes over."""
    log, outbox = tmp_path / "log", tmp_path / "outbox"
    async with gunicorn("flask_app:app", log, environment(tmp_path, amqp_url, queue.prefix), cwd=EXAMPLES) as url:
        sids = await asyncio.gather(*(sign_in_and_out(url, f"user-{number}") for number in range(40)))
        await queue.until(40)
        await until(lambda: not files(outbox))
    assert sorted(event["sid"] for event in queue.events) == sorted(sids)
    assert {folder.name for folder in outbox.iterdir()} == {"0", "1"}
    assert len(set(queue.ids)) == len(queue.ids)
    assert "Traceback" not in log.read_text()
