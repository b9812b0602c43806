"""Test `notifier dead-letters`: output, JSON, refusals and audit lines."""

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

    def fill(self, dead_letters: Sequence[DeadLetter]) -> None:
        async def fill() -> None:
            queue = self._queue()
            await queue.open()
            await queue.wait_until_ready()
            await store_dead_letters(queue, *dead_letters)
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
    """The embedded queue with each kind of dead letter."""
    made = Place(tmp_path, {"NOTIFIER_QUEUE__URL": "sqlite:n.db"})
    made.fill(LETTERS)
    return made


def test_default_output_is_counts(place: Place) -> None:
    """Grouped by client and reason, the largest first. Filters restrict them."""
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


def test_rows_contain_no_user_and_a_subject_selects_them(place: Place) -> None:
    """Rows may be pasted into a ticket. `--subject` finds users, also in unreadable messages."""
    rows = place.run("list", "--rows", "--subject", "alice").stdout
    assert "alice" not in rows
    assert rows.splitlines()[-1] == "4 dead letters"
    found = [json.loads(line) for line in place.run("list", "--json", "--subject", "bob-sub-5").stdout.splitlines()]
    assert [(row["reason"], row["iss"]) for row in found] == [("malformed_event", "https://id.example.com")]


def test_one_dead_letter_is_shown_with_the_effect_of_a_replay(place: Place) -> None:
    """It prints every outcome and the remedy. An unknown ID exits with 1."""
    shown = place.run("show", "stale")
    letter_ = json.loads(shown.stdout)
    assert (letter_["outcomes"][0]["reason"], letter_["outcomes"][0]["status"]) == ("server_error", 500)
    assert "--end-newer-sessions" in letter_["replay"]
    missing = place.run("show", "d-9")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "there is no dead letter d-9" in missing.stderr


@pytest.mark.parametrize("rate", ["0.0009", "fast"])
def test_a_rate_has_the_bounds_of_the_api(place: Place, rate: str) -> None:
    """A rate outside of them is a usage error."""
    done = place.run("replay", "--all", "--rate", rate)
    assert done.returncode == 2
    assert "0.001" in done.stderr
    assert place.ready() == {DEAD: 5}


def test_replay_reports_kept_dead_letters_and_its_actor(place: Place) -> None:
    """First the dry run, then the replay with an audit line without the subject."""
    dry = place.run("replay", "--subject", "alice", "--dry-run")
    assert (dry.returncode, dry.stdout.splitlines()[0]) == (1, "3 would be replayed")  # as one stays
    assert "dead_letters_replayed" not in dry.stderr
    assert place.ready() == {DEAD: 5}
    done = place.run("replay", "--subject", "alice")
    assert done.returncode == 1
    assert "1 stays: without sid and older than sub_only_max_age, so a replay would also end" in done.stdout
    audit = json.loads(next(line for line in done.stderr.splitlines() if "dead_letters_replayed" in line))
    assert (audit["done"], audit["wanted"]) == (3, {"subject": "[given]"})
    assert "@" in audit["who"]
    assert "alice" not in done.stderr
    assert place.ready() == {DEAD: 2, Lane.RETRIES: 3}
    forced = place.run("replay", "stale", "--end-newer-sessions")
    assert (forced.returncode, forced.stdout.splitlines()[0]) == (0, "1 replayed")


@pytest.mark.parametrize("words", [("replay", "--wait", "0"), ("discard", "--yes")])
def test_an_unknown_id_among_others_is_named(place: Place, words: tuple[str, ...]) -> None:
    """The others are repaired, and the exit status is 1. A pass that reached its limit does not report unknown IDs."""
    limited = place.run(*words, "d-1", "d-2", "d-9", "--limit", "1")
    assert (limited.returncode, "there is no dead letter" in limited.stderr) == (0, False)
    done = place.run(*words, "d-1", "d-2", "m-1", "d-8", "d-9")
    assert (done.returncode, done.stdout.split()[0]) == (1, "2")
    assert "there is no dead letter d-1, d-8, d-9;" in done.stderr
    assert place.ready()[DEAD] == 2


def test_repairs_require_a_filter(place: Place) -> None:
    """A command without a filter is a usage error. A discard without a terminal requires `--yes`."""
    for words in (("replay",), ("discard", "--all")):
        done = place.run(*words)
        assert (done.returncode, done.stdout) == (2, "")
    assert place.ready() == {DEAD: 5}


def test_discard_logs_each_dead_letter(place: Place) -> None:
    """Each, because the log line is all that remains of it."""
    done = place.run("discard", "--client-id", "mail", "--yes", NOTIFIER_LOG__LEVEL="info")
    assert done.stdout == "1 discarded\n  refused: 1\n"
    named = json.loads(next(line for line in done.stderr.splitlines() if "dead_letter_discarded" in line))
    assert (named["id"], named["client_id"], named["reason"]) == ("m-1", "mail", "refused")
    assert place.ready() == {DEAD: 4}


def test_discard_shows_the_counts_by_client(place: Place) -> None:
    """Sorted by count, also with `--json`."""
    done = place.run("discard", "--all", "--dry-run")
    lines = done.stdout.splitlines()
    assert lines[0] == "5 would be discarded"
    assert [line for line in lines if "client" in line] == ["  client shop: 3", "  client mail: 1"]
    assert any(line.startswith("  whole events (") and line.endswith("): 1") for line in lines)
    counts = json.loads(place.run("discard", "--all", "--dry-run", "--json").stdout)
    assert counts["clients"] == 3
    assert (counts["by_client"][0]["client_id"], counts["by_client"][0]["count"]) == ("shop", 3)
    assert place.ready() == {DEAD: 5}


def test_replay_accepts_yes(place: Place) -> None:
    """A replay deletes nothing, so it needs no confirmation without a terminal."""
    assert place.run("replay", "d-1", "--yes", "--wait", "0").stdout.startswith("1 replayed\n")


def test_export_is_complete_and_readable_by_its_owner_only(place: Place) -> None:
    """The file contains all that a manual repair needs. The dead letters stay."""
    assert place.run("export", "all.jsonl").returncode == 0
    file = place.folder / "all.jsonl"
    assert file.stat().st_mode & 0o077 == 0
    documents = [json.loads(line) for line in file.read_text().splitlines()]
    assert [each["id"] for each in documents] == [each.id for each in LETTERS]
    assert documents[-1]["raw"]["body"].encode() == BODY
    assert place.ready() == {DEAD: 5}


def test_export_replaces_a_file_that_others_may_read(place: Place) -> None:
    """Only the owner can read the new file. Open handles of the old one read nothing new; no temporary file remains."""
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


def test_failed_export_keeps_the_earlier_one(place: Place) -> None:
    """The earlier export stays complete."""
    file = place.folder / "all.jsonl"
    file.write_text("old\n")
    for url in ("sqlite:none.db", "amqp://127.0.0.1:1/"):
        assert place.run("export", "all.jsonl", "--force", NOTIFIER_QUEUE__URL=url).returncode == 1
        assert file.read_text() == "old\n"
    assert not list(place.folder.glob(".all.jsonl*"))


def test_missing_queue_file_is_not_created(tmp_path: Path) -> None:
    """A listing creates no file."""
    done = notifier("dead-letters", "list", cwd=tmp_path, settings={"NOTIFIER_QUEUE__URL": "sqlite:none.db"})
    assert done.returncode == 1
    assert "there is no queue file" in done.stderr
    assert list(tmp_path.iterdir()) == []
