"""One case of one peer: its own publisher fills its queue, and its worker drains it on the one core.

A peer runs as its users have it, by its own command, in an environment of its own; all it is told stands in a file
that PEER_SETTINGS names.
"""

import asyncio
import contextlib
import json
import os
import secrets
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import aio_pika
import aiohttp
from joserfc.jwk import import_key

from notifier.adapters.signers.key_files import generate_key
from notifier.domain.client import Algorithm
from tests.benchmarks.nginx import Nginx
from tests.benchmarks.processes import TICKS
from tests.benchmarks.rig import Cores
from tests.benchmarks.throughput_run import CLIENTS, Case, Drain, watched
from tests.rabbitmq_node import _guard
from tests.system.site import ISSUER
from tests.system.worker_process import ROOT
from tests.verifier import verify

ENVIRONMENT = ROOT / ".venv-peers"  # made by `make bench-peers`
FOLDER = Path(__file__).parent / "peers"
# Deliveries in progress of a peer, at most (10 events of 10 clients, say): more is no faster on loopback.
AT_ONCE = 64
LEAST_EVENTS_AT_ONCE = 16  # so that there is always one whose deliveries are not all waiting for their answers
LIBRARIES = ("celery", "dramatiq", "pika", "faststream", "taskiq", "taskiq-aio-pika", "aio-pika", "aiohttp",
             "pyjwt", "cryptography", "uvloop")  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A program beside ours. In its commands `{at_once}` is the number of events at once.

    Threads are 8, which is Dramatiq's own default; more did not look faster (README.md).
    `publish` empty: it has no queue. `framework`: it is a task framework, not a provider's own sending.
    """

    name: str
    program: str
    work: Sequence[str]
    publish: Sequence[str] = ()
    framework: bool = True

    def found(self, environment: Path) -> bool:
        """True if it is installed."""
        modules = environment / "modules" / "node_modules" / self.name
        return (environment / "bin" / self.program).exists() and (self.framework or modules.is_dir())


PEERS = (
    Peer(
        name="celery", program="celery", publish=("celery_worker.py",),
        work=("-A", "celery_worker", "worker", "-P", "threads", "-c", "8", "-l", "WARNING",
              "--without-gossip", "--without-mingle", "--without-heartbeat"),
    ),
    Peer(
        name="dramatiq", program="dramatiq", publish=("dramatiq_worker.py",),
        work=("dramatiq_worker", "--processes", "1", "--threads", "8", "--skip-logging"),
    ),
    Peer(
        name="faststream", program="python", publish=("faststream_worker.py", "publish"),
        work=("faststream_worker.py",),
    ),
    Peer(
        name="taskiq", program="taskiq", publish=("taskiq_worker.py",),
        work=("worker", "taskiq_worker:broker", "--workers", "1", "--max-async-tasks", "{at_once}",
              "--ack-type", "when_executed", "--log-level", "WARNING"),
    ),
    Peer(name="oidc-provider", program="node", work=("oidc_provider.mjs",), framework=False),
)  # fmt: skip


def events_at_once(fan_out: int) -> int:
    """How many events a peer handles at a time."""
    return max(LEAST_EVENTS_AT_ONCE, AT_ONCE // fan_out)


def session_of(stat: str) -> tuple[int, int]:
    """Of `/proc/PID/stat`: the process's session, and the clock ticks it and its dead children have used."""
    fields = stat.rpartition(")")[2].split()
    return int(fields[3]), sum(map(int, fields[11:15]))


def versions(environment: Path) -> dict[str, str]:
    """The versions of the peers, for the JSON."""
    folders = [str(folder) for folder in environment.glob("lib/python*/site-packages")]
    found = {each.name.lower(): each.version for each in distributions(path=folders)}
    of_all = {name: found[name] for name in LIBRARIES if name in found}
    file = environment / "modules" / "node_modules" / "oidc-provider" / "package.json"
    if file.exists():
        of_all["oidc-provider"] = json.loads(file.read_text())["version"]
        node = subprocess.run([environment / "bin" / "node", "--version"], capture_output=True, text=True, check=False)
        of_all["node"] = node.stdout.strip()
    return of_all


