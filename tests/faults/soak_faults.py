"""Mixed faults at random moments, by a seed: four scripts side by side, of workers, broker, a client and the registry.

Each script goes through its faults in an order drawn anew each round, with a pause before each. So every kind gets its
share, and faults of different scripts overlap as chance will have it.
"""

import asyncio
import contextlib
import json
import random
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.faults.soak_traffic import Crowd, Mood, Registrations
from tests.rabbitmq_node import RabbitmqNode
from tests.system.site import Site
from tests.system.waiting import until
from tests.system.worker_process import WorkerProcess, worker

READY_WITHIN = 120.0  # seconds for a worker that starts while the broker is away
DRAINED_WITHIN = 60.0  # 20 s of grace, and what closing takes while the broker is frozen
_MANY_LINES = re.compile(r'"event": ?"(attempt|dead_letter)"')


def _is_kept(line: str) -> bool:
    return _MANY_LINES.search(line) is None


class Pair:
    """Two workers: `long` lives as long as the soak, `other` is killed and drained again and again."""

    def __init__(self, site: Site, command: Sequence[str] | None, complaints: list[str]) -> None:
        self.said: Counter[str] = Counter()  # warnings and errors that they have logged, by event
        self._site = site
        self._command = command
        self._complaints = complaints
        self._life = AsyncExitStack()
        self._lives = AsyncExitStack()
        self.long: WorkerProcess
        self.other: WorkerProcess

    async def __aenter__(self) -> Self:
        try:
            self.long = await self._lives.enter_async_context(self._worker())
            await self.start_other()
            await ready(self.long)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._life.aclose()
        await self._lives.aclose()

    def _worker(self) -> contextlib.AbstractAsyncContextManager[WorkerProcess]:
        return worker(self._site, ready=False, command=self._command, keep=_is_kept)

    async def start_other(self) -> None:
        """Return once it is ready."""
        self.other = await self._life.enter_async_context(self._worker())
        await ready(self.other)

    async def replace_other(self, number: signal.Signals) -> None:
        """End it by a signal, and start another."""
        if not self.other.running:
            self._complaints.append(f"a worker ended by itself, with {await self.other.ended()}")
        else:
            self.other.send(number)
            code = await self.other.ended(DRAINED_WITHIN)
            if code != (0 if number is signal.SIGTERM else -number):
                self._complaints.append(f"a worker ended by {number.name} with {code}")
        self._listen_to(self.other)
        await self._life.aclose()
        await self.start_other()

    async def stop(self) -> None:
        """Drain both workers."""
        for running in (self.long, self.other):
            code = await running.stop() if running.running else await running.ended()
            if code != 0:
                self._complaints.append(f"a worker ended with {code}")
            self._listen_to(running)

    def _listen_to(self, running: WorkerProcess) -> None:
        """Count its warnings. An error in its log is a complaint."""
        for line in running.lines:
            if not line.endswith("\n"):
                continue  # cut off by SIGKILL
            try:
                said = json.loads(line)
            except ValueError:
                said = {"level": "error", "event": line.strip()}
            if said.get("level") in ("warning", "error", "critical"):
                self.said[str(said.get("event"))] += 1
            if said.get("level") in ("error", "critical"):
                self._complaints.append(f"a worker said: {line.strip()[:2000]}")


