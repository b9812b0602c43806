"""A PostgreSQL and a MariaDB as registry sources: names, types, rights, and faults of servers."""

import asyncio
import contextlib
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from notifier.configuration.clients.client_rows import SourceAnswer
from notifier.features.registries.list_settings import SqlSettings
from notifier.features.registries.sql import SqlReader
from notifier.model.errors import SourceFault
from tests.features.registries.duende_tables import filled, recorded
from tests.features.registries.test_sql_duende import CLIENTS, by_name, expected
from tests.support.certificates import authority
from tests.support.databases import PASSWORD, DatabaseServer, mariadb, postgresql

pytestmark = pytest.mark.full  # both servers are installed if they are not there

WITHIN = 1.0  # seconds that readings of a server in trouble may take
# Seconds that they may be late: psycopg's shortest limit of a connection is 2 s, PyMySQL's are for each step, and the
# machine may stand still. A reading without a limit is always late.
LATE = 20.0
MANY = 2500  # rows of a list that comes in several parts


@pytest.fixture(scope="module", params=[postgresql, mariadb], ids=["postgresql", "mariadb"])
def server(request: pytest.FixtureRequest) -> Iterator[DatabaseServer]:
    with request.param() as running:
        yield running


@pytest.fixture
def tables(server: DatabaseServer) -> DatabaseServer:
    """Empty the server. The user `reader` may read the tables that a test creates."""
    if server.scheme == "postgresql":
        server.run(
            "DROP SCHEMA IF EXISTS public CASCADE", "DROP SCHEMA IF EXISTS idsrv CASCADE",
            "CREATE SCHEMA public", "CREATE SCHEMA idsrv", "GRANT USAGE ON SCHEMA public, idsrv TO reader",
            "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO reader",
        )  # fmt: skip
    else:
        server.run(
            "SET foreign_key_checks = 0", "DROP DATABASE IF EXISTS ids", "CREATE DATABASE ids", "USE ids",
            "REVOKE ALL PRIVILEGES, GRANT OPTION FROM reader@'127.0.0.1'",
            "GRANT SELECT ON ids.* TO reader@'127.0.0.1'",
        )  # fmt: skip
    return server


def kind(server: DatabaseServer) -> str:
    """As the recorded tables call it."""
    return "postgresql" if server.scheme == "postgresql" else "mariadb"


def reader(url: str, timeout: float = 30.0, pause: Callable[[float], None] = time.sleep, **settings: Any) -> SqlReader:
    """A reader of this database."""
    given = {"url": url, **({} if "query" in settings else {"preset": "duende"}), **settings}
    return SqlReader(SqlSettings.model_validate(given), timeout, pause=pause)


def read(url: str, last: SourceAnswer | None = None, timeout: float = 30.0, **settings: Any) -> SourceAnswer:
    """One reading."""
    return asyncio.run(reader(url, timeout, **settings).read(last))


def fault(url: str, timeout: float = 30.0, **settings: Any) -> str:
    """Return the error of a reading, which came in time and does not contain the password."""
    started = time.monotonic()
    with pytest.raises(SourceFault) as caught:
        read(url, timeout=timeout, **settings)
    assert time.monotonic() - started < timeout + LATE
    assert PASSWORD not in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("version", ["is4-2.5.0", "is4-4.1.2", "is-7.4.8", "is-8.0.3"])
def test_duende_and_identityserver4_are_read(tables: DatabaseServer, version: str) -> None:
    """A row that did not change stays what it was, and so does the whole answer."""
    tables.run(*filled(recorded(version, kind(tables)), CLIENTS))
    first = read(tables.url)
    assert by_name(first) == expected(version)
    assert read(tables.url, first) is first


@pytest.mark.parametrize("server", [postgresql], indirect=True, ids=["postgresql"], scope="module")
@pytest.mark.parametrize("variant", ["-snake", "-schema"])
def test_naming_conventions_and_schemas_of_postgresql_are_read(tables: DatabaseServer, variant: str) -> None:
    """A table in another schema is not found until it is named, and the fault names the setting."""
    tables.run(*filled(recorded("is-7.4.8", "postgresql", variant), CLIENTS))
    if variant == "-schema":
        text = "there is no table like Clients in the schema public (it shows notifier's user no table)"
        assert fault(tables.url) == f"{text}; set sql.schema or sql.tables, or give it the right to SELECT"
    answer = read(tables.url, schema="idsrv" if variant == "-schema" else "public")
    assert by_name(answer) == expected("is-7.4.8")


