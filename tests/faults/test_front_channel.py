"""Clients that a worker asks at their front-channel URI: one hangs, one answers 500, and workers are killed meanwhile.

Others are told at once, by either channel. Once all is well, each has heard of every session.
"""

import asyncio
import json

import pytest

from tests.faults.conftest import Form, Tell
from tests.faults.rig import ANSWER, CLIENTS, Rig, judge, kill
from tests.system.clients import Hit
from tests.system.site import ISSUER
from tests.system.worker_process import worker

WHAT = "one called by front-channel hangs and one answers 500, while workers are killed: all delivered in the end"
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


@pytest.mark.parametrize(
    "installation",
    [
        pytest.param("rabbitmq", marks=pytest.mark.fault("client", WHAT)),
        pytest.param("sqlite", marks=pytest.mark.fault("embedded queue", WHAT)),
    ],
    indirect=True,
)
@pytest.mark.timeout(600)
async def test_killed_meanwhile(installation: Rig, form: Form[int], tell: Tell) -> None:
    """What waits for the two is parked. No worker tells them before they are well."""
    times, trouble, site = form(1, 10), Trouble(), installation.site
    installation.publish_for((*CLIENTS, *FRONT))
    installation.clients.judge = trouble.judge
    site.config["delivery"]["timeout"] = f"{TIMEOUT}s"
    site.write()
    by_front = [
        {
            "client_id": name,
            "issuer": ISSUER,
            "frontchannel_logout_uri": f"{installation.clients.url(name)}?of=us",
            "notifier": {"front_channel": "server"},
        }
        for name in FRONT
    ]
    site.write_clients([*json.loads((site.folder / "clients.yaml").read_text()), *by_front])
    for nth in range(times + 1):
        async with worker(site) as running:
            await installation.publisher.publish(range(nth * PART, (nth + 1) * PART), rate=100)
            for name in ("healthy", "front"):
                await installation.clients.until_told(name, installation.publisher.confirmed)
            assert not {path for path, _ in installation.clients.accepted} & {"/front-hangs", "/front-fails"}
            if nth < times:
                await kill(running)
                continue
            trouble.lasts = False
            await installation.settle(running)
    tell(await installation.account(cause=HELD), times=times)
