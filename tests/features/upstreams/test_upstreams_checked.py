"""What `check` asks of the databases that know sessions, and what the log says of tokens that end none."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from notifier.features.upstreams.upstream import UpstreamLookedUp
from notifier.features.upstreams.upstream_record import TOLD_EVERY, UpstreamRecord
from notifier.features.upstreams.upstream_token import UpstreamResult
from tests.cli.in_process import notifier
from tests.tokens.key_folder import ISS, pem

QUERY = "SELECT user AS sub, id AS sid, apps AS clients FROM sessions WHERE theirs = :sid"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A key, and a database of sessions."""
    (tmp_path / "key.pem").write_bytes(pem("ES256"))
    (tmp_path / "key.pem").chmod(0o600)
    with sqlite3.connect(tmp_path / "s.db") as database:
        database.execute("CREATE TABLE sessions (id TEXT, user TEXT, apps TEXT, theirs TEXT)")
    return tmp_path


def checked(folder: Path, sql: dict[str, Any], *options: str) -> tuple[int, list[dict[str, str]]]:
    """The exit status of `check`, and the mistakes."""
    op = {"issuer": "https://op.example.com", "client_id": "us", "resolve": {"sql": {"url": "sqlite:///s.db", **sql}}}
    config = {"issuers": {ISS: {"keys": [{"file": "key.pem"}]}}, "upstreams": {"op": op}}
    (folder / "n.json").write_text(json.dumps(config))
    done = notifier("check", "-c", "n.json", "--json", *options, cwd=folder)
    return done.returncode, json.loads(done.stdout)["mistakes"]


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ({"query": QUERY.replace("AS clients", "AS clinets")}, "there is no clinets; they are sub, sid, clients"),
        ({"query": QUERY.replace("SELECT user ", "SELECT usre ")}, "no such column: usre"),
        ({"query": QUERY.replace("FROM sessions", "FROM session")}, "no such table: session"),
        ({"query": "SELECT user AS sub FROM sessions WHERE id IS NOT NULL OR :sid = theirs"}, "those of nobody"),
        ({"query": QUERY, "url": "sqlite:///missing.db"}, "cannot be asked"),
        ({"preset": "duende", "prefix": "op|"}, "ServerSideSessions"),
    ],
    ids=range(6),
)
def test_a_query_that_cannot_work_is_a_mistake(folder: Path, sql: dict[str, Any], said: str) -> None:
    """Else the first token finds it, and nobody is signed out. Offline nobody is asked."""
    with sqlite3.connect(folder / "s.db") as database:
        database.execute("INSERT INTO sessions VALUES ('s1', 'alice', '*', 'u1')")
    status, [mistake] = checked(folder, sql)
    assert (status, mistake["path"]) == (2, "upstreams.op.resolve.sql")
    assert said in mistake["text"]
    assert checked(folder, sql, "--offline") == (0, [])


def test_a_query_that_works_is_none(folder: Path) -> None:
    """Though it finds nobody."""
    assert checked(folder, {"query": QUERY}) == (0, [])


def test_a_token_that_ends_no_session_leaves_a_line() -> None:
    """Each token; of browsers, which anybody may send with a made-up `sid`, one in a minute."""
    now = [0.0]
    record = UpstreamRecord(lambda: now[0])
    looked = UpstreamLookedUp(upstream="op", result="no_session", text="none has the sub and sid of the token")
    with capture_logs() as lines:
        record.observe(looked)
        record.observe(looked)
        record.observe(UpstreamLookedUp(upstream="op", result="found"))
        for _ in range(5):
            record.requested("op", UpstreamResult.NO_SESSION)
        now[0] = TOLD_EVERY
        record.requested("op", UpstreamResult.NO_SESSION)
    assert [(line["event"], line["log_level"], line["upstream"]) for line in lines] == [
        ("upstream_no_session", "info", "op")
    ] * 4
    assert [line["reason"] for line in lines] == [looked.text] * 2 + ["none has the sid that a browser came with"] * 2
    assert "upstreams.op.resolve" in lines[0]["hint"]
