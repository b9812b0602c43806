"""The processes of a benchmark: the receivers, and the workers under test, each pinned to a core.

Each is a child that ends with us, even if we are killed.
"""

import asyncio
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.quota import Share
from benchmarks.receivers import Behaviour
from tests.support.rabbitmq_node import _guard, free_ports
from tests.system.site import Site
from tests.system.waiting import PATIENCE, until
from tests.system.worker_process import ROOT, console_script

TICKS = os.sysconf("SC_CLK_TCK")
LOOK_EVERY = 0.1  # seconds between two looks at how much has arrived

# ── receivers ───────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request, as the receivers' process reports it."""

    event: int
    client: int
    at: float
    answered: bool


class Receivers:
    """The receivers' process. Made by `receivers`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._turn = asyncio.Lock()
        self.ports: list[int] = []

    async def open(self, clients: int) -> None:
        """Open so many healthy clients. Sets `ports`."""
        self.ports = await self._ask({"do": "open", "clients": clients})

    async def play(self, clients: Iterable[int], behaviour: Behaviour) -> None:
        """Let these clients behave so from now on."""
        wanted = {
            "clients": list(clients),
            "kind": behaviour.kind,
            "seconds": behaviour.seconds,
        }
        await self._ask({"do": "play", **wanted})

    async def counts(self) -> list[int]:
        """How many requests each client has got."""
        return await self._ask({"do": "count"})

    async def arrivals(self) -> list[Arrival]:
        """Every request that came so far."""
        with tempfile.NamedTemporaryFile("r") as file:
            await self._ask({"do": "write", "file": file.name})
            rows = (line.split() for line in file)
            return [Arrival(int(row[0]), int(row[1]), float(row[2]), row[3] == "1") for row in rows]

    async def forget(self) -> None:
        """Make all clients healthy, and forget their requests."""
        await self.play(range(len(self.ports)), Behaviour())
        await self._ask({"do": "forget"})

    async def until_came(self, wanted: int, clients: Collection[int], patience: float) -> bool:
        """Wait for so many requests to these clients. False if `patience` (seconds) is over before."""
        give_up = time.monotonic() + patience
        while time.monotonic() < give_up:
            counts = await self.counts()
            if sum(counts[number] for number in clients) >= wanted:
                return True
            await asyncio.sleep(LOOK_EVERY)
        return False

    async def _ask(self, question: Mapping[str, object]) -> list[int]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        async with self._turn:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            answer = await self._process.stdout.readline()
        if not answer:
            raise RuntimeError("the receivers' process has ended")
        return list(json.loads(answer) or ())


@contextlib.asynccontextmanager
async def receivers() -> AsyncIterator[Receivers]:
    """The receivers' process, on the cores that this process has. It ends when its stdin does."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.receivers", cwd=ROOT, limit=1024 * 1024,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield Receivers(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


# ── workers ─────────────────────────────────────────────────────────────────────────────────────────────────────


class BenchWorker:
    """One worker process. Its log goes to a file of its site's folder, so that nobody's core reads it."""

    def __init__(self, process: subprocess.Popen[bytes], ops: str, log: Path) -> None:
        self._process = process
        self._ops = ops
        self._log = log

    def cpu(self) -> float:
        """Seconds of processor time that all its threads have used."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def schedule(self) -> tuple[float, float]:
        """Seconds that its first thread, the event loop's, ran and waited for a core or for its quota."""
        ran, waited, _ = Path(f"/proc/{self._process.pid}/schedstat").read_text().split()
        return int(ran) / 1e9, int(waited) / 1e9

    def memory(self) -> float:
        """Its memory in MiB."""
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 2**20

    def peak(self) -> float:
        """The most memory that it had, in MiB."""
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return self._log.read_text()

    @property
    def ops(self) -> str:
        """The base URL of `/metrics` and the probes."""
        return self._ops

    async def ready(self) -> bool:
        """Ask `/readyz`. Fails if the process has ended."""
        if self._process.poll() is not None:
            raise RuntimeError(
                f"the worker has ended with exit code {self._process.returncode}: {self._log.read_text()[-4000:]}"
            )
        try:
            async with aiohttp.ClientSession() as session, session.get(f"{self._ops}/readyz") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False

    async def metrics(self) -> dict[str, float]:
        """Each series of ours, summed over `iss` and `client_id`: `name`, or `name{value of its other label}`."""
        async with aiohttp.ClientSession() as session, session.get(f"{self._ops}/metrics") as response:
            text = await response.text()
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                others = ",".join(v for k, v in sorted(sample.labels.items()) if k not in ("iss", "client_id"))
                key = sample.name.removeprefix("notifier_") + (f"{{{others}}}" if others else "")
                found[key] = found.get(key, 0.0) + sample.value
        return found


@contextlib.asynccontextmanager
async def bench_worker(
    site: Site,
    cores: Collection[int] = (),
    *,
    patience: float = PATIENCE,
    group: Share | None = None,
) -> AsyncIterator[BenchWorker]:
    """Run a worker that consumes, pinned to these cores if there are any; kill it at the end.

    `group`: what share of a core it gets.
    """
    [port] = free_ports(1)
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    environment |= {"NOTIFIER_OPS__LISTEN": f"127.0.0.1:{port}", "PYTHONPATH": str(ROOT)}
    file = site.folder / f"worker-{port}.log"
    with file.open("wb") as log:
        process = subprocess.Popen(  # noqa: ASYNC220  it forks once, before anything is measured
            [*console_script(), "run", "-c", str(site.file)], cwd=site.folder, env=environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True,
        )  # fmt: skip
    guard = _guard(process.pid)
    try:
        if cores:
            os.sched_setaffinity(process.pid, cores)  # before it has any thread but the first
        if group is not None:
            group.take(process.pid)
        worker = BenchWorker(process, f"http://127.0.0.1:{port}", file)
        await until(worker.ready, bool, patience)
        yield worker
    finally:
        process.kill()
        process.wait()
        guard.kill()
        guard.communicate()
