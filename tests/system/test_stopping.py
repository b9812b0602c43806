"""Stopping in the middle of work: drained, cut short or killed, nothing is lost."""

import asyncio
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.system.broker import Broker, broker
from tests.system.clients import Clients, Hit, Judge, verify_all
from tests.system.site import ISSUER, Site, client
from tests.system.waiting import PATIENCE
from tests.system.worker_process import worker

EVENTS = 150
NAMES = ("a", "b", "c")
BROKEN = """
from notifier.queues.sqlite.queue import SqliteQueue
from notifier.cli import main

async def count_parked(_queue, _buckets=None):
    raise ZeroDivisionError

SqliteQueue.count_parked = count_parked
main()
"""


def slowly(hit: Hit) -> "asyncio.Future[int]":
    """Clients that take a tenth of a second, and now and then fail the first time."""
    return asyncio.ensure_future(asyncio.sleep(0.1, 503 if failed(hit) else 200))


def failed(hit: Hit) -> bool:
    """Some: a client that fails often is notified one at a time."""
    return int(hit.who) % 60 == 59 and hit.nth == 1


def events(first: int = 0, last: int = EVENTS) -> Iterator[dict[str, object]]:
    """Each names three clients."""
    for number in range(first, last):
        yield {"id": f"e{number}", "iss": ISSUER, "sub": "alice", "sid": str(number), "clients": list(NAMES)}


def install(tmp_path: Path, url: str, prefix: str, clients: Clients) -> Site:
    """Three clients at whom nothing waits long."""
    site = Site(tmp_path, url, prefix)
    site.write_clients([client(name, clients.url(name)) for name in NAMES])
    return site


def succeeded(clients: Clients) -> Counter[tuple[str, str]]:
    """Return how often each client answered 200 for each session."""
    return Counter((hit.path, hit.who) for hit in clients.hits if not failed(hit))


ALL = {(f"/{name}", str(number)) for name in NAMES for number in range(EVENTS)}


def hang_until(over: asyncio.Event) -> Judge:
    """Clients that answer nobody until then."""

    async def hang(_hit: Hit) -> int:
        await over.wait()
        return 200

    return hang


async def complete(clients: Clients, rabbit: Broker, site: Site) -> None:
    """A second worker delivers whatever is left, and then the queues are empty."""
    async with worker(site) as second:
        await clients.until(lambda: succeeded(clients).keys() >= ALL, patience=60)
        await rabbit.until_depths({})
        assert await second.stop() == 0
        assert second.logged("drained")[0]["given_back"] == 0  # what is left from now on, the broker returned
    await rabbit.until_depths({})
    assert succeeded(clients).keys() == ALL
    verify_all(clients.hits, site.jwks)


async def test_worker_exits_when_a_part_fails(tmp_path: Path) -> None:
    """Its log has the reason. It does not keep running with less."""
    site = Site(tmp_path, f"sqlite:{tmp_path / 'q.db'}")
    (tmp_path / "broken.py").write_text(BROKEN)
    async with worker(site, command=[sys.executable, str(tmp_path / "broken.py")]) as running:
        assert await running.ended(PATIENCE) == 1
        [text] = running.logged("crashed")
        assert text["error"] == "ZeroDivisionError"
        assert "fetches.py" in text["exception"]


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.full)])
async def test_signal_drains_without_loss_or_duplicates(
    tmp_path: Path, amqp_url: str, prefix: str, number: signal.Signals
) -> None:
    """The first worker finishes what is in flight and exits 0; a second delivers the rest, each delivery once."""
    async with Clients(slowly) as clients, broker(amqp_url, prefix) as rabbit:
        site = install(tmp_path, amqp_url, prefix, clients)
        async with worker(site) as first:
            await rabbit.publish_all(events(last=EVENTS - 10))
            await clients.until(lambda: len(clients.hits) >= 75)
            first.send(number)
            await first.until_ready(ready=False)
            await rabbit.publish_all(events(first=EVENTS - 10))  # those are the second worker's
            assert await first.ended() == 0
        assert len(clients.hits) < len(ALL)
        await complete(clients, rabbit, site)
        assert set(succeeded(clients).values()) == {1}


@pytest.mark.full
@pytest.mark.parametrize(("grace", "signals", "status"), [("1s", 1, 0), ("60s", 2, 128 + signal.SIGTERM)])
async def test_a_drain_is_bounded(
    tmp_path: Path, amqp_url: str, prefix: str, grace: str, signals: int, status: int
) -> None:
    """By `shutdown_grace` and by a second signal, while a client hangs. The next worker delivers the rest."""
    held = asyncio.Event()
    async with Clients(hang_until(held)) as clients, broker(amqp_url, prefix) as rabbit:
        site = install(tmp_path, amqp_url, prefix, clients)
        site.config["shutdown_grace"] = grace
        site.write()
        async with worker(site) as first:
            await rabbit.publish_all(events())
            await clients.until(lambda: len(clients.hits) >= 6)
            for _ in range(signals):
                first.send(signal.SIGTERM)
                await first.until_logged("draining")
            assert await first.ended(patience=10) == status
        clients.judge = slowly
        clients.hits.clear()
        held.set()
        await complete(clients, rabbit, site)


@pytest.mark.full
async def test_draining_worker_still_accepts_events_over_http(tmp_path: Path, amqp_url: str, prefix: str) -> None:
    """For publishers that still use it; the next worker delivers those events, once."""
    held = asyncio.Event()
    async with Clients(hang_until(held)) as clients:
        site = install(tmp_path, amqp_url, prefix, clients)
        site.config["delivery"]["timeout"], site.config["shutdown_grace"] = "30s", "60s"  # a loaded machine is slow
        site.write()
        async with worker(site) as first:
            assert (await first.post(next(events())))[0] == 202
            await clients.until(lambda: len(clients.hits) == len(NAMES))
            first.send(signal.SIGTERM)
            await first.until_ready(ready=False)
            late = {"id": "late", "iss": ISSUER, "sub": "alice", "sid": "late", "clients": ["a"]}
            assert (await first.post(late))[0] == 202
            held.set()
            assert await first.ended() == 0
        assert "late" not in clients.notified("a")
        async with worker(site) as second:
            await clients.until_notified("a", {"late"})
            assert await second.stop() == 0
        assert len(clients.hits) == len(NAMES) + 1


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
async def test_sighup_and_sigusr1_never_end_the_worker(tmp_path: Path, number: signal.Signals) -> None:
    """Sent 200 times a second from its first line to its end: none kills a worker that starts or drains."""
    site = Site(tmp_path, f"sqlite:{tmp_path / 'queue.db'}", "")
    async with worker(site, ready=False) as running:
        await running.until_logged("listening")

        async def ask() -> None:
            while running.running:
                with suppress(ProcessLookupError):
                    running.send(number)
                await asyncio.sleep(0.005)  # their pace, not a wait

        asking = asyncio.create_task(ask())
        await running.until_logged("consuming")
        assert await running.stop() == 0
        await asking