def test_hostile_names_are_quoted(tables: DatabaseServer) -> None:
    """A name from a setting is a name, whatever is in it."""
    name = """Cli"ents`; DROP TABLE x -- ' %s :a"""
    quoted = (
        '"' + name.replace('"', '""') + '"' if tables.scheme == "postgresql" else "`" + name.replace("`", "``") + "`"
    )
    view = f"CREATE VIEW {quoted} AS SELECT 'a' AS client_id, 'https://a.example/' AS back_channel_logout_uri"
    tables.run(view)
    answer = read(tables.url, tables={"Clients": name, "ClientProperties": ""}, columns="some")
    assert [row["client_id"] for row in answer.rows] == ["a"]


TYPES = {
    "postgresql": """
        SELECT 7 AS "CLIENT_ID", '["https://a.example", "https://b.example"]'::text AS Issuer,
        'https://a.example/%s/:b?x=''%''' AS "BackChannelLogoutUri", 't'::text AS backchannel_logout_session_required,
        '{"timeout": "3s"}'::jsonb AS notifier, ARRAY['x', 'y'] AS aliases, 'pairwise'::char(20) AS subject_type
        UNION ALL SELECT 8, 'https://a.example', '', '0', NULL, NULL, '';
    """,
    "mysql": """
        SELECT 7 AS `CLIENT_ID`, '["https://a.example", "https://b.example"]' AS Issuer,
        'https://a.example/%s/:b?x=''%''' AS `BackChannelLogoutUri`, b'1' AS backchannel_logout_session_required,
        JSON_OBJECT('timeout', '3s') AS notifier, '["x", "y"]' AS aliases, 'pairwise' AS subject_type
        UNION ALL SELECT 8, 'https://a.example', '', b'0', NULL, NULL, '';
    """,
}


def test_a_query_may_have_the_database_own_types(server: DatabaseServer) -> None:
    """Numbers, arrays, JSON, bits and characters of fixed width, and nothing in its text is a parameter."""
    answer = read(server.url, query=TYPES[server.scheme])
    assert not answer.faults
    assert list(answer.rows) == [
        {
            "client_id": "7",
            "issuer": ["https://a.example", "https://b.example"],
            "backchannel_logout_uri": "https://a.example/%s/:b?x='%'",
            "backchannel_logout_session_required": True,
            "notifier": {"timeout": "3s"},
            "aliases": ["x", "y"],
            "subject_type": "pairwise",
        },
        {"client_id": "8", "issuer": ["https://a.example"], "backchannel_logout_session_required": False},
    ]


def test_a_value_is_bounded_in_whatever_type_it_comes(server: DatabaseServer) -> None:
    """PostgreSQL's driver decodes JSON itself: an oversized value stays undecoded, and only its client is left out."""
    long = "repeat('1,', 200000)"
    many = {
        "postgresql": f"""SELECT 'a' AS client_id, ('{{"retry_statuses": [' || {long} || '1]}}')::jsonb AS notifier
            UNION ALL SELECT 'b', '{{"timeout": "3s"}}'::jsonb""",
        "mysql": f"""SELECT 'a' AS client_id, CONCAT('{{"retry_statuses": [', {long}, '1]}}') AS notifier
            UNION ALL SELECT 'b', '{{"timeout": "3s"}}'""",
    }
    answer = read(server.url, query=many["postgresql" if server.scheme == "postgresql" else "mysql"])
    assert answer.rows == [{"client_id": "b", "notifier": {"timeout": "3s"}}]
    assert [(each.path, each.text) for each in answer.faults] == [("a", "notifier is longer than 256 KiB")]


def test_a_query_cannot_write(tables: DatabaseServer) -> None:
    """Not even for a user who may."""
    tables.run("CREATE TABLE t (client_id varchar(20))", "INSERT INTO t VALUES ('a')")
    queries = ["DELETE FROM t"]
    if tables.scheme == "postgresql":
        function = "CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $$ DELETE FROM t RETURNING client_id $$"
        tables.run(function)
        queries += ["DELETE FROM t RETURNING client_id", "SELECT f() AS client_id"]
    faults = [fault(tables.root, query=query) for query in queries]
    assert faults[-1].endswith("query must only read: it runs in a transaction that is read only")
    assert read(tables.root, query="SELECT client_id FROM t").rows == [{"client_id": "a"}]


