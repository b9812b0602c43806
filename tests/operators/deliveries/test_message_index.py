"""Audit lines, and the index of messages behind the pages."""

import asyncio
import io
import json
import weakref
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from notifier.operators.deliveries import message_index
from notifier.operators.deliveries.dead_letter_filter import DeadLetterFilter
from notifier.operators.deliveries.dead_letter_summary import DeadLetterSummary
from notifier.operators.deliveries.message_index import MessageIndex, MessageIndexes, PageRequest, PageSelection
from notifier.operators.deliveries.repair import RepairAudit
from notifier.operators.deliveries.repair_pass import Filter, RepairResult
from notifier.settings.queue_settings import QueueSettings
from notifier.settings.service_settings import LogSettings, Settings
from notifier.telemetry.audit import MAX_BYTES_PER_KIND, MAX_KINDS, MAX_LINES_PER_KIND, recent_lines, write_audit
from notifier.telemetry.log_level import LEVELS, LogLevel
from notifier.telemetry.log_output import configure, set_level
from notifier.telemetry.logs import SubjectHash, subject_id

# ── What somebody did by hand is in the log whatever its level, and nothing of it is a `sub` or `sid` ─────────────


ROW = DeadLetterSummary(
    id="d-1", event_id="e", client_id="shop", iss="https://i", reason="refused", dead_since=0.0, attempts=1, text=""
)


def do_all() -> None:
    """Whatever is done by hand."""
    wanted = DeadLetterFilter(subject="raw-sub-77")
    audit = RepairAudit(write_audit)
    for action in ("replayed", "discarded"):
        audit.log_repair(action, "sre", wanted, RepairResult(done=1, by_reason={"refused": 1}))
    audit.log_removal("sre", ROW)
    audit.log_read("exported", "sre", wanted)
    audit.log_read("shown", "sre", wanted)
    write_audit("reload_loss_accepted", who="alice@host", loss="all")


ACTIONS = [
    "dead_letters_replayed",
    "dead_letters_discarded",
    "dead_letter_discarded",
    "dead_letters_exported",
    "dead_letters_shown",
    "reload_loss_accepted",
]


@pytest.mark.parametrize("level", [*LEVELS, "critical"])
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_every_level_has_them(level: str, log_format: Literal["json", "console"]) -> None:
    """From the start on, and after the level was changed under the worker."""
    for first in (level, "debug"):
        stream = io.StringIO()
        configure(first, log_format, stream=stream)
        set_level(level)
        do_all()
        said = stream.getvalue()
        assert [action for action in ACTIONS if action in said] == ACTIONS
        assert "raw-sub-77" not in said


@pytest.mark.parametrize("level", LEVELS)
def test_a_change_of_the_level_is_one_of_them(level: str) -> None:
    """Who turned it, from what and to what; marked, so that all of them can be found at once."""
    stream = io.StringIO()
    configure("error", "json", stream=stream)
    LogLevel("error", lambda: None).set(level, by="sre")
    [line] = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert (line["event"], line["by"], line["level_now"], line["level_before"]) == ("log_level", "sre", level, "error")
    assert line["audit"] is True


def test_many_acts_of_one_kind_hide_no_other() -> None:
    """Who may only look cannot push out of the memory what others did, nor can a discard of each of many letters."""
    write_audit("dead_letters_discarded", who="mallory", done=7)
    for number in range(10 * MAX_LINES_PER_KIND):
        write_audit("looked_for", who="mallory", event_id=f"e-{number}")
    lines = [line for line in recent_lines() if line.get("who") == "mallory"]
    assert [line["action"] for line in lines] == ["dead_letters_discarded", *["looked_for"] * MAX_LINES_PER_KIND]
    assert lines[-1]["event_id"] == f"e-{10 * MAX_LINES_PER_KIND - 1}"
    for number in range(2 * MAX_KINDS):
        write_audit("looked_for", who=f"user {number}")
    assert len(recent_lines()) <= MAX_KINDS * MAX_LINES_PER_KIND
    assert recent_lines()[-1]["who"] == f"user {2 * MAX_KINDS - 1}"


