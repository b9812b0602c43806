"""`clients` and `check` with registry sources: what is in force and where it comes from, and every mistake at once."""

import json
import sqlite3
from pathlib import Path

import pytest

from tests.cli.in_process import notifier
from tests.cli.registry_files import ISS, OTHER, URI, made, origins, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a key."""
    return made(tmp_path)


def test_forbidden_values_of_a_list_have_no_effect(folder: Path) -> None:
    """Neither settings for a foreign client, nor a row that contradicts a file, have an effect."""
    with sqlite3.connect(folder / "own.db") as database:
        database.execute("CREATE TABLE apps (client_id, issuer, notifier, id_token_signed_response_alg, client_name)")
        database.execute(
            """INSERT INTO apps (client_id, notifier) VALUES ('shop', '{"typ": "JWT", "timeout": "4s"}')"""
        )
        database.execute("CREATE TABLE more (client_id, id_token_signed_response_alg, client_name)")
    sql = {"url": "sqlite:///own.db", "query": "SELECT * FROM apps"}
    more = {
        "name": "more",
        "empty": True,
        "issuers": [ISS],
        "sql": {"url": "sqlite:///own.db", "query": "SELECT * FROM more"},
    }
    sources = [{"name": "a", "file": "a.yaml"}, {"issuers": [ISS, OTHER], "sql": sql}, more]
    write(folder, {"sources": sources}, a=[{"client_id": "shop", "issuer": ISS, "backchannel_logout_uri": URI}])
    found = origins(folder)
    assert found["notifier.typ"] == ("logout+jwt", "default")
    assert found["notifier.timeout"] == ("4s", "sql")
    with sqlite3.connect(folder / "own.db") as database:
        database.execute("INSERT INTO more VALUES ('shop', 'HS256', 'Evil')")
    found = origins(folder)
    assert found["notifier.timeout"] == (5.0, "default")
    assert "client_name" not in found


def test_a_reduced_value_of_a_list_is_shown_with_the_reason(folder: Path) -> None:
    """The value in force. The value of a file that is in force instead is not reduced."""
    with sqlite3.connect(folder / "own.db") as database:
        database.execute("CREATE TABLE apps (client_id, backchannel_logout_uri, notifier)")
        row = ("shop", URI, '{"timeout": "598s", "max_concurrent": 10000}')
        database.execute("INSERT INTO apps VALUES (?, ?, ?)", row)
    own = {"name": "own", "issuer": ISS, "sql": {"url": "sqlite:///own.db", "query": "SELECT * FROM apps"}}
    write(folder, {"sources": [own]})
    found = origins(folder)
    assert found["notifier.timeout"] == ("10s", "own; a list may set at most 10s; it is reduced to this")
    assert found["notifier.max_concurrent"] == (32, "own; a list may set at most 32; it is reduced to this")
    done = notifier("check", "-c", "n.yaml", "--json", cwd=folder)
    warnings = [each for each in json.loads(done.stdout)["warnings"] if "reduced" in each["text"]]
    assert [(each["path"], each["count"]) for each in warnings] == [("client 'shop' of registry source own", 1)] * 2
    write(
        folder,
        {"sources": [own, {"name": "a", "file": "a.yaml"}]},
        a=[{"client_id": "shop", "issuer": ISS, "notifier": {"timeout": "20s"}}],
    )
    assert origins(folder)["notifier.timeout"] == ("20s", "a (a.yaml)")


def test_a_client_without_a_known_issuer_is_shown_with_the_reason(folder: Path) -> None:
    """A row of a database without an issuer."""
    with sqlite3.connect(folder / "own.db") as database:
        database.execute("CREATE TABLE apps (client_id, issuer)")
        database.execute("INSERT INTO apps VALUES ('shop', NULL)")
    sql = {"url": "sqlite:///own.db", "query": "SELECT * FROM apps"}
    write(folder, {"sources": [{"sql": sql, "issuers": [ISS, OTHER]}]})
    done = notifier("clients", "show", "-c", "n.yaml", "shop", cwd=folder)
    assert done.returncode == 1
    assert f"client 'shop' of registry source sql: names no issuer, and sql may speak for {ISS}, {OTHER}" in done.stderr


def test_control_characters_of_a_row_are_escaped(folder: Path) -> None:
    """Line breaks too: a row could forge warnings, or hide warnings about itself."""
    evil = "\x1b[2J\nwarning: made up\u202e"
    rows: list[dict[str, object]] = [
        {"client_id": "a", "issuer": f"https://evil{evil}"},
        {"client_id": "b", "notifier": {"retry": {evil: 1}}},
        {"client_id": f"c{evil[-1]}", "frontchannel_logout_uri": f"javascript:{evil}"},
        {"client_id": "d", "id_token_signed_response_alg": evil, "subject_type": evil},
        {"client_id": "e", "aliases": [evil], "notifier": {evil: 1, "audience": [evil], "preset": evil}},
        {"client_id": "f", "client_name": evil, "redirect_uris": [evil], "notifier": {"timeout": "4s"}},
    ]
    with sqlite3.connect(folder / "own.db") as database:
        names = [
            "client_id", "issuer", "aliases", "notifier", "frontchannel_logout_uri", "subject_type", "client_name",
            "redirect_uris", "id_token_signed_response_alg", "backchannel_logout_uri",
        ]  # fmt: skip
        database.execute(f"CREATE TABLE apps ({', '.join(names)})")
        for row in rows:
            given = {"backchannel_logout_uri": URI, **row}
            values = [json.dumps(each) if isinstance(each, dict | list) else each for each in map(given.get, names)]
            database.execute(f"INSERT INTO apps VALUES ({', '.join('?' * len(names))})", values)
    sql = {"url": "sqlite:///own.db", "query": "SELECT * FROM apps"}
    write(folder, {"sources": [{"name": "own", "issuer": ISS, "clients": ["?"], "sql": sql}]})
    for words in (
        ("check",),
        ("clients", "list"),
        ("clients", "show", "a"),
        ("clients", "show", "b"),
        ("clients", "show", "f"),
    ):
        done = notifier(*words[:2], "-c", "n.yaml", *words[2:], cwd=folder)
        shown = done.stdout + done.stderr
        assert [line for line in shown.splitlines() if not line.isprintable()] == []
        assert "\nwarning: made up" not in shown


def test_mistakes_of_settings_and_sources_are_listed_together(folder: Path) -> None:
    """Each with its place, also if no source has the client that it is about."""
    (folder / "cache").touch()
    url = "http://127.0.0.1:1/clients"
    sources = [{"name": "own", "http": {"url": url}}, {"file": "a.yaml"}]
    options = {"claims": {"x": float("inf")}}
    write(folder, {"sources": sources, "cache": "cache"}, a=[{"client_id": "a", "notifier": options}])
    done = notifier("check", "-c", "n.yaml", cwd=folder)
    assert done.returncode == 2
    for phrase in (
        "registry.cache: ",
        "a.yaml[0] (a).notifier.claims.x: has a number that JSON cannot write",
        f"registry source own: {url}: ",
    ):
        assert phrase in done.stderr


@pytest.mark.full
def test_forbidden_values_of_many_rows_are_grouped_by_kind(folder: Path) -> None:
    """`check` counts the clients of each warning and names the first, in a readable length."""
    with sqlite3.connect(folder / "own.db") as database:
        database.execute("CREATE TABLE apps (client_id, backchannel_logout_uri, notifier)")
        rows = ((f"c{nth}", URI, '{"typ": "JWT", "claims": {"a": 1}}') for nth in range(2000))
        database.executemany("INSERT INTO apps VALUES (?, ?, ?)", rows)
        bad = ((f"b{nth}", "/hook", None) for nth in range(2000))
        database.executemany("INSERT INTO apps VALUES (?, ?, ?)", bad)
    sql = {"url": "sqlite:///own.db", "query": "SELECT * FROM apps"}
    write(folder, {"sources": [{"name": "own", "issuer": ISS, "sql": sql}]})
    done = notifier("check", "-c", "n.yaml", "--json", cwd=folder)
    warnings = {each["text"].split(":")[0]: each for each in json.loads(done.stdout)["warnings"] if "count" in each}
    assert {name: each["count"] for name, each in warnings.items()} == {
        "notifier.typ": 2000,
        "notifier.claims": 2000,
        "backchannel_logout_uri must be an absolute URI that begins with https": 2000,
    }
    assert warnings["notifier.typ"]["path"] == "client 'c0' of registry source own"
    assert warnings["notifier.typ"]["first"][:2] == [f"client 'c{nth}' of registry source own" for nth in (0, 1)]
    assert len(warnings["notifier.typ"]["first"]) == 100
    assert "and 1,979 more" in warnings["notifier.typ"]["text"]
    assert max(map(len, (done.stdout, notifier("check", "-c", "n.yaml", cwd=folder).stdout))) < 40_000


def test_check_counts_the_clients_that_are_served(folder: Path) -> None:
    """It counts the rows left out, with reasons: a foreign client, a client beyond the limit, a wrong address."""
    with sqlite3.connect(folder / "own.db") as database:
        database.execute("CREATE TABLE apps (client_id, issuer, backchannel_logout_uri)")
        rows = [("shop", ISS, URI), ("shop", OTHER, URI), ("bank", None, URI), ("mail", ISS, "http://x.example.com")]
        database.executemany("INSERT INTO apps VALUES (?, ?, ?)", [*rows, *((f"b{n}", None, URI) for n in range(9))])
    sql = {"url": "sqlite:///own.db", "query": "SELECT * FROM apps"}
    source = {"issuer": ISS, "clients": ["shop", "mail"], "sql": sql}
    write(folder, {"sources": [source, {"file": "a.yaml"}]}, a=[{"client_id": "a", "issuer": ISS}])
    done = notifier("check", "-c", "n.yaml", "--json", cwd=folder)
    assert done.returncode == 0, done.stdout
    theirs, ours = json.loads(done.stdout)["registry"]
    assert (theirs["source"], theirs["clients"], theirs["left_out"]) == ("sql", 1, 12)
    assert sorted(each["count"] for each in theirs["why"]) == [1, 1, 10]
    assert (ours["clients"], ours["left_out"], ours["why"]) == (1, 0, [])
    lines = notifier("check", "-c", "n.yaml", cwd=folder).stdout.splitlines()
    assert len([line for line in lines if "left out" in line]) == 1
    [line] = [line for line in lines if line.startswith("registry source sql:")]
    assert line.startswith("registry source sql: 1 client (12 left out: ")
    assert "registry.sources (10)" in line


def test_list_cannot_add_or_change_a_follower(folder: Path) -> None:
    """Its `follows` is ignored, and its row of a follower fails the check. The leader's values are shown as such."""
    trap = "https://trap.example.com/out"
    with sqlite3.connect(folder / "own.db") as database:
        database.execute("CREATE TABLE apps (client_id, backchannel_logout_uri, subject_type, notifier)")
        rows = [
            ("shop", URI, "pairwise", '{"preset": "pac4j", "headers": {"A": "b"}}'),
            ("trap", trap, "public", '{"follows": "shop"}'),
        ]
        database.executemany("INSERT INTO apps VALUES (?, ?, ?, ?)", rows)
    sql = {"url": "sqlite:///own.db", "query": "SELECT * FROM apps"}
    us = {
        "client_id": "us", "issuer": ISS, "backchannel_logout_uri": f"{URI}/us", "subject_type": "public",
        "notifier": {"follows": "shop", "timeout": "4s"},
    }  # fmt: skip
    write(folder, {"sources": [{"issuer": ISS, "sql": sql}, {"name": "a", "file": "a.yaml"}]}, a=[us])
    checked = notifier("check", "-c", "n.yaml", cwd=folder)
    assert (checked.returncode, "notifier.follows: only a file may set it; it is ignored" in checked.stdout) == (
        0,
        True,
    )
    [shown] = json.loads(notifier("clients", "show", "-c", "n.yaml", "--json", "us", cwd=folder).stdout)
    found = {each["member"]: (each["value"], each["from"]) for each in shown["values"]}
    followed = "shop (followed)"
    assert found["subject_type"] == ("pairwise", followed)
    assert found["notifier.preset"] == ("pac4j", followed)
    assert found["notifier.subject"] == ("sid", "preset pac4j")
    assert found["notifier.timeout"] == ("4s", "a (a.yaml)")
    assert found["notifier.follows"] == ("shop", "a (a.yaml)")
    assert (found["backchannel_logout_uri"], "notifier.headers" in found) == ((f"{URI}/us", "a (a.yaml)"), False)
    listed = notifier("clients", "list", "-c", "n.yaml", "--json", cwd=folder)
    assert [(each["client_id"], each["follows"]) for each in json.loads(listed.stdout)["clients"]] == [
        ("shop", None), ("trap", None), ("us", "shop")
    ]  # fmt: skip
    assert "(follows shop)" in notifier("clients", "list", "-c", "n.yaml", cwd=folder).stdout
    with sqlite3.connect(folder / "own.db") as database:
        database.execute("INSERT INTO apps VALUES ('us', ?, 'public', NULL)", (trap,))
    checked = notifier("check", "-c", "n.yaml", cwd=folder)
    assert (checked.returncode, "client 'us' of registry source sql: 'us' follows 'shop'" in checked.stderr) == (
        2,
        True,
    )
    assert trap not in notifier("clients", "show", "-c", "n.yaml", "us", cwd=folder).stdout


