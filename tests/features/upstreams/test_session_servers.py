"""Look-ups of sessions in a real PostgreSQL and MariaDB; no message waits for a failing server."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from notifier.features.upstreams import session_database
from notifier.features.upstreams.session_database import SessionDatabase
from notifier.features.upstreams.session_lookups import SessionLookups
from notifier.features.upstreams.upstream import LocalSession, SessionsUnavailable, UpstreamSession
from notifier.features.upstreams.upstream_settings import SessionsSqlSettings
from notifier.model.errors import SourceFault
from tests.support.databases import PASSWORD, DatabaseServer, mariadb, postgresql

pytestmark = pytest.mark.full  # both servers are installed if they are not there

TABLE = """CREATE TABLE "ServerSideSessions" (
    "Id" bigint NOT NULL PRIMARY KEY, "Key" varchar(100) NOT NULL, "Scheme" varchar(100) NOT NULL,
    "SubjectId" varchar(100) NOT NULL, "SessionId" varchar(100), "DisplayName" varchar(100),
    "Created" timestamp NOT NULL, "Renewed" timestamp NOT NULL, "Expires" timestamp NULL, "Data" text NOT NULL)"""
"""As Duende's migrations have it for SQL Server, by the types of these two."""
SESSIONS = (("alice", "S1"), ("alice", "S2"), ("Alice", "s1"), ("bob", None), ("eve", "S1' OR '1'='1"))
OWN = """SELECT s.user_id AS sub, s.session_id AS sid, c.client_id AS clients
    FROM sessions s JOIN session_clients c ON c.session = s.id
    WHERE s.upstream_sid = :sid OR (:sid IS NULL AND s.upstream_sub = :sub);"""

OWN_TABLES = (
    (
        "CREATE TABLE sessions"
        " (id int, upstream_sid varchar(64), upstream_sub varchar(64), user_id int, session_id char(8))"
    ),
    "CREATE TABLE session_clients (session int, client_id varchar(64))",
    (
        "INSERT INTO sessions VALUES (1, 'up-1', 'up-alice', 7, 'l1'), (2, 'up-2', 'up-alice', 7, 'l2'),"
        " (3, 'up-3', 'up-bob', 8, 'l3')"
    ),
    "INSERT INTO session_clients VALUES (1, 'shop'), (1, 'mail'), (2, 'shop'), (3, 'shop')",
)


