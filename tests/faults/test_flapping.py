"""A broker that flaps: whenever the worker has found it again, the connections are lost.

Clients make it hard: some take longer to answer than a connection lives, one hangs until the attempt is given up, and
two are down for most of the while. Half of the events have no id, by which a second copy could be known.
"""

import asyncio
import random
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from yarl import URL

from tests.faults.conftest import Form, Tell
from tests.faults.rig import ANSWER, rig
from tests.faults.test_poison import killed_by
from tests.system.clients import Hit
from tests.system.publisher import Publisher
from tests.system.site import client
from tests.system.tcp_proxy import Ending, TcpProxy
from tests.system.worker_process import worker

QUICK = ("healthy", "down-1", "down-2")
LATE = ("slow", "hanging")
LINKS = 2  # connections of a worker
BEYOND = 600.0  # seconds; the last is told once every client is well again and the late ones have had their turns
HIGHEST = 30  # of a hundred


class Mixed(Publisher):
    """Every other event has no id. Two of each `every` events also go to the late clients, which take one at a time."""

    every = 250

    def event(self, number: int) -> Mapping[str, object]:
        event = dict(super().event(number))
        if number % 2:
            del event["id"]
        if number % self.every < 2:
            event["clients"] = [*QUICK, *LATE]
        return event


class Flapping:
    """The clients' behaviour, while the broker flaps and afterwards."""

    def __init__(self, answer: float, hang: float) -> None:
        self.over = False
        self._answer = answer
        self._hang = hang
        self._since = time.monotonic()

    async def judge(self, hit: Hit) -> int:
        """What a request is answered with."""
        name = hit.path.removeprefix("/")
        if name == "slow":
            await asyncio.sleep(self._answer)
        elif name == "hanging" and not self.over:
            await asyncio.sleep(self._hang)
        else:
            await asyncio.sleep(ANSWER)
        return 503 if name.startswith("down") and self._down() else 200

    def _down(self) -> bool:
        """They are down for two minutes of three."""
        return not self.over and (time.monotonic() - self._since) % 180 < 120


@pytest.mark.fault("poison", "a broker that flaps every few seconds, clients that answer slower than that")
@pytest.mark.timeout(1800)
async def test_flapping(
    tmp_path: Path, amqp_url: str, prefix: str, form: Form[int], chance: random.Random, tell: Tell
) -> None:
    """A message that is given back a hundred times would become a dead letter. None comes near."""
    seconds, longest = form(8, 600), form(2, 6)  # of all flapping, and of a connection's life
    flapping = Flapping(answer=1.1 * longest, hang=2.5 * longest)
    url = URL(amqp_url)
    async with (
        TcpProxy(url.host or "localhost", url.port or 5672, chance) as proxy,
        rig(tmp_path, amqp_url, prefix) as made,
    ):
        made.clients.judge, made.expected = flapping.judge, {}
        made.publisher = publisher = Mixed(amqp_url, prefix, QUICK)
        publisher.every = form(200, 2000)
        made.site.config["queue"]["url"] = str(url.with_port(proxy.port))
        made.site.config["delivery"] |= {"timeout": f"{2 * longest}s", "max_age": "7d"}
        made.site.write()
        made.site.write_clients([client(name, made.clients.url(name)) for name in (*QUICK, *LATE)])
        async with worker(made.site, command=killed_by("reading", "none")) as running:
            ends = asyncio.get_running_loop().time() + seconds
            publishing = asyncio.create_task(made.publisher.publish(range(form(300, 30_000)), rate=form(80, 60)))
            flaps = 0
            while asyncio.get_running_loop().time() < ends:
                await proxy.until_connections(LINKS, 60)
                await asyncio.sleep(chance.uniform(longest / 6, longest))
                proxy.end(Ending.RESET)
                flaps += 1
            flapping.over = True
            await publishing
            await made.until_settled(BEYOND)
            await running.until_metric(0, "in_flight")
            assert await running.stop() == 0
        highest = max(line["count"] for line in running.said("neighbour"))
        print(f"{flaps} flaps; given back {highest} times at most")  # noqa: T201  as the account is
        assert highest < HIGHEST
        tell(await made.account(cause="held when the connection was lost"), times=flaps)
