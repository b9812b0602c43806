"""Measures how a reading of many clients from a database holds up the event loop of the same process.

    python -m tests.benchmarks.sql_reading [--clients 100000] [--rounds 3]

A thread reads Duende's tables from a private PostgreSQL and MariaDB, beside a loop that wakes each millisecond. The
first reading has no last answer; the second finds nothing changed; before the third, one client in a hundred has a new
URI. How late the loop is without any reading is told first: the machine's own noise. It takes about a minute.
"""

import argparse
import asyncio
import gc
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from notifier.adapters.registries.sql import SqlReader
from notifier.domain.client_rows import SourceAnswer
from notifier.settings.sql_settings import SqlSettings
from tests.databases import DatabaseServer, mariadb, postgresql

TICK = 0.001  # seconds
IDLE = 2.0
_CLIENTS = (
    "Id INT PRIMARY KEY, Enabled BOOLEAN, ClientId VARCHAR(200), ProtocolType VARCHAR(200),"
    " BackChannelLogoutUri VARCHAR(2000), BackChannelLogoutSessionRequired BOOLEAN,"
    " FrontChannelLogoutUri VARCHAR(2000), FrontChannelLogoutSessionRequired BOOLEAN,"
    " AllowedIdentityTokenSigningAlgorithms VARCHAR(100)"
)


async def beside(work: Callable[[], SourceAnswer | None]) -> tuple[SourceAnswer | None, float, list[float]]:
    """What the work returned, its seconds, and the milliseconds that a loop was late meanwhile, in order of size."""
    late: list[float] = []
    done = False

    async def tick() -> None:
        last = time.perf_counter()
        while not done:
            await asyncio.sleep(TICK)
            now = time.perf_counter()
            late.append((now - last - TICK) * 1000)
            last = now

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0.05)
    late.clear()
    started = time.perf_counter()
    answer = await asyncio.to_thread(work)
    took = time.perf_counter() - started
    done = True
    await ticking
    return answer, took, sorted(late)


def _idle() -> None:
    time.sleep(IDLE)


def fill(server: DatabaseServer, clients: int) -> None:
    """Make the tables, a fifth of the clients with a property."""
    postgres = server.scheme == "postgresql"
    rows = f"generate_series(1, {clients}) AS seq" if postgres else f"seq_1_to_{clients}"
    server.run(
        f"CREATE TABLE Clients ({_CLIENTS})",
        "CREATE TABLE ClientProperties (Id INT PRIMARY KEY, ClientId INT, "
        + ("Key VARCHAR(250), Value VARCHAR(2000))" if postgres else "`Key` VARCHAR(250), `Value` VARCHAR(2000))"),
        "INSERT INTO Clients SELECT seq, seq % 50 <> 0, CONCAT('client-', seq), 'oidc', "
        "CONCAT('https://app-', seq, '.example.com/bff/backchannel'), TRUE, NULL, TRUE, "
        f"CASE WHEN seq % 3 = 0 THEN 'ES256,RS256' END FROM {rows}",
        f"INSERT INTO ClientProperties SELECT seq, seq, 'notifier:timeout', '3s' FROM {rows} WHERE seq % 5 = 0",
    )
    if postgres:
        server.run("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader", "ANALYZE")
    else:
        server.run("GRANT SELECT ON ids.* TO reader@'127.0.0.1'")


def readings(server: DatabaseServer, number: int) -> Iterator[tuple[str, float, list[float], int]]:
    """Three readings: what, seconds, milliseconds late, clients."""
    reader = SqlReader(SqlSettings.model_validate({"url": server.url, "preset": "duende"}), 60.0)
    last: SourceAnswer | None = None
    for what in ("first", "nothing changed", "1 % changed"):
        if what.startswith("1 %"):
            changed = f"CONCAT(BackChannelLogoutUri, '?{number}')"
            server.run(f"UPDATE Clients SET BackChannelLogoutUri = {changed} WHERE Id % 100 = 1")
        gc.collect()
        gc.freeze()
        gc.disable()  # as the registry does: else a collection in the midst looks through all clients
        known = last
        answer, took, late = asyncio.run(beside(lambda known=known: asyncio.run(reader.read(known))))  # type: ignore[misc]
        gc.enable()
        assert answer is not None
        assert (answer is last) == (what == "nothing changed")
        last = answer
        yield what, took, late, len(answer.rows)
    gc.unfreeze()


def main() -> None:
    """Run it, and print a line for each reading."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--clients", type=int, default=100_000)
    arguments.add_argument("--rounds", type=int, default=3)
    given = arguments.parse_args()
    servers: list[Callable[[], AbstractContextManager[DatabaseServer]]] = [postgresql, mariadb]
    for make in servers:
        with make() as server:
            fill(server, given.clients)
            for number in range(given.rounds):
                _, _, idle = asyncio.run(beside(_idle))
                _say(make.__name__, "idle", IDLE, idle, 0)
                for what, took, late, clients in readings(server, number):
                    _say(make.__name__, what, took, late, clients)


def _say(server: str, what: str, took: float, late: list[float], clients: int) -> None:
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    worst, p99 = late[-1], late[int(len(late) * 0.99)]
    print(  # noqa: T201  a table for people
        f"{server:10} {what:16} {took:5.2f} s, loop late at most {worst:5.1f} ms, p99 {p99:4.1f} ms,"
        f" median {statistics.median(late):4.2f} ms; {clients} clients, {memory} MiB at most",
        flush=True,
    )


if __name__ == "__main__":
    main()