def test_follower_without_a_leader_is_a_warning(folder: Path) -> None:
    """Its deliveries wait, so the configuration is valid."""
    us = {"client_id": "us", "issuer": ISS, "backchannel_logout_uri": URI, "notifier": {"follows": "shop"}}
    write(folder, {"file": "a.yaml"}, a=[us])
    checked = notifier("check", "-c", "n.yaml", cwd=folder)
    assert (checked.returncode, "'us' follows 'shop', which no source has" in checked.stdout) == (0, True)
    examined = notifier("doctor", "-c", "n.yaml", "--offline", cwd=folder)
    assert "its deliveries become dead letters after registry.grace" in examined.stdout


def test_check_advises_a_cache_for_lists(folder: Path) -> None:
    """A worker that starts while a list cannot be read, or lacks clients, needs the last good answer."""
    sql = {"sql": {"url": "sqlite:///clients.db", "query": "SELECT client_id, backchannel_logout_uri FROM c"}}
    with sqlite3.connect(folder / "clients.db") as database:
        database.execute(
            "CREATE TABLE c AS SELECT 'shop' AS client_id, 'https://a.example/out' AS backchannel_logout_uri"
        )
    for cache, is_advised in (({}, True), ({"cache": "cache"}, False)):
        write(folder, {"sources": [{**sql, "issuer": ISS}], **cache})
        warnings = json.loads(notifier("check", "-c", "n.yaml", "--json", cwd=folder).stdout)["warnings"]
        assert ("registry.cache" in {each["path"] for each in warnings}) is is_advised
