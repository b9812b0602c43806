"""One case of the throughput benchmark: fills a queue, lets one worker drain it, and runs the ceiling beside it."""

import asyncio
import itertools
import json
import math
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import aiohttp
from rich.console import Console

from benchmarks.processes import bench_worker
from benchmarks.rig import Cores, encoded, publish_unconfirmed
from notifier.model.client import Algorithm
from notifier.model.message import Lane
from notifier.queues.rabbitmq.administration import declare_topology, delete_topology
from notifier.queues.rabbitmq.options import RabbitOptions
from notifier.queues.sqlite import SqliteOptions, SqliteQueue
from notifier.tokens.key_files import generate_key
from tests.support.verifier import verify
from tests.system.broker import broker
from tests.system.site import ISSUER, Site, client
from tests.system.worker_process import ROOT

CLIENTS = 100
LOOK_EVERY = 0.02  # seconds between two looks at the count
LOOK_EVERY_METRICS = 0.5  # likewise, where the worker itself has to be asked, which costs it 5 to 10 ms
PATIENCE = 300.0
SLOWEST = 1_000  # deliveries a second: a drain of a million may take longer than that patience
WARM = 0.2  # of a drain: connections are made, caps grow
NOBODY = "http://127.0.0.1:9/"  # the discard port: refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is drained: by which queue, algorithm and number of clients an event. `failing`: nobody listens.

    `clients` are registered, of which the events name `named` (None: all), `series` of them have separate metrics
    (None: as is the default), and at least `backlog` events wait when the worker starts, of which only those of the
    drain are waited for.
    """

    queue: str
    alg: str
    fan_out: int
    tls: bool = False
    failing: bool = False
    clients: int = CLIENTS
    named: int | None = None
    series: int | None = None
    backlog: int = 0

    @property
    def name(self) -> str:
        """The name on the command line."""
        more = ("-tls" if self.tls else "") + ("-failing" if self.failing else "")
        return f"{self.queue}-{self.alg.lower()}-{self.fan_out}{more}"

    def events(self, count: int) -> Iterator[dict[str, object]]:
        """The events, whose clients are `c0`, `c1` and so on in turn."""
        named = self.named or self.clients
        return (
            {
                "id": f"e{number}",
                "iss": ISSUER,
                "sub": "alice",
                "sid": f"session-{number}",
                "clients": [f"c{(number * self.fan_out + each) % named}" for each in range(self.fan_out)],
            }
            for number in range(count)
        )


CASES = {
    f"{alg.lower()}-{fan_out}": Case(queue="rabbitmq", alg=alg, fan_out=fan_out)
    for alg in ("RS256", "ES256")
    for fan_out in (1, 10)
}
"""What is measured with a second worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """One drain: `rate` in deliveries a second, `cpu` in µs of the core each; how many came of how many.

    `memory` is the process's peak in MiB.
    """

    rate: float
    cpu: float
    came: int
    wanted: int
    memory: float = math.nan
    beyond: bool = False

    @property
    def complete(self) -> bool:
        """True if each came and none twice. `beyond`: more may come than are waited for."""
        return self.came >= self.wanted if self.beyond else self.came == self.wanted


async def watched(
    count: Callable[[], Awaitable[int]], cpu: Callable[[], float], wanted: int, every: float = LOOK_EVERY
) -> Drain:
    """Watch a drain until all has come: how many came, and how many processor seconds were used."""
    looks: list[tuple[float, int, float]] = []
    give_up = time.monotonic() + max(PATIENCE, wanted / SLOWEST)
    while time.monotonic() < give_up:
        came = await count()
        looks.append((time.monotonic(), came, cpu()))
        if came >= wanted:
            break
        await asyncio.sleep(every)
    await asyncio.sleep(0.2)  # one too many would come now
    came = await count()
    began, first, used = next((look for look in looks if look[1] >= WARM * wanted), looks[0])
    ended, last, in_all = looks[-1]
    done = last - first
    if done <= 0:  # too few to be measured: all had come by the first look
        return Drain(rate=math.nan, cpu=math.nan, came=came, wanted=wanted)
    return Drain(rate=done / (ended - began), cpu=1e6 * (in_all - used) / done, came=came, wanted=wanted)


Run = Callable[[], Awaitable[Drain]]


async def by_turns(name: str, both: tuple[Run, Run], rounds: int, progress: Console) -> list[tuple[Drain, Drain]]:
    """Run both programs once in each round."""
    pairs = []
    for number in range(1, rounds + 1):
        pair = await both[0](), await both[1]()
        told = " · ".join(f"{each.rate:,.0f}/s at {each.cpu:.0f} µs" for each in pair)
        progress.print(f"  round {number}, {name}: {told}")
        pairs.append(pair)
    return pairs


class Receiver(Protocol):
    """What plays the clients: nginx, or its stand-in. `tokens` is the sample: client, token, when it came."""

    tokens: list[tuple[str, str, float]]
    ca: Path

    def url(self, name: str, *, tls: bool) -> str:
        """The `backchannel_logout_uri` of a client."""

    async def count(self, session: aiohttp.ClientSession) -> int:
        """How many requests have come in all."""


