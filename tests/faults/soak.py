"""A long life under mixed faults: nothing is lost, nothing is wrong, and the worker that is never killed does not grow.

    python -m tests.faults.soak --minutes 30 [--seed 1] [--json FILE] [--document]

Two workers on a private RabbitMQ under a steady load; Ctrl-C ends it early, with its account. Four scripts side by
side make faults by a seed: of workers, broker, a client and the registry. Each goes through its faults in an order
drawn anew each round, with a pause before each. So faults of every kind occur, and those of different scripts overlap.
"""

import argparse
import asyncio
import datetime as dt
import json
import logging
import random
import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from yarl import URL

from tests.faults.parking_rig import Down, Sick, sick_in
from tests.faults.rig import CLIENTS, Rig, answers, load, rig
from tests.faults.soak_figures import BOUNDS, Figures, course, look
from tests.support.rabbitmq_node import RabbitmqNode, rabbitmq_node
from tests.system.clients import Hit
from tests.system.publisher import Publisher
from tests.system.site import client
from tests.system.worker_process import WorkerProcess, worker
from tools.soak_section import write_section

FIRST_OF_BULK = 10_000_000
NEXT = 300.0  # seconds for the next delivery: a delay queue whose target was missing goes on after 178 s
READY, DRAINED = 120.0, 60.0  # seconds
LASTS = (2, 10)  # seconds
SAMPLES = 150
ALARM = "set_vm_memory_high_watermark"
KILLED, DRAINED_AGAIN = (f"a worker {how} and started again" for how in ("killed by SIGKILL", "drained by SIGTERM"))
CLOSED, RELOADED = "every broker connection closed by force", "a changed registry"
BROKER_KILLED, BROKER_FROZEN = "the broker killed by SIGKILL and started again", "the broker frozen"
OUT_OF_MEMORY = "a memory alarm of the broker"
FROZEN, LONG_FROZEN = "a worker frozen", "the long-lived worker frozen"
DOWN: Mapping[str, Down] = {f"a client {down}": down for down in Down}
SCRIPTS: Mapping[tuple[float, float], Sequence[str]] = {
    (5, 20): (KILLED, DRAINED_AGAIN, FROZEN, LONG_FROZEN),
    (10, 30): (CLOSED, BROKER_KILLED, BROKER_FROZEN, OUT_OF_MEMORY),
    (15, 40): (*DOWN,),
    (20, 60): (RELOADED,),
}
"""By the seconds between two faults."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """So many `seconds` of faults. `pace` stretches every pause and every fault that lasts: 1 in earnest."""

    seconds: float
    seed: int = 1
    pace: float = 1.0
    rate: float = 40.0


class Soak:
    """One run. `run` once; `over` ends its faults."""

    def __init__(self, plan: Plan, node: RabbitmqNode) -> None:
        self.over = asyncio.Event()
        self._plan, self._node = plan, node
        self._made: Counter[str] = Counter()
        self._complaints: list[str] = []
        self._samples: list[Mapping[str, float]] = []
        self._rig: Rig
        self._sick: Sick
        self._life: AsyncExitStack
        self._long: WorkerProcess
        self._other: WorkerProcess

    async def run(self, folder: Path, prefix: str) -> Figures:
        """Make load and faults as long as planned, wait until all is settled, and cast the account."""
        began = dt.datetime.now(dt.UTC)
        async with rig(folder, self._node.url, prefix) as self._rig, sick_in(self._rig) as self._sick:
            self._install()
            async with AsyncExitStack() as self._life:
                self._long = await self._life.enter_async_context(worker(self._rig.site, keep=_is_kept))
                await self._start_other()
                asyncio.get_running_loop().call_later(self._plan.seconds, self.over.set)
                await self._under_load()
                taken = dt.datetime.now(dt.UTC) - began
                with suppress(AssertionError):  # the account lists missing deliveries
                    await self._rig.until_settled(NEXT)
                for running in (self._long, self._other):
                    await self._end(running, signal.SIGTERM)
            account = await self._rig.account(cause="redelivered after a fault")
        return Figures(
            began=f"{began:%Y-%m-%d %H:%M} UTC",
            broker=self._node.version,
            minutes=taken.total_seconds() / 60,
            seed=self._plan.seed,
            account=account,
            faults=dict(sorted(self._made.items())),
            courses=[
                course(what, [each[what] for each in self._samples]) for what in BOUNDS if len(self._samples) >= 10
            ],
            complaints=self._complaints,
        )

    def _install(self) -> None:
        """Use default settings but those that one machine needs. Every event is also for the client that falls sick."""
        made, others = self._rig, answers(12)  # a client that fails a third of all is rightly slowed down

        async def judge(hit: Hit) -> int:
            # It came just now, so it is the last; kept whole, those of half an hour would take a gigabyte.
            made.clients.hits[-1] = replace(hit, token="", claims={"sid": hit.who}, header={})
            return await (self._sick.judge(hit) if hit.path == "/sick" else others(hit))

        made.clients.judge = judge
        made.publish_for((*CLIENTS, "sick"))
        made.site.config |= {"delivery": {}, "log": {"level": "info", "format": "json"}}
        made.site.write()
        self._register()

    def _register(self, query: str = "") -> None:
        urls = {name: self._rig.clients.url(name) + query for name in CLIENTS} | {"sick": self._sick.url}
        self._rig.site.write_clients([client(name, url) for name, url in urls.items()])

    async def _under_load(self) -> None:
        made = self._rig
        bulk = Publisher(made.urls, made.prefix, (*CLIENTS, "sick"), exchange="bulk")
        bulk.confirmed, bulk.resent = made.publisher.confirmed, made.publisher.resent
        async with (
            load(made.publisher, 0.9 * self._plan.rate),
            load(bulk, 0.1 * self._plan.rate, first=FIRST_OF_BULK),
            asyncio.TaskGroup() as tasks,
        ):
            for pause, faults in SCRIPTS.items():
                tasks.create_task(self._play(pause, faults))
            tasks.create_task(self._look())
        await bulk.close()

    async def _look(self) -> None:
        ports = self._rig.clients.port, URL(self._sick.url).port or 0
        while not self.over.is_set():
            self._samples.append(look(self._long.pid, ports))
            await self._rest(self._plan.seconds / SAMPLES)

    async def _rest(self, seconds: float) -> None:
        """Wait for so long, or until the soak is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.over.wait()

    # ── the faults ──

    async def _play(self, pause: tuple[float, float], faults: Sequence[str]) -> None:
        chance, pace = random.Random(f"{self._plan.seed} {faults}"), self._plan.pace
        while True:
            for what in chance.sample(faults, len(faults)):
                await self._rest(pace * chance.uniform(*pause))
                if self.over.is_set():
                    return
                try:
                    await self._make(what, pace * chance.uniform(*LASTS))
                except Exception as error:  # noqa: BLE001  around one fault: the rest of a long run is worth having
                    self._complaints.append(f"{what}: {type(error).__name__}: {str(error)[:2000]}")
                self._made[what] += 1

    async def _make(self, what: str, seconds: float) -> None:
        """Make one fault, and end it after so many seconds, or at the end of the soak."""
        if what in (KILLED, DRAINED_AGAIN):
            await self._end(self._other, signal.SIGKILL if what == KILLED else signal.SIGTERM)
            await self._start_other()
        elif what == CLOSED:
            await self._ctl("close_all_connections", "soak")
        elif what == RELOADED:
            self._register(f"?edition={self._made[what]}")
        else:
            async with AsyncExitStack() as mended:
                await self._begin(what, mended)
                await self._rest(seconds)

    async def _begin(self, what: str, mended: AsyncExitStack) -> None:
        if what == BROKER_KILLED:
            await asyncio.to_thread(self._node.kill)
            mended.push_async_callback(asyncio.to_thread, self._node.start)
        elif what == BROKER_FROZEN:
            self._node.freeze()
            mended.callback(self._node.thaw)
        elif what == OUT_OF_MEMORY:
            mended.push_async_callback(self._ctl, ALARM, "0.4")
            await self._ctl(ALARM, "0")
        elif what in DOWN:
            self._sick.fall(DOWN[what])
            mended.push_async_callback(self._sick.recover)
        else:
            frozen = self._long if what == LONG_FROZEN else self._other
            frozen.send(signal.SIGSTOP)
            mended.callback(frozen.send, signal.SIGCONT)

    async def _ctl(self, *arguments: str) -> None:
        """On a busy machine rabbitmqctl may give up; an alarm that stayed would end the soak."""
        for left in reversed(range(5)):
            try:
                await asyncio.to_thread(self._node.ctl, *arguments)
            except (RuntimeError, subprocess.TimeoutExpired):
                if not left:
                    raise
            else:
                return

    async def _start_other(self) -> None:
        """Start the worker, also while the broker is down."""
        self._other = await self._life.enter_async_context(worker(self._rig.site, ready=False, keep=_is_kept))
        await self._other.until_ready(patience=READY)

    async def _end(self, running: WorkerProcess, number: signal.Signals) -> None:
        """An error in its log is a complaint, and so is another end than this."""
        if not running.running:
            self._complaints.append("a worker ended by itself")
        running.send(number)
        code = await running.ended(DRAINED)
        if code != (0 if number is signal.SIGTERM else -number):
            self._complaints.append(f"a worker ended by {number.name} with {code}")
        self._complaints += [f"a worker said: {line[:2000]}" for line in running.lines if _is_error(line)]


def _is_kept(line: str) -> bool:
    return re.search(r'"event": ?"(attempt|dead_letter)"', line) is None


def _is_error(line: str) -> bool:
    try:
        return json.loads(line)["level"] in ("error", "critical")
    except ValueError:
        return line.endswith("\n")  # or cut off by SIGKILL


async def _run(plan: Plan, node: RabbitmqNode, folder: Path) -> Figures:
    soak = Soak(plan, node)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, soak.over.set)
    return await soak.run(folder, "soak")


def main() -> int:
    """Run the command line. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    parser.add_argument("--document", action="store_true", help="write the figures into docs/evidence/faults.md")
    asked = parser.parse_args()
    for name in ("aio_pika", "aiormq"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # our publishers lose their connections all the time
    with rabbitmq_node() as node, tempfile.TemporaryDirectory(prefix="notifier-soak-") as folder:
        figures = asyncio.run(_run(Plan(seconds=asked.minutes * 60, seed=asked.seed), node, Path(folder)))
    if asked.json is not None:
        asked.json.write_text(str(figures))
    sys.stdout.write(f"{figures}\n")
    if asked.document:
        write_section(figures)
    return 0 if figures.holds else 1


if __name__ == "__main__":
    sys.exit(main())