@pytest.mark.parametrize(
    ("log", "shown"),
    [
        ({"subject_key": "k" * 32}, SubjectHash(b"k" * 32).log_id("raw-sub-77")),
        ({"subject_key": "k" * 32, "subject": "omit"}, "[given]"),
        ({}, "[given]"),
    ],
)
def test_a_subject_is_its_hash_where_logs_have_a_key(log: dict[str, str], shown: str) -> None:
    """As `notifier log-id` prints it. A key that only this process has would say nothing to anybody."""
    settings = Settings.model_construct(log=LogSettings.model_validate(log), queue=QueueSettings())
    lines: list[dict[str, object]] = []

    def write(action: str, **details: object) -> None:
        lines.append({action: details["wanted"]})

    RepairAudit(write, subject_id(settings)).log_search("sre", DeadLetterFilter(subject="raw-sub-77"))
    assert lines == [{"dead_letters_looked_for": {"subject": shown}}]


def test_long_lines_are_fewer_lines() -> None:
    """What names of clients take is bounded, and the newest line is there, however long it is."""
    for length in (MAX_BYTES_PER_KIND // 4,) * MAX_LINES_PER_KIND + (4 * MAX_BYTES_PER_KIND,):
        write_audit("retried", who="verbose", client_id="c" * length)
        lines = [line for line in recent_lines() if line.get("who") == "verbose"]
        assert len(lines[-1]["client_id"]) == length
        assert len(lines) == 1 or sum(len(line["client_id"]) for line in lines) < MAX_BYTES_PER_KIND


# ── The indexes behind pages: when one is made anew, and how many summaries a worker keeps ────────────────────────


class Clock:
    """Seconds that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        """As a steady clock."""
        return self.now


class Maker:
    """Makes indexes of so many rows, each of which takes a pass of three seconds."""

    def __init__(self, clock: Clock, size: int = 1) -> None:
        self._clock, self._size = clock, size
        self.made = 0

    async def __call__(self) -> MessageIndex:
        """As `MessageIndexes` wants it."""
        index = MessageIndex(self._clock, self._clock)
        for _ in range(self._size):
            index.add(ROW)
        await asyncio.sleep(0)
        self._clock.now += 3
        self.made += 1
        return index


async def test_who_asks_meanwhile_is_served_by_the_same_pass() -> None:
    """Unless it began before they asked, and they want none that is older."""
    clock = Clock()
    indexes, make = MessageIndexes(clock), Maker(clock)
    one, two = await asyncio.gather(*(indexes.index("letters", 0, make) for _ in range(2)))
    assert (one is two, make.made) == (True, 1)
    assert await indexes.index("letters", 3, make) is one
    assert await indexes.index("letters", 2, make) is not one
    indexes.forget("letters")
    await indexes.index("letters", 600, make)
    assert make.made == 3


async def test_a_large_index_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """An old one before its successor is made, and one of others; a small one stays."""
    monkeypatch.setattr(message_index, "MAX_KEPT_SUMMARIES", 2)
    clock = Clock()
    indexes, large, small = MessageIndexes(clock), Maker(clock, 3), Maker(clock, 2)
    kept = await indexes.index("waiting", 0, small)
    old = weakref.ref(await indexes.index("letters", 0, large))

    async def make() -> MessageIndex:
        assert old() is None
        return await large()

    clock.now += 10
    await indexes.index("letters", 0, make)
    assert await indexes.index("waiting", 600, small) is kept
    await indexes.index("waiting", 0, small)
    await indexes.index("letters", 600, large)
    assert (large.made, small.made) == (3, 2)


@dataclass(frozen=True, kw_only=True)
class FakeFilter(Filter[object, Any]):
    """Means everything, and notes that it was asked."""

    name: str
    log: list[str] = field(compare=False)

    def matches_summary(self, _summary: object) -> bool:
        """As a filter."""
        self.log.append(self.name)
        return True


async def test_pages_are_selected_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ask at a time: each would hold the loop for two milliseconds a turn, and copy the index."""
    monkeypatch.setattr(message_index, "SUMMARIES_PER_STEP", 2)
    clock, log = Clock(), list[str]()
    index = await Maker(clock, 6)()

    async def page(name: str) -> object:
        selection = PageSelection(filter_=FakeFilter(name=name, log=log), reasons=frozenset(), newest_first=True)
        return (await index.page(PageRequest(selection=selection, rows=1, skip=0, groups=1), "letters"))["total"]

    assert await asyncio.gather(*map(page, "aab")) == [6, 6, 6]
    assert log == [*"a" * 6, *"b" * 6]
