"""A healthy client, and beside it `sick`, which goes down and recovers on request. Its deliveries are parked.

`sick` is down in one of three ways: it answers 503, hangs, or refuses connections.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum

from tests.faults.rig import ANSWER, Rig
from tests.support.rabbit_options import BUCKET_NAMES
from tests.system.broker import broker
from tests.system.clients import Hit
from tests.system.site import client
from tests.system.tcp_proxy import Ending, TcpProxy
from tests.system.waiting import until
from tests.system.worker_process import ROOT

CLIENTS = ("healthy", "sick")
AT_A_TIME = 4  # attempts that `sick` takes at a time
TIMEOUT = 2.0  # seconds of an attempt
# The policy's bound is half of the outage and 3 s, and one timeout if the client hung; then its own pace counts, which
# the simulator holds. The rest is for a worker that was killed or disconnected after the recovery, and for a machine so
# busy that each of hundreds of attempts takes 0.3 s. Forgotten deliveries return after 17 min.
SECONDS = 90.0
PATIENCE = 120.0  # seconds


class Down(StrEnum):
    """How a client is down."""

    ANSWERS_503 = "answers 503"
    HANGS = "hangs"
    REFUSES = "refuses connections"


def parks(step: str) -> list[str]:
    """Return the command of a worker that kills itself at this step: see parks.py."""
    return [sys.executable, str(ROOT / "tests" / "faults" / "parks.py"), step]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lag:
    """A recovery: the seconds of the outage, the parked deliveries, and the seconds until all were delivered."""

    down: float
    waiting: int
    lag: float


class Sick:
    """The client. Made by `sick_in`. `takes`: the seconds that it takes for each answer while it is well."""

    def __init__(self, made: Rig, way: TcpProxy) -> None:
        self.takes = ANSWER
        self.lags: list[Lag] = []
        self._made = made
        self._way = way
        self._down: Down | None = None
        self._fell = 0.0

    async def judge(self, hit: Hit) -> int:
        """What a request is answered with."""
        if hit.path != "/sick":
            await asyncio.sleep(ANSWER)
            return 200
        match self._down:
            case None:
                await asyncio.sleep(self.takes)
                return 200
            case Down.HANGS:
                await asyncio.sleep(2 * TIMEOUT)
        return 503

    @property
    def url(self) -> str:
        """The client's address."""
        return f"http://127.0.0.1:{self._way.port}/sick"

    def fall(self, down: Down) -> None:
        """Be down."""
        self._down, self._fell = down, asyncio.get_running_loop().time()
        if down is Down.REFUSES:
            self._way.refuse()
            self._way.end(Ending.RESET)

    async def recover(self) -> None:
        """Be well."""
        self._down = None
        await self._way.accept()

    def owed(self) -> set[str]:
        """The confirmed events that it has not accepted."""
        return {
            event
            for event, named in self._made.publisher.confirmed.items()
            if "sick" in named and ("/sick", event) not in self._made.clients.accepted
        }

    async def until_served(self, patience: float = PATIENCE) -> None:
        """Wait until it has accepted all that waits for it now, and note the lag."""
        clock = asyncio.get_running_loop().time
        waiting, began = self.owed(), clock()
        count = len(waiting)

        def served() -> bool:
            waiting.difference_update([event for event in waiting if ("/sick", event) in self._made.clients.accepted])
            return not waiting

        await self._made.clients.until(served, patience)
        self.lags.append(Lag(down=began - self._fell, waiting=count, lag=clock() - began))

    def was_served_soon(self) -> None:
        """Fail if at a recovery something waited for longer than the policy promises."""
        for one in self.lags:
            assert one.lag < one.down / 2 + one.waiting * self.takes / AT_A_TIME + SECONDS, one


@contextlib.asynccontextmanager
async def sick_in(made: Rig) -> AsyncIterator[Sick]:
    """Make the rig's clients `healthy` and `sick`. Its events are for both."""
    async with TcpProxy("127.0.0.1", made.clients.port) as way:
        sick = Sick(made, way)
        made.clients.judge = sick.judge
        made.publish_for(CLIENTS)
        made.site.config["delivery"]["timeout"] = f"{TIMEOUT}s"
        made.site.write()
        healthy = client("healthy", made.clients.url("healthy"))
        made.site.write_clients([healthy, client("sick", sick.url, max_concurrent=AT_A_TIME)])
        try:
            yield sick
        finally:
            print(*sick.lags, sep="\n")  # noqa: T201  as the account is


async def parked(made: Rig, *buckets: str) -> int:
    """How many deliveries are parked, in these buckets or in all; none if the broker ends the connection."""
    with contextlib.suppress(ConnectionError):
        async with broker(made.urls[0], made.prefix) as rabbit:
            return sum((await rabbit.depths(buckets or BUCKET_NAMES)).values())
    return 0


async def until_parked(made: Rig, least: int) -> None:
    """Wait until so many deliveries are parked."""
    await until(lambda: parked(made), lambda count: count >= least, PATIENCE)
