"""The tables of Duende IdentityServer and IdentityServer4, read as clients."""

import asyncio
import re
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from notifier.configuration.clients.client_rows import SourceAnswer
from notifier.features.registries.readers import build_reader
from notifier.model.errors import SourceFault
from tests.features.registries.duende_tables import VERSIONS, WITHOUT_ALGORITHMS, filled, recorded, renamed, snake
from tests.settings.whole_settings import SOURCE_SETTINGS

CLIENTS: list[dict[str, Any]] = [
    {
        "ClientId": "shop",
        "BackChannelLogoutUri": "https://shop.example.com/bff/backchannel",
        "properties": {
            "notifier:timeout": "3s",
            "Notifier:max_concurrent": "5",
            "notifier:paused": "False",
            "notifier:retry:base": "2s",
            "team": "a",
        },
    },
    {
        "ClientId": "mail",
        "BackChannelLogoutUri": "https://mail.example.com/bcl",
        "BackChannelLogoutSessionRequired": False,
        "FrontChannelLogoutUri": "https://mail.example.com/fcl",
        "FrontChannelLogoutSessionRequired": False,
        "redirects": ["https://mail.example.com/signin-oidc", "com.example.mail:/signin", "http://localhost:4200/"],
    },
    {
        "ClientId": "wiki",
        "FrontChannelLogoutUri": "https://wiki.example.com/fcl",
        "redirects": ["https://*.example.com/in", "https://wiki.example.org/in"],
    },
    {
        "ClientId": "gone",
        "Enabled": False,
        "BackChannelLogoutUri": "https://gone.example.com/bcl",
        "redirects": ["https://gone.example.com/in"],
    },
    {"ClientId": "fed", "ProtocolType": "wsfed", "FrontChannelLogoutUri": "https://fed.example.com/signout"},
    {"ClientId": "empty", "BackChannelLogoutUri": ""},
    {"ClientId": "none", "PairWiseSubjectSalt": "salt"},
    *(
        {
            "ClientId": name,
            "BackChannelLogoutUri": f"https://{name}.example.com/bcl",
            "AllowedIdentityTokenSigningAlgorithms": algorithms,
        }
        for name, algorithms in {"es": "HS256, ES256,RS256", "ps": "PS256", "blank": ""}.items()
    ),
]


def _notified(name: str) -> dict[str, Any]:
    return {"backchannel_logout_uri": f"https://{name}.example.com/bcl", "backchannel_logout_session_required": True}


EXPECTED: dict[str, dict[str, Any]] = {
    "shop": {
        "backchannel_logout_uri": "https://shop.example.com/bff/backchannel",
        "backchannel_logout_session_required": True,
        "notifier": {"timeout": "3s", "max_concurrent": 5, "paused": False, "retry": {"base": "2s"}},
    },
    "mail": {
        "backchannel_logout_uri": "https://mail.example.com/bcl",
        "backchannel_logout_session_required": False,
        "frontchannel_logout_uri": "https://mail.example.com/fcl",
        "frontchannel_logout_session_required": False,
        "redirect_uris": ["http://localhost:4200/", "https://mail.example.com/signin-oidc"],
    },
    "wiki": {
        "frontchannel_logout_uri": "https://wiki.example.com/fcl",
        "frontchannel_logout_session_required": True,
        "redirect_uris": ["https://wiki.example.org/in", "https://wiki.example.com"],
    },
    "gone": {},
    "empty": {},
    "none": {},
    "es": {**_notified("es"), "id_token_signed_response_alg": ["ES256", "RS256"]},
    "ps": {**_notified("ps"), "id_token_signed_response_alg": "PS256"},
    "blank": _notified("blank"),
}


def expected(version: str) -> dict[str, dict[str, Any]]:
    """Return the expected rows of a version. Two versions have no column for algorithms."""
    wanted = {name: {"client_id": name, **row} for name, row in EXPECTED.items()}
    if version in WITHOUT_ALGORITHMS:
        del wanted["es"]["id_token_signed_response_alg"], wanted["ps"]["id_token_signed_response_alg"]
    return wanted


def read(url: str, last: SourceAnswer | None = None, *, timeout: str = "30s", **settings: Any) -> SourceAnswer:
    """One reading."""
    given = {"preset": "duende", **settings} if "query" not in settings else settings
    source = SOURCE_SETTINGS.model_validate({"sql": {"url": url, **given}, "timeout": timeout})
    return asyncio.run(build_reader(source).read(last))


def by_name(answer: SourceAnswer) -> Mapping[str, Any]:
    """The rows by client."""
    assert not answer.faults
    return {str(row["client_id"]): row for row in answer.rows}


