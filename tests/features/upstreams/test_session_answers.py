"""Whose sessions a database or an endpoint reports, and how questions wait."""

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from notifier.features.upstreams import session_lookups
from notifier.features.upstreams.doctor_upstreams import examine_sessions
from notifier.features.upstreams.session_database import SessionDatabase
from notifier.features.upstreams.session_lookups import (
    MAX_CONCURRENT_LOOK_UPS,
    SessionEndpoint,
    SessionLookups,
    SessionStore,
)
from notifier.features.upstreams.upstream import MAX_SESSIONS, LocalSession, SessionsUnavailable, UpstreamSession
from notifier.features.upstreams.upstream_settings import SessionsHttpSettings, SessionsSqlSettings, UpstreamSettings
from notifier.model.errors import SourceFault
from notifier.operators.doctor.doctor import Severity
from tests.system.loopback import LoopbackServer

# ── Look-ups of sessions in a database or at an endpoint, and the faults of wrong answers ─────────────────────────


BY_SID = UpstreamSession(iss="https://op.example.com", sub="up-alice", sid="up-1")
BY_SUB = UpstreamSession(iss="https://op.example.com", sub="up-alice", sid=None)


def session(sub: str | None, sid: str | None, *clients: str) -> LocalSession:
    """Return a session; without clients all are notified."""
    return LocalSession(sub=sub, sid=sid, clients=clients or "*")


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A database of sessions, one with two clients; and Duende's table."""
    with sqlite3.connect(tmp_path / "s.db") as connection:
        connection.executescript("""
            CREATE TABLE s (iss, up_sub, up_sid, sub, sid, client);
            INSERT INTO s VALUES ('https://op.example.com', 'up-alice', 'up-1', 'alice', 'l1', 'shop'),
                ('https://op.example.com', 'up-alice', 'up-1', 'alice', 'l1', 'mail'),
                ('https://op.example.com', 'up-alice', 'up-2', 'alice', 'l2', 'shop'),
                ('https://op.example.com', 'up-bob', 'up-3', 'bob', 'l3', NULL);
            CREATE TABLE server_side_sessions (id, subject_id, session_id, data);
            INSERT INTO server_side_sessions VALUES (1, 'up-alice', 'up-1', 'x'), (2, 'up-alice', 'up-2', 'x'),
                (3, 'up-bob', 'up-3', 'x');
        """)
    connection.close()
    return f"sqlite:///{tmp_path}/s.db"


async def asked(url: str, question: UpstreamSession, **settings: Any) -> tuple[LocalSession, ...]:
    return await SessionDatabase(SessionsSqlSettings.model_validate({"url": url, **settings})).find_sessions(question)


QUERY = (
    "SELECT sub, sid, client AS clients FROM s WHERE iss = :iss AND up_sub = :sub AND (:sid IS NULL OR up_sid = :sid);"
)


async def test_a_query_names_sessions_and_clients(url: str) -> None:
    """A row for each client makes one session. A colon in a text starts no parameter. Names are read in any case."""
    assert await asked(url, BY_SID, query=QUERY) == (session("alice", "l1", "shop", "mail"),)
    assert await asked(url, BY_SUB, query=QUERY) == (
        session("alice", "l1", "shop", "mail"),
        session("alice", "l2", "shop"),
    )
    for value, clients in (('\'["a", "b"]\'', ("a", "b")), ("'*'", ()), ("NULL", ()), ("'c:d'", ("c:d",))):
        found = await asked(url, BY_SID, query=f'SELECT :sub AS "Sub", {value} AS CLIENTS')
        assert found == (session("up-alice", None, *clients),)
    assert await asked(url, BY_SID, query="SELECT sub FROM s WHERE up_sid = :sid AND 1 = 0") == ()


@pytest.mark.parametrize("question", [BY_SID, BY_SUB])
async def test_duendes_sessions_are_found_by_sid_else_by_sub(url: str, question: UpstreamSession) -> None:
    """Its table may be called as conventions of PostgreSQL have it. All clients are notified."""
    found = await asked(url, question, preset="duende", prefix="")
    both = (session("up-alice", "up-1"), session("up-alice", "up-2"))
    assert found == (both[:1] if question.sid else both)


