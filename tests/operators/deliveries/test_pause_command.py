"""`notifier pause`, `resume` and `pauses` without a worker: unknown clients, and what is printed."""

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from notifier.model.registry import Issuer, Registry
from notifier.operators.terminal.known_registry import KnownRegistry, end_if_missing
from notifier.queues.sqlite import SqliteOptions, SqliteQueue
from tests.cli.in_process import notifier
from tests.system.site import ISSUER, Site, client

OF = ("--iss", ISSUER)
PAUSE = ("pause", *OF, "--for", "2h", "--reason", "deploy")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """An empty queue, and a client `shop` that `shop-us` follows."""

    async def create() -> None:
        queue = SqliteQueue(SqliteOptions(path=tmp_path / "n.db"))
        await queue.open()
        await queue.wait_until_ready()
        await queue.close()

    asyncio.run(create())
    made = Site(tmp_path, f"sqlite:{tmp_path / 'n.db'}")
    made.write_clients(
        [
            client("shop", "https://shop.example.com/out"),
            client("shop-us", "https://us.shop.example.com/out", follows="shop"),
        ]
    )
    return made


def run(site: Site, *words: str) -> tuple[int, str, str]:
    """Return the exit status of a command, and what it printed on both streams."""
    done = notifier(*words, "-c", str(site.file), cwd=site.file.parent)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((), "either a duration"),
        (("--for", "2h", "--until", "2030-01-01T00:00:00Z"), "either a duration"),
        (("--for", "8d"), "within 7d"),
        (("--for", "2"), "has no unit"),
        (("--until", "2020-01-01T00:00:00Z"), "must be in the future"),
        (("--for", "2h", "--reason", "a\tb"), "1 to 200 characters"),
    ],
)
def test_mistakes_are_refused(words: tuple[str, ...], text: str, site: Site) -> None:
    """Both or no end, one beyond `max_paused`, no reason: also while the broker is unreachable."""
    site.config["queue"] = {"url": "amqp://127.0.0.1:1"}
    site.write()
    status, _, shown = run(site, "pause", *OF, "--client-id", "shop", "--reason", "deploy", *words)
    assert (status, text in " ".join(shown.replace("│", " ").split())) == (2, True), shown


def test_unknown_client_is_neither_paused_nor_resumed(site: Site) -> None:
    """Also if events may define clients. A registered one that is not paused is no failure."""
    site.config["registry"]["inline"] = "allow"
    site.write()
    for words in (PAUSE, ("resume", *OF)):
        status, _, text = run(site, *words, "--client-id", "shpo")
        assert (status, "unknown client shpo" in text, "did you mean shop?" in text) == (1, True, True)
    status, text, _ = run(site, "resume", *OF, "--client-id", "shop")
    assert (status, "shop was not paused by an operator" in text) == (0, True)


def test_alias_names_its_client(site: Site) -> None:
    """For a pause, a resume and a retry."""
    site.write_clients([{**client("shop", "https://shop.example.com/out"), "aliases": ["boutique"]}])
    of = (*OF, "--client-id", "boutique", "--json")
    made, ended = run(site, *PAUSE, *of), run(site, "resume", *of)
    pauses = [json.loads(made[1])["paused"], json.loads(ended[1])["former"]]
    assert [[each["client_id"] for each in both] for both in pauses] == [["shop"]] * 2
    status, text, _ = run(site, "retry", "--dry-run", *of)
    assert (status, json.loads(text)["client_id"]) == (0, "shop")


def test_client_that_left_the_registry_can_be_resumed(site: Site) -> None:
    """Its pause outlives it."""
    assert run(site, *PAUSE, "--client-id", "shop")[0] == 0
    site.write_clients([client("other", "https://other.example.com/out")])
    status, text, _ = run(site, "resume", *OF, "--client-id", "shop")
    assert (status, "shop: resumed; it was paused by" in text) == (0, True)


def test_followers_are_named_and_resumed(site: Site) -> None:
    """A plain resume leaves them paused, and prints the option."""
    assert "shop, shop-us: paused until" in run(site, *PAUSE, "--client-id", "shop", "--followers")[1]
    assert (
        "still paused, since they are its followers: shop-us; --followers"
        in run(site, "resume", *OF, "--client-id", "shop")[1]
    )
    status, listed, _ = run(site, "pauses", "--json")
    assert status == 0
    assert {(each["client_id"], each["ended_at"] is None) for each in json.loads(listed)["pauses"]} == {
        ("shop", False), ("shop-us", True)
    }  # fmt: skip
    assert "shop-us: resumed" in run(site, "resume", *OF, "--client-id", "shop", "--followers")[1]


def test_unverified_client_is_paused_with_a_warning(site: Site) -> None:
    """A mistyped ID, an alias or `--followers` would otherwise seem to work while the registry is unreadable."""
    (site.folder / "clients.yaml").write_text("[")
    status, text, warning = run(site, *PAUSE, "--client-id", "shpo", "--followers")
    assert (status, "shpo: paused until" in text) == (0, True)
    assert "shpo is not verified: this command cannot read the whole registry" in warning


def test_client_that_is_left_out_is_not_paused(capsys: pytest.CaptureFixture[str]) -> None:
    """The command names the reason."""
    faults = {ISSUER: {"shop": "its address is not https"}}
    registry = Registry(issuers={ISSUER: Issuer(iss=ISSUER)}, faults=faults)
    settings: Any = SimpleNamespace(issuers={ISSUER: None})
    known = KnownRegistry(settings=settings, registry=registry, unread=())
    end_if_missing(known, "shop", ISSUER)
    assert capsys.readouterr().err == ""
    with pytest.raises(typer.Exit) as ended:
        end_if_missing(known, "shop", ISSUER, registered_only=True)
    assert (ended.value.exit_code, "left out of the registry: its address is not https" in capsys.readouterr().err) == (
        1, True
    )  # fmt: skip
