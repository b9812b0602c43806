"""The first deliveries after a start, to many clients over TLS: how many miss their deadline for want of a connection.

`python -m tests.benchmarks.warm_start [--clients 200] [--deliveries 1000] [--own-files | --own-bundles]`. All of them
wait in an embedded queue before the worker starts. With `--own-files` each client has files of its own (authorities,
our certificate and key: mutual TLS), so that each needs a TLS context of its own; with `--own-bundles` the authorities
are all of the system's too, which take twenty times as long to read.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import ssl
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.tls_clients import Seen
from tests.certificates import authority
from tests.system.site import ISSUER, Site, client
from tests.system.worker_process import ROOT, console_script, worker

PATIENCE = 60.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What one start came to. `attempts` by reason; `seconds` of every attempt; `drained` in seconds."""

    attempts: Counter[str]
    deferrals: Counter[str]
    seconds: list[float]
    drained: float
    seen: Seen

    def __str__(self) -> str:
        """A few lines for a person."""
        ordered = sorted(self.seconds)
        slow = sum(each > 1 for each in ordered)
        return (
            f"attempts {dict(self.attempts)}, deferrals {dict(self.deferrals)}\n"
            f"an attempt took p50 {statistics.median(ordered):.3f} s, p99 {ordered[int(len(ordered) * 0.99)]:.3f} s, "
            f"at most {ordered[-1]:.3f} s; {slow} over 1 s\n"
            f"all arrived within {self.drained:.2f} s of the first; {self.seen.handshakes} handshakes, "
            f"at most {self.seen.most} connections at a time, {self.seen.open} now"
        )


class Clients:
    """The clients' process."""

    def __init__(self, process: asyncio.subprocess.Process, ports: list[int]) -> None:
        self._process = process
        self.ports = ports

    async def seen(self) -> Seen:
        """What came so far."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"?\n")
        return Seen(**json.loads(await self._process.stdout.readline()))


@contextlib.asynccontextmanager
async def clients(pem: Path, ca: Path | None, count: int) -> AsyncIterator[Clients]:
    """So many; their process ends when its stdin does."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.benchmarks.tls_clients", str(pem), str(ca or "-"), str(count),
        cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1024 * 1024,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield Clients(process, json.loads(await process.stdout.readline()))
    finally:
        process.kill()
        await process.wait()


async def start(
    folder: Path, *, count: int, deliveries: int, own_files: bool = False, bundles: bool = False
) -> Figures:
    """One start; `folder` must be empty. `bundles` beside `own_files`: the system's authorities are in each."""
    (folder / "ca").mkdir()
    (folder / "site").mkdir()
    ca = authority(folder / "ca")
    site = Site(folder / "site", "sqlite:notifier.db")
    async with clients(ca.issue("localhost", "127.0.0.1"), ca.ca_file if own_files else None, count) as there:
        mine = ca.issue("notifier")
        bundle = _bundle(ca.ca_file) if bundles else ca.ca_file
        tls: list[dict[str, str]] = []
        for number in range(count):
            files = {"ca_file": str(ca.ca_file)}
            if own_files:
                cert = folder / "ca" / f"client-{number}.pem"
                files = {"ca_file": str(bundle), "cert_file": str(shutil.copy(mine, cert))}
            tls.append(files)
        names = [f"client-{number}" for number in range(count)]
        site.write_clients(
            [
                client(name, f"https://127.0.0.1:{port}/{name}", tls=files)
                for name, port, files in zip(names, there.ports, tls, strict=True)
            ]
        )
        await _publish(site, names, deliveries)
        async with worker(site) as running:
            begun = time.monotonic()
            async with asyncio.timeout(PATIENCE):
                while (seen := await there.seen()).requests < deliveries:  # noqa: ASYNC110  it tells nobody
                    await asyncio.sleep(0.02)
            drained = time.monotonic() - begun
            await running.until_metric(deliveries, "deliveries_settled_total", fate="delivered")
            attempts, deferrals = running.said("attempt"), running.said("deferral")
    return Figures(
        attempts=Counter(line["reason"] for line in attempts),
        deferrals=Counter(line["cause"] for line in deferrals),
        seconds=[line["seconds"] for line in attempts],
        drained=drained,
        seen=seen,
    )


def _bundle(ca_file: Path) -> Path:
    """The system's authorities and one more."""
    system = ssl.get_default_verify_paths().cafile
    bundle = ca_file.with_name("bundle.pem")
    bundle.write_text(ca_file.read_text() + (Path(system).read_text() if system else ""))
    return bundle


async def _publish(site: Site, names: list[str], deliveries: int) -> None:
    """Events of ten clients each, taken in turn, so that every client is met early and often."""
    events = [
        {
            "id": f"e{number}",
            "iss": ISSUER,
            "sub": "alice",
            "sid": f"s{number}",
            "clients": [names[(number * 10 + offset) % len(names)] for offset in range(10)],
        }
        for number in range(deliveries // 10)
    ]
    process = await asyncio.create_subprocess_exec(
        *console_script(), "publish", "-c", str(site.file), "-",
        cwd=site.folder, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    await process.communicate("\n".join(map(json.dumps, events)).encode())
    assert process.returncode == 0


def main() -> None:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--deliveries", type=int, default=1000)
    parser.add_argument("--own-files", action="store_true")
    parser.add_argument("--own-bundles", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = asyncio.run(
            start(
                Path(folder),
                count=given.clients,
                deliveries=given.deliveries,
                own_files=given.own_files or given.own_bundles,
                bundles=given.own_bundles,
            )
        )
    sys.stdout.write(f"{figures}\n")


if __name__ == "__main__":
    main()