class PeerBench:
    """One case. `verified` counts, by peer, the tokens of the sample that another library has found valid."""

    def __init__(
        self, url: str, receiver: Nginx, case: Case, cores: Cores, *, deliveries: int, environment: Path
    ) -> None:
        self._url = url
        self._receiver = receiver
        self._case = case
        self._cores = cores
        self._events = max(1, deliveries // case.fan_out)
        self._environment = environment
        self.verified: dict[str, int] = {}

    async def drain(self, peer: Peer) -> Drain:
        """Let the peer drain a full queue. The first fifth does not count."""
        queue = f"bench-{secrets.token_hex(4)}"
        with tempfile.TemporaryDirectory(prefix="notifier-bench-") as name:
            folder = Path(name)
            public = self._write(folder, queue)
            try:
                if peer.publish:
                    await self._publish(peer, folder)
                drained = await self._measured(peer, folder)
            finally:
                await self._remove(queue)
        for client, token, at in self._receiver.tokens:
            verify(token, {"keys": [public]}, iss=ISSUER, aud=client, now=at)
            self.verified[peer.name] = self.verified.get(peer.name, 0) + 1
        self._receiver.tokens.clear()
        return drained

    def _write(self, folder: Path, queue: str) -> Mapping[str, object]:
        """Write all that a peer needs. Returns the public half of the key."""
        case, pem = self._case, generate_key(Algorithm(self._case.alg))
        key = import_key(pem.decode(), "RSA" if case.alg == "RS256" else "EC")
        named = {"kid": key.thumbprint(), "use": "sig", "alg": case.alg}
        (folder / "key.pem").write_bytes(pem)
        settings: dict[str, Any] = {
            "amqp": self._url,
            "queue": queue,
            "events": str(folder / "events"),
            "events_at_once": events_at_once(case.fan_out),
            "iss": ISSUER,
            "alg": case.alg,
            "kid": named["kid"],
            "key": str(folder / "key.pem"),
            "jwk": {**key.as_dict(private=True), **named},
            "clients": {f"c{number}": self._receiver.url(f"c{number}", tls=False) for number in range(CLIENTS)},
        }
        (folder / "settings.json").write_text(json.dumps(settings))
        (folder / "events").write_text("".join(f"{json.dumps(event)}\n" for event in self._case.events(self._events)))
        return {**key.as_dict(private=False), **named}

    async def _publish(self, peer: Peer, folder: Path) -> None:
        with (folder / "publisher.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                self._environment / "bin" / "python", *peer.publish, cwd=FOLDER, env=self._variables(folder),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
            if await process.wait():
                raise RuntimeError(f"{peer.name} has not published: {(folder / 'publisher.log').read_text()[-4000:]}")

    async def _measured(self, peer: Peer, folder: Path) -> Drain:
        async with aiohttp.ClientSession() as session:
            before = await self._receiver.count(session)

            async def count() -> int:
                return await self._receiver.count(session) - before

            with self._working(peer, folder) as process:

                def cpu() -> float:
                    if process.poll() is not None:
                        raise RuntimeError(f"{peer.name} has ended: {(folder / 'worker.log').read_text()[-4000:]}")
                    return _cpu_of_session(process.pid)

                return await watched(count, cpu, self._events * self._case.fan_out)

    @contextlib.contextmanager
    def _working(self, peer: Peer, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
        """Run its worker on the core; at the end, kill it with all its children."""
        program = self._environment / "bin" / peer.program
        at_once = events_at_once(self._case.fan_out)
        core = ",".join(map(str, self._cores.workers))
        with (folder / "worker.log").open("wb") as log:
            process = subprocess.Popen(
                ["taskset", "-c", core, program, *(word.format(at_once=at_once) for word in peer.work)],
                cwd=FOLDER, env=self._variables(folder),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        guard = _guard(process.pid)
        try:
            yield process
        finally:
            guard.communicate()  # it ends the whole group, once its stdin is at an end
            process.wait()

    def _variables(self, folder: Path) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        own = {
            "PEER_SETTINGS": str(folder / "settings.json"),
            "PEER_MODULES": str(self._environment / "modules"),
            "PYTHONPATH": str(FOLDER),
            "PYTHONDONTWRITEBYTECODE": "1",
            "dramatiq_queue_prefetch": str(events_at_once(self._case.fan_out)),
        }
        return kept | own

    async def _remove(self, queue: str) -> None:
        """Delete what the frameworks have declared, if it is there."""
        async with await aio_pika.connect(self._url) as connection:
            channel = await connection.channel()
            for name in (queue, f"{queue}.DQ", f"{queue}.XQ", f"{queue}.dead"):
                await channel.queue_delete(name)
            await channel.exchange_delete(queue)


def _cpu_of_session(leader: int) -> float:
    """Processor seconds of all processes of this session."""
    ticks = 0
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            session, used = session_of(file.read_text())
            ticks += used if session == leader else 0
    return ticks / TICKS