def test_rights_are_named_that_are_missing(tables: DatabaseServer) -> None:
    """A table that may not be read."""
    tables.run(*filled(recorded("is-7.4.8", kind(tables)), CLIENTS))
    if tables.scheme == "postgresql":
        tables.run('REVOKE SELECT ON "Clients" FROM reader')
        assert "the right to SELECT" in fault(tables.url)
        tables.run('GRANT SELECT ON "Clients" TO reader', 'REVOKE SELECT ON "ClientProperties" FROM reader')
        assert "permission denied for table ClientProperties" in fault(tables.url)
        answer = read(tables.url, tables={"ClientProperties": ""})
        assert "notifier" not in by_name(answer)["shop"]
    else:
        tables.run("REVOKE ALL PRIVILEGES, GRANT OPTION FROM reader@'127.0.0.1'")
        assert "the right to SELECT" in fault(tables.url)
        tables.run("GRANT SELECT ON ids.ClientProperties TO reader@'127.0.0.1'")
        assert "or give it the right to SELECT" in fault(tables.url)


@pytest.mark.parametrize("server", [postgresql], indirect=True, ids=["postgresql"], scope="module")
@pytest.mark.parametrize(
    "wanted", [{}, {"query": 'SELECT "ClientId" AS client_id FROM "Clients"'}], ids=["preset", "query"]
)
def test_rows_that_a_policy_hides_fail_the_reading(tables: DatabaseServer, wanted: dict[str, Any]) -> None:
    """PostgreSQL omits them silently: without a policy for notifier's user, all. A setting allows it."""
    tables.run(*filled(recorded("is-7.4.8", "postgresql"), CLIENTS))
    everyone = len(read(tables.url, **wanted).rows)
    tables.run('ALTER TABLE "Clients" ENABLE ROW LEVEL SECURITY')
    text = (
        'query would be affected by row-level security policy for table "Clients"; notifier\'s user would miss rows: '
    )
    way = "give it BYPASSRLS, or set sql.row_security: on if it is to see what the policy shows"
    assert fault(tables.url, **wanted) == text + way
    assert read(tables.url, row_security=True, **wanted).rows == []
    tables.run("CREATE POLICY shown ON \"Clients\" TO reader USING (\"ClientId\" IN ('shop', 'mail'))")
    assert fault(tables.url, **wanted) == text + way
    shown = by_name(read(tables.url, row_security=True, **wanted))
    assert shown.keys() == {"shop", "mail"}
    tables.run("ALTER ROLE reader BYPASSRLS")
    try:
        assert len(read(tables.url, **wanted).rows) == everyone
    finally:
        tables.run("ALTER ROLE reader NOBYPASSRLS")
    tables.run('ALTER TABLE "Clients" OWNER TO reader', "ALTER ROLE reader SET row_security = off")
    try:
        assert len(read(tables.url, **wanted).rows) == everyone
        tables.run('ALTER TABLE "Clients" FORCE ROW LEVEL SECURITY')
        assert fault(tables.url, **wanted) == text + way
        assert len(read(tables.url, row_security=True, **wanted).rows) == 2
    finally:
        tables.run("ALTER ROLE reader RESET row_security")


def test_a_new_password_is_taken_at_the_next_reading(server: DatabaseServer, tmp_path: Path) -> None:
    """The URL's file is read each time."""
    file = tmp_path / "url"
    file.write_text(server.url.replace(PASSWORD, "wrong-" + PASSWORD) + "\n")
    again = SqlReader(SqlSettings.model_validate({"url_file": file, "query": "SELECT 'a' AS client_id"}), 30.0)
    with pytest.raises(SourceFault, match="check user and password in its URL") as caught:
        asyncio.run(again.read(None))
    assert PASSWORD not in str(caught.value)
    file.write_text("\ufeff" + server.url + "\r\n")
    assert len(asyncio.run(again.read(None)).rows) == 1
    file.write_text("Server=db;Password=" + PASSWORD)
    with pytest.raises(SourceFault, match=r"url_file .* must be a URL that begins with postgresql") as caught:
        asyncio.run(again.read(None))
    assert PASSWORD not in str(caught.value)


