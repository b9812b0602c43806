"""How long a sign-out takes with the package, beside the library alone. Not a test: its figures are for the README.

    python -m tests.publishers.oidc_provider.benchmark [--rounds 300] [--clients 4] [--library 8.8.1]

Two processes on one Redis: the library alone, which posts to every client and waits for the answers, and the library
with the package, whose broker works, then is frozen. Each round signs out at one after the other, in turns: where the
machine has other things to do, the ratios of the pairs say more than those of the percentiles. The clients answer at
once; the outbox is in the folder of the system's temporary files, or where TMPDIR says.
"""

import argparse
import asyncio
import contextlib
import secrets
import statistics
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from tests.conftest import declare_at_once
from tests.publishers.oidc_provider.clients import TOLD
from tests.publishers.oidc_provider.installed import NODE
from tests.publishers.oidc_provider.provider import VERSIONS, Provider
from tests.publishers.oidc_provider.redis_server import redis_server
from tests.publishers.oidc_provider.rig import Rig, make_keys, rig
from tests.rabbitmq_node import free_ports, rabbitmq_node

WARM_UP = 30
RECEIVER = """
require('http').createServer((request, response) => {
  request.resume().on('end', () => response.end())
}).listen(Number(process.argv[1]), '127.0.0.1', () => console.log('listening'))
"""


@contextlib.asynccontextmanager
async def receivers() -> AsyncIterator[str]:
    """Clients in a process of their own, which take every token at once."""
    [port] = free_ports(1)
    process = await asyncio.create_subprocess_exec(str(NODE), "-e", RECEIVER, str(port), stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        await process.stdout.readline()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        await process.wait()


async def sign_out(made: Rig, provider: Provider, user: str, clients: Sequence[str]) -> float:
    """Milliseconds that the user waits for the confirmation's answer."""
    async with made.signed_in(provider, user, *clients) as browser:
        answer = await browser.sign_out(clients[0])
        assert answer.status == 303, answer
        return answer.seconds * 1000


async def compare(made: Rig, alone: Provider, ours: Provider, rounds: int, clients: Sequence[str], what: str) -> None:
    """Sign out at both in turns, and print what it took."""
    taken: dict[str, list[float]] = {"alone": [], "package": []}
    for nth in range(rounds):
        turns = [("alone", alone), ("package", ours)]
        for name, provider in turns if nth % 2 else reversed(turns):
            taken[name].append(await sign_out(made, provider, f"{what}-{nth}", clients))
    say(what, len(clients), taken["alone"], taken["package"])


def say(what: str, clients: int, alone: list[float], ours: list[float]) -> None:
    """One row."""
    words = [f"{what:16} {clients} clients, {len(ours)} sign-outs each:"]
    for name, cut in (("p50", 49), ("p90", 89)):
        before, after = (statistics.quantiles(times, n=100)[cut] for times in (alone, ours))
        words.append(f"{name} {before:.1f} ms alone, {after:.1f} ms with the package, ratio {after / before:.2f};")
    paired = statistics.median(after / before for before, after in zip(alone, ours, strict=True))
    words.append(f"median of the ratios pair by pair {paired:.2f};")
    words.append(f"longest {max(alone):.0f} and {max(ours):.0f} ms")
    print(" ".join(words), flush=True)  # noqa: T201  a program's answer


async def measure(folder: Path, version: str, broker: str, redis: str, rounds: int, clients: Sequence[str]) -> None:
    """One version."""
    print(f"oidc-provider {version}", flush=True)  # noqa: T201  as above
    prefix = f"bench-{secrets.token_hex(4)}"
    await declare_at_once(broker, prefix)
    async with (
        rig(folder, version=version, keys=make_keys(folder), redis=redis, broker=broker, prefix=prefix) as made,
        receivers() as made.receivers,
        made.provider(publish=False, tell=False) as alone,
        made.provider(tell=False) as ours,
    ):
        for nth in range(WARM_UP):
            for provider in (alone, ours):
                await sign_out(made, provider, f"warm-{nth}", clients)
        await compare(made, alone, ours, rounds, clients, "broker works")
        made.freeze()
        await compare(made, alone, ours, rounds, clients, "broker frozen")
        made.thaw()
        users = {f"{what}-{nth}" for what in ("broker works", "broker frozen") for nth in range(rounds)}
        await made.events.until(lambda _: users <= made.events.subs)


def main() -> None:
    """Both versions, unless one is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=300, help="sign-outs of each kind")
    parser.add_argument("--clients", type=int, default=4, choices=range(1, len(TOLD) + 1), help="in each session")
    parser.add_argument("--library", choices=VERSIONS, action="append", help="one version alone")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as home, rabbitmq_node() as node, redis_server() as redis:
        for version in asked.library or VERSIONS:
            chosen = TOLD[: asked.clients]
            (folder := Path(home, version)).mkdir()
            asyncio.run(measure(folder, version, node.url, redis.url, asked.rounds, chosen))


if __name__ == "__main__":
    main()