async def ready(running: WorkerProcess) -> None:
    """Wait until it takes events."""
    await until(lambda: running.get("/readyz"), lambda answer: answer[0] == 200, READY_WITHIN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A fault that was made: which, when, and for how long, in seconds."""

    what: str
    at: float
    took: float


Fault = Callable[[random.Random], Awaitable[None]]


class Scripts:
    """See the module. `pace` stretches every pause and every fault that lasts: 1 in earnest, less in a short form."""

    def __init__(
        self,
        node: RabbitmqNode,
        workers: Pair,
        crowd: Crowd,
        registrations: Registrations,
        over: asyncio.Event,
        complaints: list[str],
        *,
        seed: int,
        pace: float,
    ) -> None:  # fmt: skip
        self.made: list[Made] = []
        self._node = node
        self._workers = workers
        self._crowd = crowd
        self._registrations = registrations
        self._over = over
        self._complaints = complaints
        self._seed = seed
        self._pace = pace

    async def run(self) -> None:
        """Until it is over, and every fault that was made is mended."""
        of_workers: dict[str, Fault] = {
            "a worker killed by SIGKILL and started again": lambda _: self._workers.replace_other(signal.SIGKILL),
            "a worker drained by SIGTERM and started again": lambda _: self._workers.replace_other(signal.SIGTERM),
            "a worker frozen": lambda chance: self._freeze(chance, self._workers.other),
            "the long-lived worker frozen": lambda chance: self._freeze(chance, self._workers.long),
        }
        of_the_broker: dict[str, Fault] = {
            "every broker connection closed by force": self._close_connections,
            "the broker killed by SIGKILL and started again": self._kill_broker,
            "the broker frozen": self._freeze_broker,
            "a memory alarm of the broker": self._alarm,
        }
        of_a_client: dict[str, Fault] = {
            f"a client {mood}": lambda chance, mood=mood: self._trouble(chance, mood)  # type: ignore[misc]
            for mood in (Mood.HANGS, Mood.REFUSES, Mood.UNAVAILABLE)
        }
        of_the_registry: dict[str, Fault] = {"a changed registry, and SIGHUP": self._reload}
        async with asyncio.TaskGroup() as scripts:
            scripts.create_task(self._play("workers", of_workers, (5, 20)))
            scripts.create_task(self._play("broker", of_the_broker, (10, 30)))
            scripts.create_task(self._play("client", of_a_client, (15, 40)))
            scripts.create_task(self._play("registry", of_the_registry, (20, 60)))

    async def _play(self, name: str, faults: dict[str, Fault], pause: tuple[float, float]) -> None:
        chance = random.Random(f"{self._seed} {name}")
        loop = asyncio.get_running_loop()
        while not self._over.is_set():
            for what in chance.sample(list(faults), len(faults)):
                await self._rest(chance.uniform(*pause))
                if self._over.is_set():
                    return
                began = loop.time()
                try:
                    await faults[what](chance)
                except Exception as error:  # noqa: BLE001  around one fault: the rest of a long run is worth having
                    self._complaints.append(f"{what}: {type(error).__name__}: {str(error)[:2000]}")
                self.made.append(Made(what=what, at=began, took=loop.time() - began))

    async def _rest(self, seconds: float) -> None:
        """Wait for so long, or until the soak is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds * self._pace):
                await self._over.wait()

    async def _freeze(self, chance: random.Random, frozen: WorkerProcess) -> None:
        frozen.send(signal.SIGSTOP)
        try:
            await self._rest(chance.uniform(2, 8))
        finally:
            frozen.send(signal.SIGCONT)

    async def _close_connections(self, _chance: random.Random) -> None:
        await self._ctl("close_all_connections", "soak")

    async def _kill_broker(self, chance: random.Random) -> None:
        await asyncio.to_thread(self._node.kill)
        await self._rest(chance.uniform(0, 5))
        await asyncio.to_thread(self._node.start)

    async def _freeze_broker(self, chance: random.Random) -> None:
        self._node.freeze()
        try:
            await self._rest(chance.uniform(3, 8))
        finally:
            self._node.thaw()

    async def _alarm(self, chance: random.Random) -> None:
        try:
            await self._ctl("set_vm_memory_high_watermark", "0")
            await self._rest(chance.uniform(5, 12))
        finally:
            await self._ctl("set_vm_memory_high_watermark", "0.4")

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

    async def _trouble(self, chance: random.Random, mood: Mood) -> None:
        await self._crowd.be(mood)
        try:
            await self._rest(chance.uniform(5, 20))
        finally:
            await self._crowd.be(Mood.WELL)

    async def _reload(self, _chance: random.Random) -> None:
        self._registrations.write()
        for running in (self._workers.long, self._workers.other):
            if running.running and running.said("listening"):  # one that only starts would die of it
                running.send(signal.SIGHUP)
