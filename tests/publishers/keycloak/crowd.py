"""Many sessions in the database of a Keycloak, and whether each that ended was told.

They are rows copied from a real session: a user who has signed in at two clients. Keycloak loads them from its tables,
as it does after a restart. The tables are the truth: what is no more in them has ended.
"""

import asyncio
import contextlib
import secrets
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa

from tests.publishers.keycloak.plugged import Database
from tests.publishers.tap import Tap

SESSIONS, CLIENTS = "OFFLINE_USER_SESSION", "OFFLINE_CLIENT_SESSION"  # PostgreSQL makes small letters of them
LOOK = 0.2
SETTLED = 1.0  # seconds without another event
PATIENCE = 150.0  # a node that lives takes over once a minute what a dead one has left
LONG_AGO = 400 * 86_400


@dataclass(slots=True)
class Verdict:
    """What became of sessions. The lists must be empty."""

    ended: int = 0
    repeated: int = 0
    """Events that came twice under one id: notifier knows them."""
    forgotten: list[str] = field(default_factory=list)
    untrue: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    in_part: list[str] = field(default_factory=list)
    metrics: str = ""
    """Where it does not hold: what the plug-ins say became of their events."""

    @property
    def holds(self) -> bool:
        """True if each that ended has one event with all clients, and none that lives has any."""
        return not (self.forgotten or self.untrue or self.twice or self.in_part)


class Crowd:
    """The sessions of one database."""

    def __init__(self, database: Database) -> None:
        self._kind = database.kind
        self._engine = sa.create_engine(database.url, poolclass=sa.NullPool)

    def copy(self, template: str, count: int) -> Sequence[str]:
        """So many more sessions like this one; their ids."""
        prefix = f"{secrets.token_hex(8)}-"
        numbers = f"SELECT seq AS number FROM seq_1_to_{count}"
        if self._kind == "postgres":
            numbers = f"SELECT generate_series(1, {count}) AS number"
        columns = sa.inspect(self._engine)
        with self._engine.begin() as connection:
            for table in (SESSIONS, CLIENTS):
                rest = ", ".join(
                    f"copied.{column['name']}"
                    for column in columns.get_columns(table.lower() if self._kind == "postgres" else table)
                    if column["name"].lower() != "user_session_id"
                )
                connection.execute(
                    sa.text(
                        f"INSERT INTO {table} (user_session_id, {rest.replace('copied.', '')})"
                        f" SELECT CONCAT('{prefix}', numbers.number), {rest} FROM {table} copied"
                        f" CROSS JOIN ({numbers}) numbers"
                        " WHERE copied.user_session_id = :template AND copied.offline_flag = '0'"
                    ),
                    {"template": template},
                )
        if self._kind == "postgres":
            with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.exec_driver_sql(f"ANALYZE {SESSIONS}, {CLIENTS}")
        return [f"{prefix}{number}" for number in range(1, count + 1)]

    def make_old(self, sids: Sequence[str]) -> None:
        """As if nobody had used them for a year."""
        changed = sa.text(
            f"UPDATE {SESSIONS} SET last_session_refresh = last_session_refresh - :long WHERE user_session_id IN :sids"
        )
        with self._engine.begin() as connection:
            connection.execute(
                changed.bindparams(sa.bindparam("sids", expanding=True)), {"long": LONG_AGO, "sids": list(sids)}
            )

    def living(self) -> set[str]:
        """The ids of those in the table."""
        with self._engine.connect() as connection:
            found = connection.exec_driver_sql(f"SELECT user_session_id FROM {SESSIONS} WHERE offline_flag = '0'")
            return {row[0] for row in found}

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody can delete a session meanwhile."""
        with self._engine.begin() as connection:
            connection.exec_driver_sql(f"LOCK TABLE {SESSIONS} IN SHARE MODE")
            yield

    async def verdict(
        self, tap: Tap, sids: Sequence[str], clients: Sequence[str], patience: float = PATIENCE
    ) -> Verdict:
        """Once nothing more comes."""
        before, living = None, await asyncio.to_thread(self.living)
        until = time.monotonic() + patience
        while before != living:  # a sign-out that nobody waits for any more may still go on
            before = living
            gone = set(sids) - living
            while time.monotonic() < until and not gone <= {each.sid for each in tap.seen}:  # noqa: ASYNC110  seldom, as
                await asyncio.sleep(LOOK)  # asked at each of 100,000 events it would take hours
            await self._settle(tap)
            living = await asyncio.to_thread(self.living)
        return _judge(tap, sids, living, frozenset(clients))

    async def _settle(self, tap: Tap) -> None:
        """Nothing more comes."""
        known = -1
        while known != len(tap.seen):
            known = len(tap.seen)
            await asyncio.sleep(SETTLED)
            await tap.catch_up()


def _judge(tap: Tap, sids: Sequence[str], living: set[str], clients: frozenset[str]) -> Verdict:
    ids: dict[str, Counter[str]] = defaultdict(Counter)
    named: dict[str, set[str]] = defaultdict(set)
    for each in tap.seen:
        ids[each.sid][str(each.event["id"])] += 1
        named[each.sid] |= each.clients
    found = Verdict()
    for sid in sids:
        if sid in living:
            found.untrue += [sid] if sid in ids else []
            continue
        found.ended += 1
        found.repeated += sum(ids[sid].values()) - len(ids[sid])
        found.forgotten += [sid] if not ids[sid] else []
        found.twice += [sid] if len(ids[sid]) > 1 else []
        found.in_part += [sid] if ids[sid] and named[sid] != clients else []
    return found
