"""Measures how long a worker takes to start with many clients, and how a reload of them holds up its event loop."""

import json
import os
import signal
import tempfile
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from benchmarks.lag import Lag, Questions, questions
from benchmarks.processes import bench_worker
from tests.system.site import Site
from tests.system.waiting import until

PATIENCE = 120.0
QUIET = 100  # answers before the reload, and after it, to show its effect


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Seconds until `/readyz` was good, the memory then (MiB), and one reload: its seconds, and the lag in it."""

    clients: int
    format: str
    seconds: float
    memory: float
    reload_seconds: float
    reload_memory: float
    before: Lag
    during: Lag

    @property
    def complete(self) -> bool:
        """True if the loop was watched during the reload."""
        return self.during.asked > 0


def write_registry(file: Path, clients: int, kind: str, *, generation: int = 0) -> None:
    """Write a clients file as an operator would have it. `generation` is part of each URI."""
    rows = (_row(number, generation) for number in range(clients))
    if kind == "json":
        file.write_text(json.dumps(list(rows)))
    else:
        file.write_text("".join(_yaml(row) for row in rows) or "[]")


def _row(number: int, generation: int) -> dict[str, object]:
    return {
        "client_id": f"client-{number}",
        "issuer": "https://id.example.com",
        "backchannel_logout_uri": f"https://client-{number}.example.com/backchannel-logout?tenant={generation}",
        "backchannel_logout_session_required": True,
        "id_token_signed_response_alg": "ES256",
        "notifier": {"max_concurrent": 8},
    }


def _yaml(row: dict[str, object]) -> str:
    lines = [f"{key}: {value if isinstance(value, str) else json.dumps(value)}" for key, value in row.items()]
    return "- " + "\n  ".join(lines) + "\n"


async def start(clients: int, kind: str, cores: Collection[int]) -> Start:
    """Start a worker on an empty embedded queue, let it read its clients again, and stop it."""
    with tempfile.TemporaryDirectory(prefix="notifier-bench-") as name:
        folder = Path(name)
        site = Site(folder, "sqlite:queue.db")
        del site.config["api"]
        file, new = folder / f"clients.{kind}", folder / "new"
        write_registry(file, clients, kind)
        write_registry(new, clients, kind, generation=1)
        site.config["registry"]["file"] = file.name
        site.config["log"] = {"level": "info", "format": "json"}
        site.write()
        began = time.monotonic()
        async with bench_worker(site, cores, patience=PATIENCE) as worker:
            seconds, memory = time.monotonic() - began, worker.memory()
            with questions(worker.ops) as asked:
                await until(lambda: _answers(asked, since=0.0), bool, PATIENCE)
                new.replace(file)
                reload = time.monotonic()
                os.kill(worker.pid, signal.SIGHUP)
                await until(lambda: _said(worker.log), bool, PATIENCE)
                done = time.monotonic()
                await until(lambda: _answers(asked, since=done), bool, PATIENCE)
            return Start(
                clients=clients,
                format=kind,
                seconds=seconds,
                memory=memory,
                reload_seconds=done - reload,
                reload_memory=worker.peak(),
                before=asked.lag(until=reload),
                during=asked.lag(since=reload),
            )


async def _answers(asked: Questions, since: float) -> bool:
    return sum(at >= since for at, _ in list(asked.times)) >= QUIET


async def _said(log: str) -> bool:
    return '"event":"reloaded"' in log.replace(" ", "")
