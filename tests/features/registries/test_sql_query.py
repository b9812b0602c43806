"""A query of the operator's own, a file of SQLite that is not as it should be, and what the settings refuse."""

import asyncio
import sqlite3
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from pydantic import ValidationError

from notifier.features.registries.list_settings import SqlSettings
from notifier.features.registries.sql import COLUMNS, SqlReader
from notifier.model.errors import SourceFault
from notifier.network.databases.sql_columns import ROWS_PER_TURN, to_algorithms, to_text
from notifier.network.http.json_parts import Bounds
from notifier.settings.clients import ClientMetadata
from tests.features.registries.test_sql_duende import read
from tests.settings.whole_settings import SOURCE_SETTINGS


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A database with nothing in it."""
    sqlite3.connect(tmp_path / "own.db").close()
    return f"sqlite:///{tmp_path}/own.db"


def test_each_column_is_client_metadata() -> None:
    """What is new in client metadata can be had from a query too."""
    assert COLUMNS.keys() >= ClientMetadata.model_fields.keys()


@pytest.mark.parametrize("rows", [250, 251, 5000])
def test_the_event_loop_gets_its_turn_after_many_rows(url: str, rows: int) -> None:
    """A pause after each row takes longer than a reading may."""
    pauses: list[float] = []
    numbers = f"WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {rows})"
    settings = SqlSettings(url=url, query=f"{numbers} SELECT 'client-' || i AS client_id FROM n")
    assert len(asyncio.run(SqlReader(settings, 30.0, pause=pauses.append).read(None)).rows) == rows
    assert len(pauses) == -(-rows // ROWS_PER_TURN)


@pytest.mark.parametrize(
    ("column", "value", "why"),
    [
        ("notifier", "'{\"retry_statuses\": [' || printf('%.*c', 300000, '1') || ']}'", "is longer than 256 KiB"),
        ("aliases", "'[' || replace(printf('%.*c', 90000, 'x'), 'x', '\"a\",') || '\"b\"]'", "is longer than 256 KiB"),
        ("client_name", "zeroblob(300000)", "is longer than 256 KiB"),
        (
            "notifier",
            "'{\"retry\": ' || printf('%.*c', 32, '[') || printf('%.*c', 32, ']') || '}'",
            "is nested more than",
        ),
    ],
)
def test_a_value_is_bounded_before_it_is_read(url: str, column: str, value: str, why: str) -> None:
    """As in an answer over HTTP: to decode 60 MiB of it would hold up the process. It costs its client alone."""
    answer = read(url, query=f"SELECT 'a' AS client_id, {value} AS {column} UNION ALL SELECT 'b', NULL")
    assert [row["client_id"] for row in answer.rows] == ["b"]
    [fault] = answer.faults
    assert (fault.path, fault.text.startswith(f"{column} {why}")) == ("a", True)


def test_a_value_may_be_nested_32_deep(url: str) -> None:
    """As in an answer over HTTP."""
    value = "'{\"retry\": ' || printf('%.*c', 31, '[') || printf('%.*c', 31, ']') || '}'"
    assert read(url, query=f"SELECT 'a' AS client_id, {value} AS notifier").faults == ()


def test_all_rows_of_a_reading_are_bounded(url: str) -> None:
    """Their characters, and how many values they have."""
    numbers = "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 500)"
    for select in ("'c' || i AS client_id, printf('%.*c', 4000, 'x') AS client_name", "'c' || i AS client_id"):
        settings = SqlSettings(url=url, query=f"{numbers} SELECT {select} FROM n")
        for most, right in ((4 * 1024 * 1024, True), (4 * 1024, False)):
            reader = SqlReader(settings, 30.0, bounds=Bounds(answer=most))
            if right:
                assert len(asyncio.run(reader.read(None)).rows) == 500
            else:
                with pytest.raises(SourceFault, match="its rows are more than 4 KiB"):
                    asyncio.run(reader.read(None))


@pytest.mark.parametrize("value", ["1", "'1'", "'t'", "'true'", "'Yes'", "1.0", "x'01'"])
@pytest.mark.parametrize("name", ["backchannel_logout_session_required", '"BackChannel_Logout_SessionRequired"'])
def test_booleans_are_read_as_databases_write_them(url: str, value: str, name: str) -> None:
    """And names without regard to case and `_`."""
    [row] = read(url, query=f"SELECT 'a' AS \"Client_Id\", {value} AS {name};").rows
    assert row == {"client_id": "a", "backchannel_logout_session_required": True}


def test_empty_and_null_are_absent(url: str) -> None:
    """In each column."""
    empty = ", ".join(f"'' AS {name}" for name in COLUMNS if name != "client_id")
    null = ", ".join(f"NULL AS {name}" for name in COLUMNS if name != "client_id")
    answer = read(url, query=f"SELECT 'a' AS client_id, {empty} UNION ALL SELECT 'b', {null}")
    assert answer.rows == [{"client_id": "a"}, {"client_id": "b"}]


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        (["ES256", "RS256"], ["ES256", "RS256"]),  # an array of PostgreSQL
        ('["ES256", "RS256"]', ["ES256", "RS256"]),
        ('["ES256"]', "ES256"),
        ("RS256 ES256", ["RS256", "ES256"]),
        ([], None),
    ],
)
def test_algorithms_are_read_as_databases_write_them(value: object, meant: object) -> None:
    """One, or a list in whatever form."""
    assert to_algorithms(value) == meant


def test_a_client_id_may_be_a_number() -> None:
    """Drivers give keys of the type NUMERIC as Decimal."""
    assert (to_text(12), to_text(Decimal(12)), to_text(Decimal("1E+3"))) == ("12", "12", "1000")
    for wrong in (Decimal("1.5"), Decimal("NaN"), True):
        with pytest.raises(ValueError, match="must be a text"):
            to_text(wrong)


def test_rows_without_a_client_id_are_named_by_their_number(url: str) -> None:
    """As those are that cannot be read for another reason."""
    answer = read(url, query="SELECT 'a' AS client_id UNION ALL SELECT NULL UNION ALL SELECT 1.5")
    assert [str(fault) for fault in answer.faults] == [
        "row 2: has no client_id",
        "row 3: client_id must be a text, not a number",
    ]


@pytest.mark.parametrize(
    ("columns", "fault"),
    [
        ("backchannel_logout_uri", "backchannel_logout_uri must be an absolute URI"),
        ("backchannel_logout_session_required", "backchannel_logout_session_required must be true or false"),
        ("notifier", "notifier is not JSON"),
        ("subject_type, '[1, {}]' AS aliases", "aliases must be a text, not an object"),
        ("subject_type, '[1]' AS notifier", "notifier must be a JSON object, not a list"),
        ("subject_type, 1.5 AS issuer", "issuer must be a list of texts as JSON, not a number"),
        ("subject_type, x'ff' AS backchannel_logout_uri", "backchannel_logout_uri is not UTF-8"),
    ],
)
def test_an_invalid_row_is_a_fault_of_its_client(url: str, columns: str, fault: str) -> None:
    """The others are read."""
    count = columns.count(" AS ")
    query = f"SELECT 'bad' AS client_id, 'maybe' AS {columns} UNION ALL SELECT 'good', NULL{', NULL' * count}"
    answer = read(url, query=query)
    assert answer.rows == [{"client_id": "good"}]
    assert [each.path for each in answer.faults] == ["bad"]
    assert answer.faults[0].text.startswith(fault)


def test_names_and_redirect_uris_are_read(url: str) -> None:
    """The list may be JSON, as in a column of Hydra's, or one text."""
    query = """SELECT 'shop' AS client_id, 'Shop' AS ClientName, '["https://a.example/cb"]' AS redirect_uris
        UNION ALL SELECT 'till', 'Till', 'https://b.example/cb'"""
    assert tuple(read(url, query=query).rows) == (
        {"client_id": "shop", "client_name": "Shop", "redirect_uris": ["https://a.example/cb"]},
        {"client_id": "till", "client_name": "Till", "redirect_uris": ["https://b.example/cb"]},
    )


