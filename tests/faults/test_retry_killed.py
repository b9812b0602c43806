"""`notifier retry` dies in the worst moment: what it made due is confirmed, and still in its delay queue too."""

import asyncio
import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.faults import killed_before_ack
from tests.system.clients import Clients, Hit
from tests.system.command import environment, notifier
from tests.system.site import ISSUER, Site, client
from tests.system.waiting import until
from tests.system.worker_process import worker

SESSIONS = {f"s{number}" for number in range(40)}
WHICH = ("--client-id", "shop", "--iss", ISSUER)


async def run(site: Site, *words: str) -> list[Any]:
    """What a command prints as JSON."""
    done = await asyncio.to_thread(notifier, *words, "--json", "-c", site.file, cwd=site.folder)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.timeout(600)
async def test_killed_between_the_confirm_and_the_ack(tmp_path: Path, amqp_url: str, prefix: str) -> None:
    """Each is told; at most once more than without the kill, since two copies of one delivery may be on their way."""
    well = False

    def judge(_hit: Hit) -> int:
        return 200 if well else 400

    async with Clients(judge) as clients:
        site = Site(tmp_path, amqp_url, prefix)
        site.config["delivery"]["retry"] = {"base": "600s", "max_delay": "600s"}
        site.write()
        site.write_clients([client("shop", clients.url("shop"))])
        async with worker(site) as running:
            await running.until_said("replying")
            for sid in sorted(SESSIONS):
                assert (await running.post({"iss": ISSUER, "sub": "alice", "sid": sid, "clients": ["shop"]}))[0] == 202
            await until(lambda: run(site, "waiting", "list"), lambda shown: len(shown) == len(SESSIONS))
            well = True
            dying = await asyncio.create_subprocess_exec(
                sys.executable, killed_before_ack.__file__, "retry", *WHICH, "-c", site.file,
                cwd=site.folder, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            assert await dying.wait() == -signal.SIGKILL
            await clients.until(lambda: len(clients.accepted) >= 1)  # what was moved is attempted
            assert len(await run(site, "waiting", "list")) == len(SESSIONS)  # and waits too
            [account] = await until(lambda: run(site, "retry", *WHICH), lambda told: told[0]["waiting"] == 0)
            assert account["unfinished"] is None
            await clients.until(lambda: {who for _, who in clients.accepted} == SESSIONS)
            assert await run(site, "waiting", "list") == []
            assert await running.stop() == 0
        hits = Counter(hit.who for hit in clients.hits)
        assert hits.keys() == SESSIONS
        assert max(hits.values()) <= 3  # refused, delivered, and once more
        assert max(hits.values()) >= 2
