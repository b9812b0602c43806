"""A long life under mixed faults: nothing is lost, nothing is wrong, and the worker that is never killed does not grow.

    python -m tests.faults.soak --minutes 30 [--seed 1] [--json FILE] [--document]

Two workers on a private RabbitMQ, with default settings, under a steady load; Ctrl-C ends it early, with its account.
"""

import argparse
import asyncio
import datetime as dt
import logging
import os
import secrets
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.faults import story
from tests.faults.rig import ANSWER
from tests.faults.soak_faults import Pair, Scripts, ready
from tests.faults.soak_figures import Figures, Sample, courses, cpu_seconds, look
from tests.faults.soak_traffic import Crowd, IdentityServer, Registrations, to_die
from tests.rabbitmq_node import RabbitmqNode, rabbitmq_node
from tests.system import ledger
from tests.system.broker import QUEUES, Broker, broker
from tests.system.site import Site
from tools.soak_section import write_section

BULK_SHARE = 0.1
FIRST_OF_BULK = 10_000_000
PATIENCE = 3600.0  # seconds for the last delivery: a client may rest for a minute, and is served at its pace
CAUSE = "redelivered after a fault"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is asked for. `seconds` of faults; `rate` in events a second; `answer` in seconds that a client takes.

    The rest is for short forms and broken builds.

    `quiet`: for how long nothing must move before what is missing counts as lost. A delay queue whose target was away
    goes on after 178 s.
    """

    seconds: float
    seed: int = 1
    rate: float = 40.0
    answer: float = ANSWER
    pace: float = 1.0
    sample_every: float = 10.0
    tell_every: float = 30.0
    quiet: float = 200.0
    command: Sequence[str] | None = None


def site(folder: Path, url: str) -> Site:
    """An installation of default settings but for what a test on one machine needs."""
    made = Site(folder, url, f"soak-{secrets.token_hex(4)}")
    made.config["log"] = {"level": "info", "format": "json"}
    made.config["delivery"] = {}
    made.config["registry"] = {"file": "clients.yaml"}
    made.write()
    return made


class Soak:
    """One run. Made of the plan, a node of its own, and a folder; `run` once."""

    def __init__(self, plan: Plan, node: RabbitmqNode, folder: Path, say: Say) -> None:
        self.over = asyncio.Event()
        self._plan = plan
        self._node = node
        self._say = say
        self._complaints: list[str] = []
        self._site = site(folder, node.url)
        self._crowd = Crowd(self._site, self._complaints, plan.answer)
        self._registrations = Registrations(self._site, self._crowd)
        self._workers = Pair(self._site, plan.command, self._complaints)
        self._servers = [
            IdentityServer(
                node.url, self._site.prefix, lambda: self._registrations.guest, exchange=exchange, first=first
            )
            for exchange, first in (("events", 0), ("bulk", FIRST_OF_BULK))
        ]
        self._scripts = Scripts(
            node, self._workers, self._crowd, self._registrations, self.over, self._complaints,
            seed=plan.seed, pace=plan.pace,
        )  # fmt: skip
        self._samples: list[Sample] = []
        self._began = 0.0

    @property
    def _now(self) -> float:
        return asyncio.get_running_loop().time() - self._began

    async def run(self) -> Figures:
        """Make load and faults as long as planned, wait until all is settled, and cast the account."""
        began = dt.datetime.now(dt.UTC)
        async with self._crowd:
            self._registrations.write()
            async with self._workers:
                self._began = asyncio.get_running_loop().time()
                cpu = {"the long-lived worker": self._workers.long.pid, "clients and publishers": os.getpid()}
                before = {who: cpu_seconds(pid) for who, pid in cpu.items()}
                await self._under_load()
                taken = self._now
                shares = {who: (cpu_seconds(pid) - before[who]) / taken for who, pid in cpu.items() if _lives(pid)}
                await self._until_settled()
                await self._workers.stop()
            for server in self._servers:
                await server.close()
            account = await self._account()
            if not account.holds:
                confirmed, resent = self._confirmed(), {event for server in self._servers for event in server.resent}
                logs = sorted(self._site.folder.glob("logs/worker-*.log"))
                told = story.story(account, confirmed, self._crowd, resent, logs)
                (self._site.folder / story.FILE).write_text(told)
        return Figures(
            began=f"{began:%Y-%m-%d %H:%M} UTC",
            broker=(await asyncio.to_thread(self._node.ctl, "version")).strip(),
            minutes=taken / 60,
            seed=self._plan.seed,
            rate=self._plan.rate,
            account=account,
            faults=dict(Counter(sorted(made.what for made in self._scripts.made))),
            made=[{**asdict(made), "at": made.at - self._began} for made in self._scripts.made],
            samples=self._samples,
            courses=courses(self._samples),
            said=dict(self._workers.said),
            complaints=self._complaints,
            cpu=shares,
        )

    async def _under_load(self) -> None:
        rates = (self._plan.rate * (1 - BULK_SHARE), self._plan.rate * BULK_SHARE)
        end = asyncio.get_running_loop().call_later(self._plan.seconds, self.over.set)
        async with asyncio.TaskGroup() as tasks:
            for server, rate in zip(self._servers, rates, strict=True):
                tasks.create_task(server.publish(server.numbers(self.over), rate=rate))
            tasks.create_task(self._scripts.run())
            tasks.create_task(self._repeat(self._plan.sample_every, self._sample))
            tasks.create_task(self._repeat(self._plan.tell_every, self._tell))
        end.cancel()

    async def _repeat(self, every: float, what: Callable[[], object]) -> None:
        due = every
        while not self.over.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, due - self._now)):
                    await self.over.wait()
                return
            due += every
            outcome = what()
            if asyncio.iscoroutine(outcome):
                await outcome

    async def _sample(self) -> None:
        """A frozen worker answers no scrape, but has its memory all the same."""
        long = self._workers.long
        unsettled = None
        with suppress(TimeoutError, OSError):
            async with asyncio.timeout(2):
                unsettled = await long.metric("queue_unsettled")
        if long.running:
            self._samples.append(look(long.pid, self._now, unsettled, (self._crowd.port, self._crowd.moody_port)))

    def _tell(self) -> None:
        minutes, seconds = divmod(int(self._now), 60)
        last = self._samples[-1] if self._samples else None
        worker = (
            f"{last.memory:.1f} MiB, {last.descriptors} descriptors, {last.connections} connections to clients, "
            f"{last.threads} threads"
            if last
            else "–"
        )
        self._say(
            f"{minutes:3}:{seconds:02} of {self._plan.seconds / 60:g} min: "
            f"{sum(len(server.confirmed) for server in self._servers):,} events, {len(self._crowd.accepted):,} told, "
            f"{len(self._scripts.made)} faults, {len(self._complaints)} wrong; {worker}"
        )

    # ── the end ──

    def _confirmed(self) -> dict[str, Sequence[str]]:
        return {event: named for server in self._servers for event, named in server.confirmed.items()}

    async def _until_settled(self) -> None:
        """Wait until every delivery is told or dead, or until nothing has moved for long."""
        confirmed = self._confirmed()
        alive = sum(map(len, confirmed.values())) - len(to_die(confirmed))
        self._say(f"no more faults; waiting for the last {alive - len(self._crowd.accepted):,} deliveries")
        await asyncio.gather(*(ready(running) for running in (self._workers.long, self._workers.other)))
        async with broker(self._node.url, self._site.prefix) as rabbit:
            before, moved = await self._position(rabbit), self._now
            end, tell_at = self._now + PATIENCE, self._now
            while self._now < end:
                await asyncio.sleep(1)
                position = await self._position(rabbit)
                if self._now >= tell_at:
                    tell_at += self._plan.tell_every
                    self._say(f"{alive - position[0]:,} not told, {position[1] or 'none'} wait, {position[2]:g} held")
                idle = position[1:] == ({}, 0)
                if idle and position == before and (position[0] >= alive or self._now - moved > self._plan.quiet):
                    return
                if position != before:
                    before, moved = position, self._now

    async def _position(self, rabbit: Broker) -> tuple[int, dict[str, int], float]:
        """How many were told, what waits in the queues, and what the workers hold."""
        held = [await running.metric("queue_unsettled") for running in (self._workers.long, self._workers.other)]
        depths = await rabbit.depths([name for name in QUEUES if name != "dead"])
        return len(self._crowd.accepted), depths, sum(held)

    async def _account(self) -> ledger.Account:
        confirmed = self._confirmed()
        return ledger.account(
            confirmed,
            self._crowd,
            await ledger.in_rabbitmq(self._node.url, self._site.prefix),
            to_die=to_die(confirmed),
            resent={event for server in self._servers for event in server.resent},
            cause=CAUSE,
        )


def _lives(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").exists()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def _run(plan: Plan, node: RabbitmqNode, folder: Path) -> Figures:
    soak = Soak(plan, node, folder, _say)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, soak.over.set)
    return await soak.run()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    parser.add_argument("--document", action="store_true", help="write the figures into docs/reliability.md")
    asked = parser.parse_args(arguments)
    for name in ("aio_pika", "aiormq"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # our publishers lose their connections all the time
    with rabbitmq_node() as node, tempfile.TemporaryDirectory(prefix="notifier-soak-") as folder:
        figures = asyncio.run(_run(Plan(seconds=asked.minutes * 60, seed=asked.seed), node, Path(folder)))
    if asked.json is not None:
        asked.json.write_text(figures.to_json())
    _say(str(figures))
    if asked.document:
        write_section(figures)
    return 0 if figures.holds else 1


if __name__ == "__main__":
    sys.exit(main())