def test_settings_of_encryption_are_read(url: str) -> None:
    """Keys are kept for clients that ask for it, and whatever stands there is no mistake of the others."""
    columns = "client_id, Id_Token_Encrypted_Response_Alg, id_token_encrypted_response_enc, jwks, JwksUri"
    query = f"""WITH c ({columns}) AS (VALUES
        ('a', 'RSA-OAEP', 'A256GCM', NULL, 'https://a.example/jwks'), ('b', 'ECDH-ES', '', '{{"keys": []}}', NULL),
        ('c', NULL, NULL, 'null', NULL), ('d', 'ECDH-ES', NULL, '[', NULL)) SELECT * FROM c"""
    names = ("id_token_encrypted_response_alg", "id_token_encrypted_response_enc", "jwks", "jwks_uri")
    found = {row["client_id"]: tuple(row.get(name) for name in names) for row in read(url, query=query).rows}
    assert found == {
        "a": ("RSA-OAEP", "A256GCM", None, "https://a.example/jwks"),
        "b": ("ECDH-ES", None, {"keys": []}, None),
        "c": (None, None, None, None),
        "d": ("ECDH-ES", None, {}, None),
    }


def test_rows_of_one_client_must_agree(url: str) -> None:
    """A join may repeat a row. Rows that differ are not used, unless issuers distinguish them."""
    rows = [("a", "https://a.example/1"), ("b", "https://a.example/1"), ("a", "https://a.example/1")]
    rows += [("c", "https://a.example/1"), ("c", "https://a.example/2"), ("c", "https://a.example/1")]
    values = " UNION ALL ".join(
        f"SELECT '{name}' AS client_id, '{uri}' AS backchannel_logout_uri" for name, uri in rows
    )
    answer = read(url, query=values)
    assert [row["client_id"] for row in answer.rows] == ["a", "b"]
    assert [str(fault) for fault in answer.faults] == [
        "c: is there twice, with different values; give each row its issuer"
    ]
    again = read(url, answer, query=values)
    assert again is answer
    values = " UNION ALL ".join(f"SELECT 'c' AS client_id, 'https://i.example/{n}' AS issuer" for n in range(3))
    assert len(read(url, query=values).rows) == 3