@pytest.mark.parametrize(
    ("sub", "sid", "prefix", "found"),
    [
        ("alice", None, "up-", [1, 2]),
        ("up-alice", None, "up-", []),
        ("alice", "up-1", "up-", [1]),
        (None, "up-1", "up-", [1]),
        ("bob", "up-1", "up-", []),
        (None, "up-1", "other-", []),
        ("anybody", "up-1", None, [1]),
    ],
)
async def test_a_prefix_limits_the_sessions_that_an_upstream_ends(
    url: str, sub: str | None, sid: str | None, prefix: str | None, found: list[int]
) -> None:
    """Only sessions of its own users, and of these the session in the token."""
    question = UpstreamSession(iss="https://op.example.com", sub=sub, sid=sid)
    given = {} if prefix is None else {"prefix": prefix}
    assert await asked(url, question, preset="duende", **given) == tuple(
        session("up-alice", f"up-{number}") for number in found
    )


async def test_without_a_prefix_duendes_table_ends_nothing_by_sub_alone(url: str) -> None:
    """The table lacks the provider of a session. The message waits, and the log names the setting."""
    with pytest.raises(SourceFault, match=r"set resolve\.sql\.prefix"):
        await asked(url, BY_SUB, preset="duende")


@pytest.mark.parametrize(
    ("settings", "phrase"),
    [
        ({"query": "SELECT sub, password FROM s WHERE up_sid = :sid"}, "no such column"),
        ({"query": "SELECT sub, client FROM s WHERE up_sid = :sid"}, "there is no client"),
        ({"query": "SELECT client AS clients FROM s WHERE up_sid = :sid"}, "sub and sid are missing"),
        ({"query": "SELECT '' AS sub WHERE :sid <> ''"}, "row 1 has neither sub nor sid"),
        ({"query": "SELECT x'0a41' AS sub WHERE :sid <> ''"}, "row 1 has a sub that is not plain text"),
        ({"query": "DELETE FROM s WHERE up_sid = :sid"}, "must only read"),
        ({"preset": "duende", "tables": {"sessions": "nothing"}}, "there is no table like nothing"),
        (
            {"query": f"WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT {MAX_SESSIONS + 1})"
             " SELECT :sub || x AS sub FROM n"},
            f"more than {MAX_SESSIONS} sessions",
        ),
    ],
)  # fmt: skip
async def test_an_answer_that_is_wrong_is_a_fault(url: str, settings: dict[str, Any], phrase: str) -> None:
    """Nobody is signed out by it."""
    with pytest.raises(SourceFault, match=phrase):
        await asked(url, BY_SID, **settings)


async def test_the_text_of_a_fault_names_no_user(url: str) -> None:
    """A database quotes what it was asked with."""
    query = "SELECT sub FROM s WHERE up_sid = json_extract(:sid, '$.x')"
    place = SessionDatabase(SessionsSqlSettings.model_validate({"url": url, "query": query}))
    away = await SessionLookups(place).look_up(
        UpstreamSession(iss="https://op.example.com", sub="up-alice-7", sid="raw-sid-88")
    )
    assert isinstance(away, SessionsUnavailable)
    assert "raw-sid-88" not in away.text


async def test_the_endpoint_gets_json_and_returns_sessions() -> None:
    """As a list, or below `sessions`. Any other answer is a fault."""
    answers: list[web.Response] = []
    bodies: list[Any] = []

    async def serve(request: web.BaseRequest) -> web.Response:
        bodies.append(await request.json())
        return answers.pop()

    one = {"sub": "alice", "sid": "l1", "clients": ["shop"]}
    async with LoopbackServer(serve) as server:
        endpoint = SessionEndpoint(SessionsHttpSettings(url=f"{server.base}/sessions?key=secret"))
        for content, expected in (
            ([one], (session("alice", "l1", "shop"),)), ({"sessions": [one, one]}, (session("alice", "l1", "shop"),)),
            ([{"sid": "l1", "clients": "*"}], (session(None, "l1"),)), ([{"sub": "a"}], (session("a", None),)),
            ([], ()),
        ):  # fmt: skip
            answers.append(web.json_response(content))
            assert await endpoint.find_sessions(BY_SID) == expected
        assert bodies[0] == {"iss": "https://op.example.com", "sub": "up-alice", "sid": "up-1"}
        for answer, phrase in (
            (web.json_response([one], status=500), "answered 500"),
            (web.json_response([one], status=201), "answered 201"), (web.json_response({}), "neither a list"),
            (web.json_response(["alice"]), "session 1 is not an object"),
            (web.json_response([{"clients": ["shop"]}]), "session 1 has neither sub nor sid"),
            (web.json_response([{**one, "clients": [7]}]), "session 1 has clients"),
            (web.Response(text="no"), "not JSON"),
            (web.json_response([{"sub": "x" * 1000}] * 1100), "larger than 1 MiB"),
        ):  # fmt: skip
            answers.append(answer)
            with pytest.raises(SourceFault, match=phrase) as fault:
                await endpoint.find_sessions(BY_SID)
            assert "secret" not in str(fault.value)