def sqlite_with(path: Path, *sql: str, clients: list[dict[str, Any]] | None = None) -> str:
    """Create a database with these tables and clients in each, and return its URL."""
    with sqlite3.connect(path) as database:
        for each in sql:
            for statement in filled(each, CLIENTS if clients is None else clients):
                database.execute(statement)
    database.close()
    return f"sqlite:///{path}"


OTHER_NAMES = {name: f"ids_{name}" for name in ("Clients", "ClientProperties", "ClientRedirectUris")}


def _ids(name: str) -> str:
    return OTHER_NAMES.get(name, name)


@pytest.mark.parametrize(
    ("version", "rename", "settings"),
    [
        *((version, str, {}) for version in VERSIONS),
        ("is-7.4.8", str.lower, {}),
        ("is-7.4.8", snake, {}),
        ("is-7.4.8", _ids, {"tables": OTHER_NAMES}),
        ("is-7.4.8", lambda name: snake(_ids(name)), {"tables": OTHER_NAMES}),
        ("is-7.4.8", str.upper, {"schema": "main"}),
    ],
)
def test_clients_of_each_version_are_read(
    tmp_path: Path, version: str, rename: Callable[[str], str], settings: dict[str, Any]
) -> None:
    """Whatever the tables and columns are called."""
    url = sqlite_with(tmp_path / "ids.db", renamed(recorded(version, "sqlite"), rename))
    assert by_name(read(url, **settings)) == expected(version)


def test_views_do_as_well_and_may_leave_out_what_is_not_needed(tmp_path: Path) -> None:
    """A view may filter and hide."""
    url = sqlite_with(tmp_path / "ids.db", recorded("is-8.0.3", "sqlite"))
    with sqlite3.connect(tmp_path / "ids.db") as database:
        database.execute(
            'CREATE VIEW "notified" AS SELECT "ClientId", "BackChannelLogoutUri", \'PAIRWISE\' AS "SubjectType" '
            'FROM "Clients" WHERE "Enabled" AND "BackChannelLogoutUri" <> \'\''
        )
    tables = {"Clients": "notified", "ClientProperties": "", "ClientRedirectUris": ""}
    with pytest.raises(
        SourceFault, match=r"table notified has no column Id and no Enabled .* says so by sql\.columns: some"
    ):
        read(url, tables=tables)
    rows = by_name(read(url, tables=tables, columns="some"))
    assert rows.keys() == {"shop", "mail", "es", "ps", "blank"}
    assert rows["mail"] == {
        "client_id": "mail",
        "backchannel_logout_uri": "https://mail.example.com/bcl",
        "backchannel_logout_session_required": True,
        "subject_type": "pairwise",
    }


@pytest.mark.parametrize("column", [
    "ClientId", "Id", "Enabled", "ProtocolType", "BackChannelLogoutUri", "BackChannelLogoutSessionRequired",
    "FrontChannelLogoutUri", "FrontChannelLogoutSessionRequired", "ClientName",
])  # fmt: skip
def test_a_column_that_is_missing_fails_the_reading(tmp_path: Path, column: str) -> None:
    """Without `Enabled` disabled clients would be notified, without `ProtocolType` clients of other protocols."""
    clients, rest = recorded("is-7.4.8", "sqlite").split(";", 1)
    other = clients.replace(f'"{column}"', f'"{column}Old"')
    url = sqlite_with(tmp_path / "ids.db", f"{other};{rest}", clients=[])
    with pytest.raises(SourceFault, match=rf"^table Clients has no column {column}; is it the right table\?"):
        read(url)


@pytest.mark.parametrize(
    ("table", "columns"),
    [("ClientProperties", ("ClientId", "Key", "Value")), ("ClientRedirectUris", ("ClientId", "RedirectUri"))],
)
def test_a_table_that_is_missing_fails_the_reading(tmp_path: Path, table: str, columns: tuple[str, ...]) -> None:
    """Settings of clients would be gone silently. The fault names the ways out, which work."""
    plain = recorded("is-7.4.8", "sqlite")
    url = sqlite_with(tmp_path / "gone.db", renamed(plain, lambda name: f"{name}Old" if name == table else name))
    with pytest.raises(SourceFault, match=rf"no table like {table} .*{table}: \"\" if nothing is to be read of it"):
        read(url)
    assert by_name(read(url, tables={table: f"{table}Old"})) == expected("is-7.4.8")
    assert len(by_name(read(url, tables={table: ""}))) == len(by_name(read(url, columns="some"))) == len(EXPECTED)

    for column in columns:
        first, *rest = plain.split(";")
        rest = [each.replace(f'"{column}"', f'"{column}Old"') if f'"{table}"' in each else each for each in rest]
        url = sqlite_with(tmp_path / f"{column}.db", ";".join([first, *rest]), clients=[])
        with pytest.raises(SourceFault, match=f"table {table} has no column {column}"):
            read(url, columns="some")