LATE = "not read within 0.3 s"


@pytest.mark.parametrize(
    ("query", "text"),
    [
        (
            "SELECT 1 AS client_id, 2 AS Secret, 3 AS uri",
            "columns of query: there is no client metadata 'Secret'; there is no client metadata 'uri'.",
        ),
        ("SELECT 1 AS backchannel_logout_uri", "columns of query: client_id is missing. Known are client_id, issuer"),
        ("SELECT 1 AS client_id, 2 AS ClientId", "columns of query: client_id is there twice"),
        ("SELEC 1", 'near "SELEC": syntax error'),
        ("CREATE TABLE t (client_id)", "attempt to write a readonly database; query must only read"),
        ("PRAGMA query_only = OFF", "query must be a SELECT: it gives no rows"),
        (
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT MAX(i) AS client_id FROM n",
            f"{LATE} (the source's `timeout`)",
        ),
    ],
)
def test_a_query_that_gives_no_clients_is_a_fault_of_the_source(url: str, query: str, text: str) -> None:
    """It names the necessary change."""
    with pytest.raises(SourceFault) as caught:
        read(url, query=query, timeout="300ms" if text.startswith(LATE) else "30s")
    assert str(caught.value).startswith(text)


def test_a_file_that_is_missing_is_not_made(tmp_path: Path) -> None:
    """Nor is another file taken for a database."""
    with pytest.raises(SourceFault, match="unable to open database file; check the path"):
        read(f"sqlite:///{tmp_path}/none.db")
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "text.db").write_text("clients: []\n" * 1000)
    with pytest.raises(SourceFault, match="file is not a database"):
        read(f"sqlite:///{tmp_path}/text.db")


