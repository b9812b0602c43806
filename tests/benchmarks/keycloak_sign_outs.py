"""Measures what the package for Keycloak costs a sign-out, and a `logout-all`: beside a Keycloak that has it not.

    python -m tests.benchmarks.keycloak_sign_outs [--pairs 100] [--sessions 100000]

Two Keycloaks run side by side on one PostgreSQL, which does not wait for disks; the outbox does. Somebody signs in at
two clients and out at one, in turn at each Keycloak, and which is first changes each time. The other client answers
Keycloak's own POST at once, on loopback: no client of the world is nearer. With the package, the broker is up, then
frozen, then away.
"""

import argparse
import asyncio
import contextlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from aiohttp import web

from tests.apt_programs import program
from tests.databases import postgresql
from tests.keycloak_browser import KeycloakBrowser
from tests.keycloak_installation import JDK
from tests.publishers.keycloak.nodes import MANY, Node, Nodes, nodes
from tests.publishers.keycloak.shop_realm import CALLBACK, GOODBYE, PASSWORD
from tests.rabbitmq_node import rabbitmq_node
from tests.system.tcp_proxy import Ending, Way

WARMING = 30  # sign-outs at each before the first that counts
MIB = 1024 * 1024


@dataclass(slots=True, kw_only=True)
class Figures:
    """Seconds that sign-outs took at each, pair by pair."""

    alone: list[float]
    plugged: list[float]

    def __str__(self) -> str:
        def of(found: list[float]) -> tuple[float, float]:
            return 1000 * statistics.median(found), 1000 * statistics.quantiles(found, n=10)[8]

        (median, high), (own, own_high) = of(self.plugged), of(self.alone)
        return (
            f"median {median:.1f} ms beside {own:.1f} ({median / own:.2f}), "
            f"p90 {high:.1f} ms beside {own_high:.1f} ({high / own_high:.2f}), "
            f"slowest {1000 * max(self.plugged):.0f} ms beside {1000 * max(self.alone):.0f}"
        )


@contextlib.asynccontextmanager
async def receiver() -> AsyncIterator[str]:
    """Answers every POST at once; its address."""

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.Response()

    app = web.Application()
    app.router.add_post("/{client}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def sign_out(running: Nodes, user: str) -> float:
    """Seconds that it took a user who had just signed in at both clients."""
    async with KeycloakBrowser(running.node.server.url, MANY) as browser:
        tokens = [await browser.sign_in(client_id, CALLBACK, user, PASSWORD) for client_id in ("web", "app")]
        return await browser.sign_out(tokens[0]["raw"], GOODBYE)


async def pairs(alone: Nodes, plugged: Nodes, count: int) -> Figures:
    """So many at each, in turn."""
    found = Figures(alone=[], plugged=[])
    for number in range(count):
        turn = [(alone, found.alone), (plugged, found.plugged)]
        for where, took in turn if number % 2 else reversed(turn):
            took.append(await sign_out(where, where.last_user))
    return found


def resident(node: Node) -> float:
    """MiB, at most since `forget`."""
    status = Path(f"/proc/{node.server.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) / 1024


def heap(node: Node) -> float:
    """MiB in use after a full collection."""
    jcmd, pid = program("jcmd", JDK), str(node.server.pid)
    subprocess.run([jcmd, pid, "GC.run"], check=True, capture_output=True)
    told = subprocess.run([jcmd, pid, "GC.heap_info"], check=True, capture_output=True, text=True).stdout
    return sum(map(int, re.findall(r"(?:heap|generation)\s+total \d+K, used (\d+)K", told))) / 1024


def forget(node: Node) -> None:
    """The highest memory from now on."""
    Path(f"/proc/{node.server.pid}/clear_refs").write_text("5")


async def logout_all(running: Nodes, count: int, tell: Callable[[str], None]) -> None:
    """Of so many sessions."""
    sids = await running.more(count)
    before = await asyncio.to_thread(heap, running.node)
    forget(running.node)
    began, seen = time.monotonic(), len(running.tap.seen)
    async with aiohttp.ClientSession() as session:
        status = await running.node.ask(session, "POST", "/logout-all")
    took = time.monotonic() - began
    assert status == 200, status
    tell(f"  answered after {took:.1f} s")
    if running.outbox.exists():
        verdict = await running.verdict(sids, patience=1800)
        events = time.monotonic() - began
        assert verdict.holds, verdict
        tell(f"  {len(running.tap.seen) - seen} events, the last after {events:.0f} s; {verdict.repeated} twice")
    peak, after = resident(running.node), await asyncio.to_thread(heap, running.node)
    tell(f"  at most {peak:.0f} MiB; heap {before:.0f} MiB before, {after:.0f} after")


async def main(count: int, sessions: int) -> None:
    """Both, and say what came of it."""

    def tell(text: str) -> None:
        print(text, flush=True)  # noqa: T201

    async with contextlib.AsyncExitStack() as stack:
        address = await stack.enter_async_context(receiver())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="keycloak-sign-outs.")))
        server, broker = stack.enter_context(postgresql()), stack.enter_context(rabbitmq_node())
        both = []
        for name, plugged in (("alone", False), ("plugged", True)):
            (folder / name).mkdir()
            made = nodes(folder / name, server, broker.url, receivers=address, plugged=plugged, outbox_max_events=2**30)
            both.append(await stack.enter_async_context(made))
        alone, plugged_in = both
        if count:
            await pairs(alone, plugged_in, WARMING)
            await ratios(alone, plugged_in, count, tell)
        for running, name in zip(both, ("without the package", "with it"), strict=True):
            if sessions:
                tell(f"logout-all of {sessions} sessions, {name}:")
                await logout_all(running, sessions, tell)


async def ratios(alone: Nodes, plugged: Nodes, count: int, tell: Callable[[str], None]) -> None:
    """With the broker up, frozen and away. The first line is the noise of the machine: Keycloak alone beside itself."""
    tell(f"noise      {await pairs(alone, alone, count)}")
    tell(f"broker up  {await pairs(alone, plugged, count)}")
    plugged.proxy.stall(*Way)
    tell(f"frozen     {await pairs(alone, plugged, count)}")
    plugged.proxy.flow()
    plugged.proxy.refuse()
    plugged.proxy.end(Ending.RESET)
    tell(f"away       {await pairs(alone, plugged, count)}")
    await plugged.proxy.accept()


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100, help="sign-outs at each, in each state of the broker")
    parser.add_argument("--sessions", type=int, default=100_000, help="that logout-all ends; 0: none")
    return parser.parse_args(given)


if __name__ == "__main__":
    chosen = arguments(sys.argv[1:])
    asyncio.run(main(chosen.pairs, chosen.sessions))
