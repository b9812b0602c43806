"""`notifier dead-letters`: what operators see, what scripts read, what is refused, who is written down."""

import asyncio
import json
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from notifier.model.documents.dead_letter import DeadLetter, dead_letter_delivery, dead_letter_raw
from notifier.model.errors import InputIssue
from notifier.model.message import DEAD, Lane, Message
from notifier.model.outcome import DeadReason
from notifier.queues.queue_port import Queue
from notifier.queues.rabbitmq.queue import RabbitQueue
from notifier.queues.sqlite import SqliteOptions, SqliteQueue
from tests.cli.in_process import notifier
from tests.contract.dead_letter_samples import DELIVERY, dead_letter, store_dead_letters
from tests.support.rabbit_options import rabbit_options

BODY = b'{"iss": "https://id.example.com", "sub": "bob-sub-5", "clients": []}'
WRONG = dead_letter_raw(
    Message(lane=Lane.EVENTS, body=BODY, tag=None), [InputIssue("clients", "must not be empty")], 1000.0
)
STALE = dead_letter_delivery(replace(DELIVERY, id="stale", sid=None), DeadReason.EXPIRED, "too old", 1000.0)
LETTERS = (dead_letter("d-1"), dead_letter("d-2"), dead_letter("m-1", client_id="mail"), STALE, WRONG)