def test_a_certificate_is_checked_if_asked(server: DatabaseServer, tmp_path: Path) -> None:
    """By the parameters of the driver."""
    assert server.authority is not None
    other = authority(tmp_path, "Other CA").ca_file
    url = server.url.replace("127.0.0.1", "localhost")
    ask = "sslmode=verify-full&sslrootcert=" if server.scheme == "postgresql" else "ssl_ca="
    query = "SELECT 'a' AS client_id"
    if server.scheme == "postgresql":  # MariaDB's reader may come from 127.0.0.1 alone, which is the same here
        assert len(read(f"{url}?{ask}{server.authority.ca_file}", query=query).rows) == 1
        assert "certificate" in fault(f"{server.url}?{ask}{server.authority.ca_file}", query=query)
    text = fault(f"{url}?{ask}{other}", query=query)
    assert "certificate" in text
    assert "check the CA and the host's name" in text


def test_a_slow_query_is_stopped(tables: DatabaseServer) -> None:
    """By the server itself, or by the clock between two parts."""
    rows = "generate_series(1, 1000)" if tables.scheme == "postgresql" else "seq_1_to_1000"
    sleep = "pg_sleep(0.1)" if tables.scheme == "postgresql" else "SLEEP(0.1)"
    tables.run(f"CREATE VIEW slow AS SELECT CONCAT('c', {sleep}) AS client_id FROM {rows}")
    text = fault(tables.url, WITHIN, query="SELECT client_id FROM slow")
    assert text == "not read within 1 s (the source's `timeout`)"


def _many(server: DatabaseServer) -> str:
    rows = f"generate_series(1, {MANY}) AS seq" if server.scheme == "postgresql" else f"seq_1_to_{MANY}"
    return f"SELECT CONCAT('c', seq, REPEAT('.', 1000)) AS client_id FROM {rows}"


def test_a_hanging_server_is_a_fault(server: DatabaseServer) -> None:
    """Before it takes the connection, and in the midst of its answer."""
    with server.frozen():
        assert "timeout" in fault(server.url, WITHIN, query=_many(server))

    def freeze(_seconds: float) -> None:
        server.signal(signal.SIGSTOP)

    try:
        assert fault(server.url, WITHIN, query=_many(server), pause=freeze).startswith("not read within 1 s")
    finally:
        server.signal(signal.SIGCONT)
    assert len(read(server.url, query=_many(server)).rows) == MANY


def test_a_server_hanging_at_the_end_is_a_fault(server: DatabaseServer) -> None:
    """When all rows were read, and the transaction is to be ended."""

    def freeze(_seconds: float) -> None:
        server.signal(signal.SIGSTOP)

    try:
        started = time.monotonic()
        with contextlib.suppress(SourceFault):  # MariaDB's driver may not ask any more
            asyncio.run(reader(server.url, WITHIN, freeze, query="SELECT 'a' AS client_id").read(None))
        assert time.monotonic() - started < WITHIN + LATE
    finally:
        server.signal(signal.SIGCONT)


def test_a_server_that_is_killed_is_a_fault(server: DatabaseServer) -> None:
    """In the midst of its answer, and while it is unreachable. When it returns, it is read."""
    fault(server.url, query=_many(server), pause=lambda _: server.kill())
    assert "refused" in fault(server.url, query="SELECT 1")
    server.start()
    assert len(read(server.url, query=_many(server)).rows) == MANY


@pytest.mark.parametrize("nonsense", [b"\xff\x00\x01" * 40, b"", None])
@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_something_else_on_that_port_is_a_fault(scheme: str, nonsense: bytes | None) -> None:
    """Nonsense, an end at once, and silence."""
    with _something_else(nonsense) as port:
        text = fault(f"{scheme}://reader:{PASSWORD}@127.0.0.1:{port}/ids", WITHIN)
    assert text


@contextlib.contextmanager
def _something_else(nonsense: bytes | None) -> Iterator[int]:
    """Start a listener that sends this text to each connection; None: nothing."""
    kept: list[socket.socket] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                kept.append(connection)
                if nonsense is not None:
                    with contextlib.suppress(OSError):
                        connection.sendall(nonsense)
                        connection.shutdown(socket.SHUT_WR)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    for connection in kept:
        connection.close()
