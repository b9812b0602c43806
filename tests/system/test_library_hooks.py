"""A worker whose libraries have other internals: it delivers by their public ways, and reports that."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.broker import broker
from tests.system.clients import Clients
from tests.system.site import ISSUER, Site, client
from tests.system.worker_process import ROOT, worker

OFF = {"PYTHONPATH": f"{ROOT}/tests/support/without_hooks:{ROOT}"}
HOOKS = {"requests": 0, "frames": 0, "messages": 0, "confirms": 0, "alarms": 1}


@pytest.mark.full
async def test_it_delivers_and_reports_each_hook_once(tmp_path: Path, amqp_url: str, prefix: str) -> None:
    """In the log with versions, cost and remedy; as a metric; and by the doctor."""
    async with Clients() as clients:
        site = Site(tmp_path, amqp_url, prefix)
        site.write_clients([client("shop", clients.url("shop"))])
        async with (
            worker(site, command=[sys.executable, "-m", "notifier"], settings=OFF) as running,
            broker(amqp_url, prefix) as publisher,
        ):
            await publisher.publish({"iss": ISSUER, "sub": "alice", "sid": "s1", "clients": ["shop"]})
            attempt = await running.until_logged("attempt")
            assert (attempt["outcome"], attempt["status"]) == ("delivered", 200)
            for hook, on in HOOKS.items():
                await running.until_metric(on, "library_hooks", hook=hook)
            lines = running.logged("library_hook_off")
            assert [line["hook"] for line in lines] == ["requests", "frames", "messages", "confirms"]
            assert all("other internals than" in line["reason"] and line["cost"] and line["hint"] for line in lines)
            assert {line["help"] for line in lines} == {"notifier explain NotifierLibraryHookOff"}
    words = [sys.executable, "-m", "notifier", "doctor", "--offline", "-c", str(site.file)]
    done = await asyncio.to_thread(subprocess.run, words, cwd=tmp_path, env=OFF, stdout=subprocess.PIPE, text=True)
    assert [done.stdout.count(words) for words in (" is off: ", "notifier explain NotifierLibraryHookOff")] == [4, 4]