class Place:
    """A queue with dead letters in it, and the environment that names it."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self.folder, self.settings = folder, settings

    def _queue(self) -> Queue:
        url = self.settings["NOTIFIER_QUEUE__URL"]
        if url.startswith("sqlite:"):
            return SqliteQueue(SqliteOptions(path=self.folder / url.removeprefix("sqlite:")))
        return RabbitQueue(rabbit_options(url, self.settings["NOTIFIER_QUEUE__PREFIX"]))

    def fill(self, letters: Sequence[DeadLetter]) -> None:
        async def fill() -> None:
            queue = self._queue()
            await queue.open()
            await queue.wait_until_ready()
            await store_dead_letters(queue, *letters)
            await queue.close()

        asyncio.run(fill())

    def ready(self) -> dict[str, int]:
        async def ask() -> dict[str, int]:
            queue = self._queue()
            await queue.open()
            await queue.wait_until_ready()
            depths = await queue.depths()
            await queue.close()
            return {name: depth.ready for name, depth in depths.items() if depth.ready}

        return asyncio.run(ask())

    def run(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return notifier("dead-letters", *words, cwd=self.folder, settings={**self.settings, **more})


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """The embedded queue with every kind of letter."""
    made = Place(tmp_path, {"NOTIFIER_QUEUE__URL": "sqlite:n.db"})
    made.fill(LETTERS)
    return made


def test_counts_come_first(place: Place) -> None:
    """By client and reason, the largest first; filters narrow them down."""
    table = place.run("list")
    assert table.returncode == 0
    assert [line.split()[:3] for line in table.stdout.splitlines()[3:8]] == [
        ["https://id.example.com"],
        ["shop", "refused", "2"],
        ["–", "malformed_event", "1"],
        ["mail", "refused", "1"],
        ["shop", "expired", "1"],
    ]
    assert "5 dead letters" in table.stdout
    assert "2 dead letters" in place.run("list", "--client-id", "shop", "--reason", "refused", "--until", "1h").stdout


def test_rows_name_no_user_and_a_subject_finds_them(place: Place) -> None:
    """A list is pasted into a ticket; whose logout it was is asked for by name, also in what could not be read."""
    rows = place.run("list", "--rows", "--subject", "alice").stdout
    assert "alice" not in rows
    assert rows.splitlines()[-1] == "4 dead letters"
    found = [json.loads(line) for line in place.run("list", "--json", "--subject", "bob-sub-5").stdout.splitlines()]
    assert [(row["reason"], row["iss"]) for row in found] == [("malformed_event", "https://id.example.com")]


def test_one_is_shown_with_what_a_replay_would_do(place: Place) -> None:
    """Every outcome, and the way out; an id that is none exits 1."""
    shown = place.run("show", "stale")
    letter_ = json.loads(shown.stdout)
    assert (letter_["outcomes"][0]["reason"], letter_["outcomes"][0]["status"]) == ("server_error", 500)
    assert "--end-newer-sessions" in letter_["replay"]
    missing = place.run("show", "d-9")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "there is no dead letter d-9" in missing.stderr


@pytest.mark.parametrize("rate", ["0.0009", "fast"])
def test_a_rate_has_the_bounds_of_the_api(place: Place, rate: str) -> None:
    """Outside of them, a mistake of whoever types it."""
    done = place.run("replay", "--all", "--rate", rate)
    assert done.returncode == 2
    assert "0.001" in done.stderr
    assert place.ready() == {DEAD: 5}


def test_a_replay_says_what_stays_and_who_did_it(place: Place) -> None:
    """The dry run first, then the real one with its line for the audit, without the subject."""
    dry = place.run("replay", "--subject", "alice", "--dry-run")
    assert dry.stdout.startswith("3 would be replayed\n")
    assert "dead_letters_replayed" not in dry.stderr
    assert place.ready() == {DEAD: 5}
    done = place.run("replay", "--subject", "alice")
    assert done.returncode == 0
    assert "1 stays: name no session" in done.stdout
    audit = json.loads(next(line for line in done.stderr.splitlines() if "dead_letters_replayed" in line))
    assert (audit["done"], audit["wanted"]) == (3, {"subject": "[given]"})
    assert "@" in audit["who"]
    assert "alice" not in done.stderr
    assert place.ready() == {DEAD: 2, Lane.RETRIES: 3}
    forced = place.run("replay", "stale", "--end-newer-sessions")
    assert forced.stdout.startswith("1 replayed\n")


@pytest.mark.parametrize("words", [("replay", "--wait", "0"), ("discard", "--yes")])
def test_an_unknown_id_among_others_is_named(place: Place, words: tuple[str, ...]) -> None:
    """The others are repaired, and the exit status is 1. A pass that reached its limit has not looked for all."""
    limited = place.run(*words, "d-1", "d-2", "d-9", "--limit", "1")
    assert (limited.returncode, "there is no dead letter" in limited.stderr) == (0, False)
    done = place.run(*words, "d-1", "d-2", "m-1", "d-8", "d-9")
    assert (done.returncode, done.stdout.split()[0]) == (1, "2")
    assert "there is no dead letter d-1, d-8, d-9;" in done.stderr
    assert place.ready()[DEAD] == 2


def test_repairs_want_to_be_told_which(place: Place) -> None:
    """Nothing named is wrong use, and a discard where nobody can be asked wants `--yes`."""
    for words in (("replay",), ("discard", "--all")):
        done = place.run(*words)
        assert (done.returncode, done.stdout) == (2, "")
    assert place.ready() == {DEAD: 5}


def test_discarded_are_named_where_the_log_asks(place: Place) -> None:
    """Each, as nothing else of it is left."""
    done = place.run("discard", "--client-id", "mail", "--yes", NOTIFIER_LOG__LEVEL="info")
    assert done.stdout == "1 discarded\n  refused: 1\n"
    named = json.loads(next(line for line in done.stderr.splitlines() if "dead_letter_discarded" in line))
    assert (named["id"], named["client_id"], named["reason"]) == ("m-1", "mail", "refused")
    assert place.ready() == {DEAD: 4}


def test_a_discard_shows_whose_letters_it_would_delete(place: Place) -> None:
    """Those with most letters first; a script gets the same."""
    done = place.run("discard", "--all", "--dry-run")
    lines = done.stdout.splitlines()
    assert lines[0] == "5 would be discarded"
    assert [line for line in lines if "client" in line] == ["  client shop: 3", "  client mail: 1"]
    assert any(line.startswith("  whole events (") and line.endswith("): 1") for line in lines)
    told = json.loads(place.run("discard", "--all", "--dry-run", "--json").stdout)
    assert told["clients"] == 3
    assert (told["by_client"][0]["client_id"], told["by_client"][0]["count"]) == ("shop", 3)
    assert place.ready() == {DEAD: 5}


def test_a_replay_takes_yes_as_the_other_repairs_do(place: Place) -> None:
    """It deletes nothing, and so does not ask either way."""
    assert place.run("replay", "d-1", "--yes", "--wait", "0").stdout.startswith("1 replayed\n")


def test_an_export_is_whole_and_its_owner_s(place: Place) -> None:
    """What can be mended by hand is in it; the letters stay."""
    assert place.run("export", "all.jsonl").returncode == 0
    file = place.folder / "all.jsonl"
    assert file.stat().st_mode & 0o077 == 0
    documents = [json.loads(line) for line in file.read_text().splitlines()]
    assert [each["id"] for each in documents] == [each.id for each in LETTERS]
    assert documents[-1]["raw"]["body"].encode() == BODY
    assert place.ready() == {DEAD: 5}


def test_an_export_onto_a_file_that_others_may_read(place: Place) -> None:
    """The new one is its owner's alone; who has the old one open reads nothing new, and nothing is left beside it."""
    file = place.folder / "all.jsonl"
    file.write_text("old\n")
    file.chmod(0o644)
    with file.open() as before:
        refused = place.run("export", "all.jsonl")
        assert (refused.returncode, file.read_text()) == (2, "old\n")
        assert "all.jsonl exists; --force replaces it" in " ".join(refused.stderr.replace("│", " ").split())
        assert place.run("export", "all.jsonl", "--force").returncode == 0
        assert before.read() == "old\n"
    assert file.stat().st_mode & 0o777 == 0o600
    assert len(file.read_text().splitlines()) == 5
    assert not list(place.folder.glob(".all.jsonl*"))


def test_an_export_that_fails(place: Place) -> None:
    """What was exported before stays, whole."""
    file = place.folder / "all.jsonl"
    file.write_text("old\n")
    for url in ("sqlite:none.db", "amqp://127.0.0.1:1/"):
        assert place.run("export", "all.jsonl", "--force", NOTIFIER_QUEUE__URL=url).returncode == 1
        assert file.read_text() == "old\n"
    assert not list(place.folder.glob(".all.jsonl*"))


def test_a_queue_that_is_not_there(tmp_path: Path) -> None:
    """A look makes no file."""
    done = notifier("dead-letters", "list", cwd=tmp_path, settings={"NOTIFIER_QUEUE__URL": "sqlite:none.db"})
    assert done.returncode == 1
    assert "there is no queue file" in done.stderr
    assert list(tmp_path.iterdir()) == []