async def test_an_unexpected_error_is_a_retryable_fault() -> None:
    """Whatever a library raises."""

    class Breaks(SessionStore):
        async def find_sessions(self, question: UpstreamSession) -> tuple[LocalSession, ...]:
            raise RuntimeError(question.sub)

    assert await SessionLookups(Breaks()).look_up(BY_SID) == SessionsUnavailable(
        text="the look-up failed: RuntimeError"
    )


async def test_the_doctor_queries_with_an_impossible_user(url: str) -> None:
    """A query that answers with sessions all the same would sign everybody out."""
    for query, level in ((QUERY, Severity.OK), ("SELECT sub FROM s WHERE :sid <> ''", Severity.FAILED)):
        resolve = {"sql": {"url": url, "query": query}}
        upstream = UpstreamSettings.model_validate({"issuer": BY_SID.iss, "client_id": "us", "resolve": resolve})
        [finding] = await examine_sessions("upstreams.op.resolve", upstream)
        assert finding.level == level
    gone = {"sql": {"url": url + ".gone", "preset": "duende"}}
    upstream = UpstreamSettings.model_validate({"issuer": BY_SID.iss, "client_id": "us", "resolve": gone})
    [finding] = await examine_sessions("upstreams.op.resolve", upstream)
    assert (finding.level, "unable to open" in finding.text) == (Severity.FAILED, True)


# ── Questions that hang hold up nobody but their own place, and their askers only for a time ──────────────────────


QUESTION = UpstreamSession(iss="https://op.example.com", sub=None, sid="s1")
FOUND = (LocalSession(sub="alice", sid="l1", clients="*"),)
LOOPS_OWN = 32  # threads of an event loop's own executor at most, for any number of cores


class Hangs(SessionStore):
    """Block the thread until `over` is set, longer than any time limit."""

    def __init__(self) -> None:
        self.over = threading.Event()

    async def find_sessions(self, question: UpstreamSession) -> tuple[LocalSession, ...]:
        """Hang."""
        self.over.wait()
        return FOUND


@pytest.fixture
def hangs() -> Iterator[Hangs]:
    """Yield a hanging store, released at the end."""
    place = Hangs()
    yield place
    place.over.set()


async def test_hanging_look_ups_leave_the_loops_threads_free(hangs: Hangs) -> None:
    """TLS files of clients are read there, and reloads."""
    places = [SessionLookups(hangs) for _ in range(LOOPS_OWN // MAX_CONCURRENT_LOOK_UPS + 1)]
    async with asyncio.TaskGroup() as group:
        waiting = [
            group.create_task(place.look_up(QUESTION)) for place in places for _ in range(MAX_CONCURRENT_LOOK_UPS)
        ]
        await asyncio.sleep(0)  # each has asked
        async with asyncio.timeout(20):
            assert await asyncio.to_thread(lambda: "at once") == "at once"
        assert not any(task.done() and task.result() == FOUND for task in waiting)
        hangs.over.set()


async def test_a_look_up_times_out_and_keeps_its_slot(hangs: Hangs, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a store that hangs without end has four threads, and not one for each look-up."""
    monkeypatch.setattr(session_lookups, "LOOK_UP_TIMEOUT_SECONDS", 0.0)
    monkeypatch.setattr(session_lookups, "LOOK_UP_GRACE_SECONDS", 0.01)
    monkeypatch.setattr(session_lookups, "SLOT_WAIT_SECONDS", 0.01)
    place = SessionLookups(hangs)
    found = await asyncio.gather(*(place.look_up(QUESTION) for _ in range(MAX_CONCURRENT_LOOK_UPS)))
    assert set(found) == {SessionsUnavailable(text="no answer within 0 s")}
    busy = await place.look_up(QUESTION)
    assert isinstance(busy, SessionsUnavailable)
    assert busy.text.startswith(f"{MAX_CONCURRENT_LOOK_UPS} look-ups are in progress")
    hangs.over.set()
    monkeypatch.setattr(session_lookups, "SLOT_WAIT_SECONDS", 20.0)
    monkeypatch.setattr(session_lookups, "LOOK_UP_GRACE_SECONDS", 20.0)
    assert await place.look_up(QUESTION) == FOUND