class Bench:
    """One case. `verified` counts the tokens of the sample that another library has found valid."""

    def __init__(self, url: str, receiver: Receiver, case: Case, cores: Cores, *, deliveries: int) -> None:
        self._url = url
        self._receiver = receiver
        self._case = case
        self._cores = cores
        self._events = max(1, deliveries // case.fan_out)
        self.verified = 0

    async def ceiling(self) -> Drain:
        """Run the ceiling on the worker's core."""
        case, count = self._case, self._events * self._case.fan_out
        with tempfile.NamedTemporaryFile(suffix=".pem") as key:
            key.write(generate_key(Algorithm(case.alg)))
            key.flush()
            tls = ["--ca", str(self._receiver.ca)] if case.tls else []
            urls = [word for n in range(CLIENTS) for word in ("--url", self._receiver.url(f"c{n}", tls=case.tls))]
            process = await asyncio.create_subprocess_exec(
                "taskset", "-c", ",".join(map(str, self._cores.workers)),
                sys.executable, "-m", "benchmarks.ceiling", "--key", key.name, "--alg", case.alg,
                "--count", str(count), *urls, *tls, cwd=ROOT, stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            output, _ = await process.communicate()
        told = json.loads(output)
        self._receiver.tokens.clear()
        return Drain(rate=count / told["seconds"], cpu=1e6 * told["cpu"] / count, came=count, wanted=count)

    async def drain(self) -> Drain:
        """Let a worker drain a full queue. The first fifth does not count."""
        async with self.installed() as site:
            drained = await self._measured(site)
            if not self._case.failing:
                self._verify(site)
        return drained

    @asynccontextmanager
    async def installed(self) -> AsyncIterator[Site]:
        """Install everything but a worker, and fill the queue. At the end, remove all."""
        with tempfile.TemporaryDirectory(prefix="notifier-bench-") as folder:
            async with self._installed(Path(folder)) as site:
                yield site

    @asynccontextmanager
    async def _installed(self, folder: Path) -> AsyncIterator[Site]:
        case = self._case
        prefix = f"bench-{secrets.token_hex(4)}"
        rabbit = case.queue == "rabbitmq"
        site = Site(folder, self._url if rabbit else "sqlite:queue.db", prefix)
        site.config["delivery"] = {"retry": {"base": "1h"}}
        site.config["log"] = {"level": "info", "format": "json"}
        if case.series is not None:
            site.config["metrics"] = {"max_clients": case.series}
        del site.config["api"]
        key = site.folder / "rsa.pem"
        key.write_bytes(generate_key(Algorithm.RS256))
        site.config["issuers"][ISSUER]["keys"].append({"file": key.name})
        site.write()
        site.write_clients([self._client(number) for number in range(case.clients)])
        if not rabbit:
            await self._fill_sqlite(folder)
            yield site
            return
        options = RabbitOptions(urls=(self._url,), prefix=prefix)
        await declare_topology(options)
        try:
            async with broker(self._url, prefix) as publisher:
                await publisher.publish_all(case.events(self._events))
                if case.backlog > self._events:
                    all_wait = partial(publisher.until_depths, {"events": case.backlog}, PATIENCE)
                    await publish_unconfirmed(self._url, prefix, self._rest(), all_wait)
            yield site
        finally:
            await delete_topology(options)

    def _client(self, number: int) -> dict[str, object]:
        case = self._case
        uri = NOBODY if case.failing else self._receiver.url(f"c{number}", tls=case.tls)
        own = {"tls": {"ca_file": str(self._receiver.ca)}} if case.tls else {}
        return {**client(f"c{number}", uri), "id_token_signed_response_alg": case.alg, "notifier": own}

    def _rest(self) -> Iterator[dict[str, object]]:
        """The events of the backlog that the drain does not wait for."""
        return itertools.islice(self._case.events(self._case.backlog), self._events, None)

    async def _fill_sqlite(self, folder: Path) -> None:
        queue = SqliteQueue(SqliteOptions(path=folder / "queue.db"))
        await queue.open()
        try:
            await queue.wait_until_ready()
            bodies = map(encoded, itertools.chain(self._case.events(self._events), self._rest()))
            while batch := list(itertools.islice(bodies, 2000)):
                await asyncio.gather(*(queue.send_event(Lane.EVENTS, body, message_id=None) for body in batch))
        finally:
            await queue.close()

    async def _measured(self, site: Site) -> Drain:
        async with aiohttp.ClientSession() as session:
            before = await self._receiver.count(session)
            async with bench_worker(site, set(self._cores.workers)) as worker:
                wanted = self._events * self._case.fan_out

                async def count() -> int:
                    if self._case.failing:
                        metrics = await worker.metrics()
                        written = ("retries_scheduled_total", "deferrals_total{")
                        return int(sum(value for name, value in metrics.items() if name.startswith(written)))
                    return await self._receiver.count(session) - before

                every = LOOK_EVERY_METRICS if self._case.failing else LOOK_EVERY
                found = await watched(count, worker.cpu, wanted, every)
                # A client that refuses is tried again, which counts once more.
                beyond = self._case.failing or self._case.backlog > self._events
                return replace(found, memory=worker.peak(), beyond=beyond)

    def _verify(self, site: Site) -> None:
        """Check that each token of the sample is valid for its client."""
        jwks = self._jwks(site)
        for name, token, at in self._receiver.tokens:
            verify(token, jwks, iss=ISSUER, aud=name, now=at)
            self.verified += 1
        self._receiver.tokens.clear()

    def _jwks(self, site: Site) -> dict[str, list[dict[str, object]]]:
        from joserfc.jwk import import_key  # noqa: PLC0415

        rsa = import_key((site.folder / "rsa.pem").read_text(), "RSA")
        public = {**rsa.as_dict(private=False), "kid": rsa.thumbprint(), "use": "sig"}
        return {"keys": [*map(dict, site.jwks(ISSUER)["keys"]), public]}
