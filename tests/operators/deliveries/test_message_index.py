"""Audit lines, and the index of messages behind the pages."""

import asyncio
import io
import json
import weakref
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pytest

from notifier.operators.deliveries import groups, message_index
from notifier.operators.deliveries.dead_letter_filter import DeadLetterFilter
from notifier.operators.deliveries.dead_letter_summary import DeadLetterSummary
from notifier.operators.deliveries.message_index import MessageIndex, MessageIndexes, PageSelection
from notifier.operators.deliveries.repair import RepairAudit
from notifier.operators.deliveries.repair_pass import Filter
from notifier.operators.deliveries.repair_result import RepairResult
from notifier.settings.queue_settings import QueueSettings
from notifier.settings.service_settings import LogSettings, Settings
from notifier.telemetry.audit import MAX_BYTES_PER_KIND, MAX_KINDS, MAX_LINES_PER_KIND, recent_lines, write_audit
from notifier.telemetry.log_level import LEVELS, LogLevel
from notifier.telemetry.log_output import configure, set_level
from notifier.telemetry.logs import SubjectHash, subject_id

# ── Audit lines are logged at every log level, without `sub` and `sid` ───────────────────────────────────────────────


ROW = DeadLetterSummary(
    id="d-1", event_id="e", client_id="shop", iss="https://i", reason="refused", dead_since=0.0, attempts=1, text=""
)


def do_all() -> None:
    """Write each audit line."""
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
def test_audit_lines_are_logged_at_every_level(level: str, log_format: Literal["json", "console"]) -> None:
    """From the start, and after a change of the level."""
    for first in (level, "debug"):
        stream = io.StringIO()
        configure(first, log_format, stream=stream)
        set_level(level)
        do_all()
        logged = stream.getvalue()
        assert [action for action in ACTIONS if action in logged] == ACTIONS
        assert "raw-sub-77" not in logged


@pytest.mark.parametrize("level", LEVELS)
def test_change_of_the_log_level_is_an_audit_line(level: str) -> None:
    """With the actor and both levels, marked as an audit line."""
    stream = io.StringIO()
    configure("error", "json", stream=stream)
    LogLevel("error", lambda: None).set(level, by="sre")
    [line] = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert (line["event"], line["by"], line["level_now"], line["level_before"]) == ("log_level", "sre", level, "error")
    assert line["audit"] is True


def test_many_acts_of_one_kind_displace_no_other() -> None:
    """Neither reads nor a large discard displace the repairs of others in memory."""
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
def test_subject_is_hashed_if_the_log_has_a_key(log: dict[str, str], shown: str) -> None:
    """As `notifier log-id` prints it. A key that only this process has would be useless."""
    settings = Settings.model_construct(log=LogSettings.model_validate(log), queue=QueueSettings())
    lines: list[dict[str, object]] = []

    def write(action: str, **details: object) -> None:
        lines.append({action: details["wanted"]})

    RepairAudit(write, subject_id(settings)).log_search("sre", DeadLetterFilter(subject="raw-sub-77"))
    assert lines == [{"dead_letters_looked_for": {"subject": shown}}]


def test_long_audit_lines_reduce_their_number() -> None:
    """The size is bounded, and the newest line is always present."""
    for length in (MAX_BYTES_PER_KIND // 4,) * MAX_LINES_PER_KIND + (4 * MAX_BYTES_PER_KIND,):
        write_audit("retried", who="verbose", client_id="c" * length)
        lines = [line for line in recent_lines() if line.get("who") == "verbose"]
        assert len(lines[-1]["client_id"]) == length
        assert len(lines) == 1 or sum(len(line["client_id"]) for line in lines) < MAX_BYTES_PER_KIND


# ── The indexes behind pages: when an index is built, and how many summaries a worker keeps ──────────────────────────


class Clock:
    """Seconds that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        """Return the seconds."""
        return self.now


class Maker:
    """Build indexes of a fixed number of rows; each pass takes three seconds."""

    def __init__(self, clock: Clock, size: int = 1) -> None:
        self._clock, self._size = clock, size
        self.made = 0

    async def __call__(self) -> MessageIndex:
        """Implement the callback."""
        index = MessageIndex(self._clock, self._clock)
        for _ in range(self._size):
            index.add(ROW)
        await asyncio.sleep(0)
        self._clock.now += 3
        self.made += 1
        return index


async def test_concurrent_requests_share_one_pass() -> None:
    """Unless the pass started earlier than the accepted age."""
    clock = Clock()
    indexes, make = MessageIndexes(clock), Maker(clock)
    one, two = await asyncio.gather(*(indexes.index("letters", 0, make) for _ in range(2)))
    assert (one is two, make.made) == (True, 1)
    assert await indexes.index("letters", 3, make) is one
    assert await indexes.index("letters", 2, make) is not one
    indexes.forget("letters")
    await indexes.index("letters", 600, make)
    assert make.made == 3


async def test_large_index_evicts_others_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The previous index of the queue and indexes of other queues are removed first; a small one stays."""
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
    """Match everything and count the calls."""

    name: str
    log: list[str] = field(compare=False)

    def matches_summary(self, _summary: object) -> bool:
        """Implement the filter."""
        self.log.append(self.name)
        return True


async def test_pages_are_selected_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each blocks the loop for up to two milliseconds and copies the index."""
    monkeypatch.setattr(message_index, "SUMMARIES_PER_STEP", 2)
    clock, log = Clock(), list[str]()
    index = await Maker(clock, 6)()

    async def page(name: str) -> object:
        selection = PageSelection(filter_=FakeFilter(name=name, log=log), reasons=frozenset(), newest_first=True)
        return (await index.page(selection, "letters", rows=1, skip=0, groups=1))["total"]

    assert await asyncio.gather(*map(page, "aab")) == [6, 6, 6]
    assert log == [*"a" * 6, *"b" * 6]


def test_invented_clients_share_one_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit of groups. Clients with a group keep it, and no message is left out."""
    monkeypatch.setattr(groups, "MAX_GROUPS", 2)
    counts = groups.GroupCounts()
    for name in ("shop", "wiki", "invented", "shop", "invented too"):
        counts.add(replace(ROW, client_id=name))
    assert {group.client_id: group.count for group in counts.groups()} == {"shop": 2, "wiki": 1, "_other": 2}
    assert counts.total == 5