@pytest.fixture(scope="module", params=[postgresql, mariadb], ids=["postgresql", "mariadb"])
def server(request: pytest.FixtureRequest) -> Iterator[DatabaseServer]:
    """Start a server with Duende's table and custom tables. The user `reader` may read all of them."""
    with request.param() as running:
        quote = '"' if running.scheme == "postgresql" else "`"
        running.run(TABLE.replace('"', quote), *OWN_TABLES)
        times = "'2026-01-01', '2026-01-01', NULL, 'x'"
        for number, (sub, sid) in enumerate(SESSIONS, 1):
            row = f"{number}, 'k{number}', 'idsrv', {_literal(sub)}, {_literal(sid)}, NULL, {times}"
            running.run(f"INSERT INTO {quote}ServerSideSessions{quote} VALUES ({row})")
        if running.scheme == "postgresql":
            running.run("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
        yield running


def _literal(value: str | None) -> str:
    return "NULL" if value is None else "'" + value.replace("'", "''") + "'"


def session(sub: str, sid: str | None, *clients: str) -> LocalSession:
    return LocalSession(sub=sub, sid=sid, clients=clients or "*")


async def asked(server: DatabaseServer, sub: str | None, sid: str | None, **settings: Any) -> tuple[LocalSession, ...]:
    duende = {"preset": "duende", **({"prefix": ""} if sid is None else {})}
    place = SessionsSqlSettings.model_validate({"url": server.url, **(settings or duende)})
    return await SessionDatabase(place).find_sessions(UpstreamSession(iss="https://op.example.com", sub=sub, sid=sid))


async def test_duendes_sessions_are_matched_exactly(server: DatabaseServer) -> None:
    """MariaDB itself finds `S1` for `s1`. No value of an upstream is a part of the statement."""
    assert await asked(server, "alice", "S1") == (session("alice", "S1"),)
    assert await asked(server, "alice", "s1") == (session("Alice", "s1"),)
    assert {*await asked(server, "alice", None)} == {session("alice", "S1"), session("alice", "S2")}
    assert await asked(server, "Alice", None) == (session("Alice", "s1"),)
    assert await asked(server, "bob", None) == (session("bob", None),)
    assert await asked(server, None, "S1' OR '1'='1") == (session("eve", "S1' OR '1'='1"),)
    for strange in ("x' OR 'a'='a", "%", "\\", ":sid", "S1 ", "\u00df"):
        assert await asked(server, None, strange) == (), strange


async def test_the_query_of_the_documentation_is_answered(server: DatabaseServer) -> None:
    """Numbers and columns of a fixed width are read as texts. A `sid` that is not there is null, of a known type."""
    assert await asked(server, "x", "up-1", query=OWN) == (session("7", "l1", "shop", "mail"),)
    both = (session("7", "l1", "shop", "mail"), session("7", "l2", "shop"))
    assert sorted(await asked(server, "up-alice", None, query=OWN), key=str) == sorted(both, key=str)
    assert await asked(server, "up-nobody", None, query=OWN) == ()
    listed = 'CAST(\'["shop", "mail"]\' AS ' + ("jsonb)" if server.scheme == "postgresql" else "CHAR)")
    found = await asked(server, "u", "s", query=f"SELECT :sub AS sub, :sid AS sid, {listed} AS clients")
    assert found == (session("u", "s", "shop", "mail"),)


async def test_a_forbidden_statement_is_a_fault(server: DatabaseServer) -> None:
    """Writing, or reading without the right; the password is not in the error."""
    writes = "WITH gone AS (DELETE FROM sessions WHERE upstream_sid = :sid RETURNING 1) SELECT 'a' AS sub FROM gone"
    if server.scheme != "postgresql":
        writes = "DELETE FROM sessions WHERE upstream_sid = :sid"
    for query in (writes, "SELECT secret AS sub FROM users WHERE id = :sub", "SELECT sub WHERE :sid"):
        with pytest.raises(SourceFault) as fault:
            await asked(server, "u", "up-1", query=query)
        assert PASSWORD not in str(fault.value)
    assert len(await asked(server, "x", "up-1", query=OWN)) == 1


async def test_a_failing_server_is_unavailable_within_the_timeout(
    server: DatabaseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hanging, slow or killed. It is asked again once it is back."""
    monkeypatch.setattr(session_database, "LOOK_UP_TIMEOUT_SECONDS", 1.0)
    place = SessionsSqlSettings.model_validate({"url": server.url, "preset": "duende"})
    lookups, upstream_session = (
        SessionLookups(SessionDatabase(place)),
        UpstreamSession(iss="https://op.example.com", sub=None, sid="S1"),
    )
    started = time.monotonic()
    with server.frozen():
        assert isinstance(await lookups.look_up(upstream_session), SessionsUnavailable)
    assert time.monotonic() - started < 8
    wait = "pg_sleep(60)::text" if server.scheme == "postgresql" else "SLEEP(60)"
    with pytest.raises(SourceFault, match="timeout"):
        await asked(server, "u", "s", query=f"SELECT {wait} AS sub, :sid AS sid")
    server.kill()
    try:
        assert isinstance(await lookups.look_up(upstream_session), SessionsUnavailable)
    finally:
        server.start()
    assert await lookups.look_up(upstream_session) == (session("alice", "S1"),)


async def test_a_row_hidden_by_a_policy_is_a_fault(server: DatabaseServer) -> None:
    """PostgreSQL omits it silently, and the logout would end nothing. A setting allows it.

    MariaDB has no such thing: there the setting changes nothing.
    """
    query = "SELECT user_id AS sub, session_id AS sid FROM sessions WHERE upstream_sid = :sid"
    if server.scheme != "postgresql":
        assert len(await asked(server, "up-alice", "up-1", query=query, row_security=False)) == 1
        return
    server.run("ALTER TABLE sessions ENABLE ROW LEVEL SECURITY")
    try:
        with pytest.raises(SourceFault, match="BYPASSRLS"):
            await asked(server, "up-alice", "up-1", query=query)
        assert await asked(server, "up-alice", "up-1", query=query, row_security=True) == ()
    finally:
        server.run("ALTER TABLE sessions DISABLE ROW LEVEL SECURITY")
    assert len(await asked(server, "up-alice", "up-1", query=query)) == 1
