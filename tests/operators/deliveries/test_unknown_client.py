"""An unknown client is an error: commands suggest the nearest name and exit with 1."""

import asyncio
import json
from pathlib import Path

import pytest

from notifier.model.documents.dead_letter import DeadLetter
from notifier.queues.sqlite import SqliteOptions, SqliteQueue
from tests.cli.in_process import notifier
from tests.contract.dead_letter_samples import store_dead_letters
from tests.system.site import ISSUER, Site, client

LOOKS = (
    ("dead-letters", "list"),
    ("dead-letters", "replay"),
    ("dead-letters", "replay", "--dry-run"),
    ("dead-letters", "discard", "--yes"),
    ("waiting", "list"),
    ("waiting", "list", "--json"),
    ("waiting", "cancel", "--yes"),
    ("retry", "--iss", ISSUER),
    ("retry", "--iss", ISSUER, "--dry-run"),
)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """An empty queue, and a client `shop`."""
    made = Site(tmp_path, f"sqlite:{tmp_path / 'n.db'}")
    made.config["registry"]["inline"] = "deny"
    made.write()
    made.write_clients([client("shop", "https://shop.example.com/out")])
    fill(tmp_path)
    return made


def fill(folder: Path, *dead_letters: DeadLetter) -> None:
    async def write() -> None:
        queue = SqliteQueue(SqliteOptions(path=folder / "n.db"))
        await queue.open()
        await queue.wait_until_ready()
        await store_dead_letters(queue, *dead_letters)
        await queue.close()

    asyncio.run(write())


@pytest.mark.parametrize("words", LOOKS, ids=" ".join)
def test_unknown_client_is_reported(words: tuple[str, ...], site: Site, tmp_path: Path) -> None:
    """The message suggests the most similar client. JSON output stays JSON."""
    tried = notifier(*words, "-c", str(site.file), "--client-id", "shpo", cwd=tmp_path)
    assert tried.returncode == 1, tried.stdout + tried.stderr
    assert "unknown client shpo" in tried.stderr
    assert "did you mean shop?" in tried.stderr
    if "--json" in words:
        assert [json.loads(line) for line in tried.stdout.splitlines()] == []
    known = notifier(*words, "-c", str(site.file), "--client-id", "shop", cwd=tmp_path)
    assert (known.returncode, "nobody" in known.stderr) == (0, False), known.stderr


def test_unknown_client_is_no_failure_where_events_may_name_it(site: Site, tmp_path: Path) -> None:
    """It is reported all the same."""
    site.config["registry"]["inline"] = "allow"
    site.write()
    looked = notifier("waiting", "list", "-c", str(site.file), "--client-id", "shpo", cwd=tmp_path)
    assert (looked.returncode, "unknown client shpo" in looked.stderr) == (0, True)


def test_unknown_client_may_be_in_a_remote_source(site: Site, tmp_path: Path) -> None:
    """Commands do not fetch registry sources."""
    site.config["registry"]["sources"] = [
        {"file": "clients.yaml"},
        {"name": "list", "issuer": ISSUER, "http": {"url": "https://list.example.com"}},
    ]
    site.config["registry"].pop("file", None)
    site.write()
    looked = notifier("waiting", "list", "-c", str(site.file), "--client-id", "shpo", cwd=tmp_path)
    assert looked.returncode == 0, looked.stderr
    assert "the clients of list are unknown to this command" in looked.stderr
