"""Clients that a worker asks at their front-channel URI: one hangs, one answers 500, and workers are killed meanwhile.

Others are told at once, by either channel. Once all is well, each has heard of every session.
"""

import asyncio
import json
import signal
from pathlib import Path

import pytest

from tests.faults.conftest import Form, Tell
from tests.faults.embedded_rig import embedded
from tests.faults.http_publisher import HttpPublisher
from tests.faults.rig import ANSWER, CLIENTS, Rig, judge, rig
from tests.system.clients import Hit
from tests.system.publisher import Publisher
from tests.system.site import ISSUER
from tests.system.worker_process import worker

WHAT = "one asked by front-channel hangs and one answers 500, while workers are killed: told of all in the end"
HELD = "held by a worker that was killed"
FRONT = ("front", "front-hangs", "front-fails")
PART = 40  # events between two kills
TIMEOUT = 2.0  # seconds of an attempt


class Trouble:
    """How the clients answer. Two are in trouble while it `lasts`."""

    def __init__(self) -> None:
        self.lasts = True

    async def judge(self, hit: Hit) -> int:
        """What a request is answered with."""
        if not hit.path.startswith("/front"):
            return await judge(hit)
        assert (hit.token, hit.claims) == ("", {"of": "us", "iss": ISSUER, "sid": hit.who})
        if self.lasts and hit.path == "/front-hangs":
            await asyncio.sleep(2 * TIMEOUT)
            return 503
        await asyncio.sleep(ANSWER)
        return 500 if self.lasts and hit.path == "/front-fails" else 200


async def killed_meanwhile(made: Rig, times: int) -> None:
    """Kill so many workers while the trouble lasts."""
    trouble, site = Trouble(), made.site
    made.clients.judge = trouble.judge
    site.config["delivery"]["timeout"] = f"{TIMEOUT}s"
    site.write()
    by_front = [
        {
            "client_id": name,
            "issuer": ISSUER,
            "frontchannel_logout_uri": f"{made.clients.url(name)}?of=us",
            "notifier": {"front_channel": "server"},
        }
        for name in FRONT
    ]
    site.write_clients([*json.loads((site.folder / "clients.yaml").read_text()), *by_front])
    for nth in range(times + 1):
        async with worker(site) as running:
            await made.publisher.publish(range(nth * PART, (nth + 1) * PART), rate=100)
            for name in ("healthy", "front"):
                await made.clients.until_told(name, made.publisher.confirmed)
            assert not {path for path, _ in made.clients.accepted} & {"/front-hangs", "/front-fails"}
            if nth < times:
                running.send(signal.SIGKILL)
                await running.ended()
                continue
            trouble.lasts = False
            await made.until_settled(others=len(FRONT) * len(made.publisher.confirmed))
            assert await running.stop() == 0


@pytest.mark.fault("client", WHAT)
@pytest.mark.timeout(600)
async def test_on_rabbitmq(tmp_path: Path, amqp_url: str, prefix: str, form: Form[int], tell: Tell) -> None:
    """What waits for the two is parked."""
    times = form(1, 10)
    async with rig(tmp_path, amqp_url, prefix) as made:
        made.publisher = Publisher(amqp_url, prefix, (*CLIENTS, *FRONT))
        await killed_meanwhile(made, times)
        tell(await made.account(cause=HELD), times=times)


@pytest.mark.fault("embedded queue", WHAT)
@pytest.mark.timeout(600)
async def test_on_sqlite(tmp_path: Path, form: Form[int], tell: Tell) -> None:
    """The same."""
    times = form(1, 10)
    async with embedded(tmp_path) as made:
        made.publisher = HttpPublisher(made.port, (*CLIENTS, *FRONT))
        await killed_meanwhile(made, times)
        tell(await made.account(cause=HELD), times=times)