def test_a_file_with_an_odd_name_and_a_writer_is_read(tmp_path: Path) -> None:
    """Also while somebody writes to it, as databases in WAL mode are."""
    path = tmp_path / "a b?c#d%25.db"
    with sqlite3.connect(path, isolation_level=None) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("CREATE TABLE t (client_id)")
        writer.execute("INSERT INTO t VALUES ('a')")
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO t VALUES ('b')")
        found = read(f"sqlite:///{quote(str(path))}", query="SELECT client_id FROM t")
    writer.close()
    assert found.rows == [{"client_id": "a"}]


@pytest.mark.parametrize(
    ("scheme", "extra"), [("postgres", "postgresql"), ("mysql+pymysql", "mysql"), ("mssql", "mssql")]
)
def test_a_missing_driver_is_named(scheme: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the extra to install."""
    for module in ("psycopg", "pymysql", "pymssql"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        SourceFault, match=rf"the driver for .* is not installed: pip install 'logout-notifier\[{extra}\]'"
    ):
        read(f"{scheme}://a:b@127.0.0.1/x")


@pytest.mark.parametrize("scheme", ["postgresql+nodriver", "mysql+asyncmy"])
def test_an_unsupported_driver_is_refused(scheme: str) -> None:
    """No extra brings it."""
    with pytest.raises(SourceFault, match=r"does not use; write (postgre|my)sql://"):
        read(f"{scheme}://a:b@127.0.0.1/x")


SECRET = "hunter2-of-the-reader"


@pytest.mark.parametrize(
    ("sql", "texts"),
    [
        ({}, ["needs url or url_file; needs preset or query"]),
        ({"url": "sqlite:////x", "url_file": "/etc/hosts", "preset": "duende", "query": "q"},
         ["needs url or url_file; it has both; needs preset or query; it has both"]),
        ({"url": "sqlite:////x", "query": "q", "schema": "a", "tables": {}, "columns": "some"},
         ["tables is for a preset; name the tables in query; columns is for a preset"]),
        ({"url": f"Server=db;User Id=a;Password={SECRET}", "preset": "keycloak"},
         ["must be a URL that begins with", "Input should be 'duende'"]),
        ({"url": f"jdbc:postgresql://a:{SECRET}@db/x", "preset": "duende"}, ["must be a URL that begins with"]),
        ({"url": f"oracle://a:{SECRET}@db/x", "preset": "duende"}, ["must be a URL that begins with postgresql://"]),
        ({"url": f"postgresql://a:/{SECRET}@db/x", "preset": "duende"}, ["write them as %40, %2F"]),
        ({"url": f"postgresql://a:{SECRET}@db:x/x", "preset": "duende"}, ["has a port that is not a number"]),
        ({"url": f"postgresql://a:{SECRET}@db,db2/x", "preset": "duende"}, ["names several hosts"]),
        ({"url": "sqlite://", "preset": "duende"}, ["must name a file"]),
        ({"url": "sqlite:////x", "preset": "duende", "tables": {"clientz": "x"}}, ["sql.tables.clientz"]),
    ],
)  # fmt: skip
def test_contradicting_settings_are_refused(sql: dict[str, Any], texts: list[str]) -> None:
    """Each with what to do, and none with the password."""
    with pytest.raises(ValidationError) as caught:
        SOURCE_SETTINGS.model_validate({"sql": sql})
    assert all(text in str(caught.value) for text in texts), caught.value
    assert SECRET not in str(caught.value)


def test_a_relative_file_starts_at_the_folder_of_the_configuration() -> None:
    """As each file that a setting names."""
    given = {"sql": {"url": "sqlite:///ids.db", "preset": "duende"}}
    source = SOURCE_SETTINGS.model_validate(given, context={"base": Path("/etc/notifier")})
    url = source.of_kind(SqlSettings).url
    assert url is not None
    assert url.get_secret_value() == "sqlite:////etc/notifier/ids.db"