def test_a_row_that_did_not_change_stays_the_same_object(tmp_path: Path) -> None:
    """If none changed, the last answer is the answer, in whatever order they come."""
    path = tmp_path / "ids.db"
    url = sqlite_with(path, recorded("is-7.4.8", "sqlite"))
    first = read(url)
    assert read(url, first) is first
    with sqlite3.connect(path) as database:
        database.execute('UPDATE "Clients" SET "Id" = 1000 - "Id", "LastAccessed" = \'2030-01-01\'')
        database.execute('UPDATE "ClientProperties" SET "ClientId" = 1000 - "ClientId"')
        database.execute('UPDATE "ClientRedirectUris" SET "ClientId" = 1000 - "ClientId", "Id" = 1000 - "Id"')
    assert read(url, first) is first
    with sqlite3.connect(path) as database:
        database.execute('UPDATE "ClientProperties" SET "Value" = \'4s\' WHERE "Key" = \'notifier:timeout\'')
    before, after = by_name(first), by_name(read(url, first))
    assert {name for name in before if after[name] is not before[name]} == {"shop"}


def test_an_unreadable_client_is_a_separate_fault(tmp_path: Path) -> None:
    """The others are read."""
    uri = "https://a.example.com/bcl"
    clients: list[dict[str, Any]] = [
        {"ClientId": "a", "BackChannelLogoutUri": uri},
        {"ClientId": "b", "BackChannelLogoutUri": "/bcl"},
        {"ClientId": "d", "properties": {"notifier:retry": "2s", "notifier:retry:base": "2s"}},
        {"ClientId": "", "BackChannelLogoutUri": uri},
        {"ClientId": "f", "BackChannelLogoutUri": uri, "Enabled": "maybe"},
    ]
    answer = read(sqlite_with(tmp_path / "ids.db", recorded("is-7.4.8", "sqlite"), clients=clients))
    assert [row["client_id"] for row in answer.rows] == ["a"]
    faults = [str(fault) for fault in answer.faults]
    assert faults[0].startswith("b: backchannel_logout_uri must be an absolute URI")
    assert faults[1] == "d: property notifier:retry:base is there twice, or below a property with a value"
    assert faults[2] == "row 4: has no client_id"
    assert faults[3] == "f: Enabled must be true or false"


def test_an_ambiguous_table_must_be_named(tmp_path: Path) -> None:
    """Both spellings, none, or another product's table of that name."""
    plain = recorded("is-7.4.8", "sqlite")
    both = sqlite_with(tmp_path / "both.db", plain, renamed(plain, lambda name: f"{snake(name)}_"))
    with pytest.raises(
        SourceFault, match=r"there are the tables Clients and clients_; select one of them by sql\.tables\.Clients"
    ):
        read(both)
    with pytest.raises(SourceFault, match=r"ClientProperties and client_properties_.*sql\.tables\.ClientProperties"):
        read(both, tables={"Clients": "clients_"})
    with pytest.raises(
        SourceFault, match=r"ClientRedirectUris and client_redirect_uris_.*sql\.tables\.ClientRedirectUris"
    ):
        read(both, tables={"Clients": "clients_", "ClientProperties": ""})
    named = {name: name for name in OTHER_NAMES}
    assert by_name(read(both, tables=named)) == expected("is-7.4.8")

    other = sqlite_with(tmp_path / "other.db", renamed(plain, _ids))
    with pytest.raises(
        SourceFault, match=r"no table like Clients in the schema main .*ids_ClientProperties, .*ids_Clients"
    ):
        read(other)
    with pytest.raises(SourceFault, match="no table like Props"):
        read(other, tables={"Clients": "ids_Clients", "ClientProperties": "Props"})

    with pytest.raises(SourceFault, match="no table like Uris"):
        read(other, tables={**OTHER_NAMES, "ClientRedirectUris": "Uris"})

    shop = sqlite_with(tmp_path / "shop.db", re.sub(r'"BackChannelLogoutUri"', '"Homepage"', plain), clients=[])
    with pytest.raises(SourceFault, match="table Clients has no column BackChannelLogoutUri"):
        read(shop)
