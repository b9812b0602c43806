"""An empty first answer of a source of clients: perhaps we may not see them, and no logout for all must be skipped."""

import sqlite3
from pathlib import Path

import pytest

from tests.system.clients import Clients
from tests.system.command import notifier_at
from tests.system.site import ISSUER, OTHER, Site
from tests.system.worker_process import worker

QUERY = (
    """SELECT client_id, issuer, uri AS backchannel_logout_uri, 'ES256' AS id_token_signed_response_alg FROM clients"""
)
ALL = {"iss": ISSUER, "sub": "alice", "clients": "*"}


def database(folder: Path) -> sqlite3.Connection:
    """A table of clients, as yet without a row."""
    connection = sqlite3.connect(folder / "clients.db")
    connection.execute("CREATE TABLE clients (client_id TEXT, issuer TEXT, uri TEXT)")
    connection.commit()
    return connection


def add(connection: sqlite3.Connection, *row: str) -> None:
    """One client more."""
    connection.execute("INSERT INTO clients VALUES (?, ?, ?)", row)
    connection.commit()


def site_of(folder: Path, **more: object) -> Site:
    """Its clients come from the database alone."""
    site = Site(folder, f"sqlite:{folder / 'q.db'}")
    source = {
        "name": "db",
        "issuers": [ISSUER, OTHER],
        "every": "0.3s",
        "sql": {"url": "sqlite:///clients.db", "query": QUERY},
    }
    site.config["registry"] = {"sources": [source | more]}
    site.write()
    return site


async def test_empty_first_answer_is_not_trusted(tmp_path: Path) -> None:
    """The worker waits for a client and reports the reason, as does `check`. Then a logout for all waits for its
    issuer's.
    """
    rows = database(tmp_path)
    async with Clients() as clients:
        site = site_of(tmp_path)
        checked = await notifier_at(site, "check")
        assert checked.returncode != 0
        assert "empty: true" in checked.stdout + checked.stderr
        async with worker(site, ready=False) as running:
            await running.until_logged("registry_source_failed", lambda line: "empty: true" in line["reason"])
            status, problem = await running.get("/readyz")
            assert (status, "has no client" in problem) == (503, True)
            add(rows, "mail", OTHER, clients.url("mail"))
            await running.until_ready()
            assert (await running.post({**ALL, "sid": "s1"}))[0] == 202
            reported = await running.until_logged("deferral", lambda line: "has listed no client" in line["error"])
            assert reported["level"] == "warning"
            add(rows, "shop", ISSUER, clients.url("shop"))
            await clients.until_notified("shop", ["s1"])
            assert await running.stop() == 0
        assert clients.notified("mail") == []


@pytest.mark.full
async def test_logout_for_all_without_known_clients_dead_letters(tmp_path: Path) -> None:
    """Without clients it is not a success. Its replay notifies the clients known by then."""
    rows = database(tmp_path)
    async with Clients() as clients:
        add(rows, "mail", OTHER, clients.url("mail"))
        site = site_of(tmp_path)
        site.config["registry"]["grace"] = "1s"
        site.write()
        async with worker(site) as running:
            assert (await running.post({**ALL, "sid": "s1"}))[0] == 202
            dead_letter = await running.until_logged("dead_letter")
            assert (dead_letter["reason"], "empty: true" in dead_letter["error"]) == ("unknown_client", True)
            add(rows, "shop", ISSUER, clients.url("shop"))
            await running.until_logged("registry_refreshed", lambda line: line["clients"] == 2)
            assert (await notifier_at(site, "dead-letters", "replay", "--all")).returncode == 0
            await clients.until_notified("shop", ["s1"])
            assert await running.stop() == 0


@pytest.mark.full
async def test_first_answer_without_valid_clients_counts_as_empty(tmp_path: Path) -> None:
    """All its rows are invalid, perhaps because the source has changed. The first one is reported with its error."""
    rows = database(tmp_path)
    add(rows, "shop", ISSUER, "ftp://shop.example.com/")
    add(rows, "mail", ISSUER, "nonsense")
    site = site_of(tmp_path)
    checked = await notifier_at(site, "check")
    assert checked.returncode == 2
    assert "none of its 2 clients can be used: " in checked.stderr
    assert "backchannel_logout_uri must be an absolute URI" in checked.stderr
    async with worker(site, ready=False) as running:
        await running.until_logged("registry_source_failed", lambda line: "none of its 2 clients" in line["reason"])
        assert (await running.get("/readyz"))[0] == 503
