"""`notifier demo` plays the whole story with the real service."""

import asyncio
import os
import re
import signal
from pathlib import Path

import aiohttp
import pytest

from tests.system.command import command, environment, notifier


@pytest.mark.full
def test_demo_accounts_for_every_delivery(tmp_path: Path) -> None:
    """Exit 0, nothing on stderr, no settings of the environment, and nothing left behind."""
    settings = {"NOTIFIER_QUEUE__URL": "amqp://nobody.invalid/", "TMPDIR": str(tmp_path)}
    done = notifier("demo", "--events", "8", cwd=tmp_path, settings=settings)
    assert (done.returncode, done.stderr) == (0, "")
    text = " ".join(done.stdout.split())
    assert "40 deliveries = 24 delivered + 16 dead letters (8 expired, 8 rejected_token)" in text
    assert "every one is accounted for." in text
    assert re.search(r"forum +flaky +8 +8 +\d+ +0 ", done.stdout)
    assert not list(tmp_path.iterdir())


async def test_the_demo_in_a_browser_ends_by_ctrl_c(tmp_path: Path) -> None:
    """With exit 0 and nothing left behind. A browser is opened only if it may be."""
    process = await asyncio.create_subprocess_exec(
        *command(["demo", "--console", "--no-open"]),
        cwd=tmp_path,
        env=environment({"TMPDIR": str(tmp_path)}),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            first = (await process.stdout.readline()).decode()
            found = re.search(r"http://[\w.]+:\d+[\w/-]*", first)
            assert found is not None, first
            async with aiohttp.ClientSession() as session, session.get(found[0]) as answer:
                assert "notifier.token" in await answer.text()
            process.send_signal(signal.SIGINT)
            _, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert (process.returncode, errors) == (0, b"")
    assert await asyncio.to_thread(os.listdir, tmp_path) == []
