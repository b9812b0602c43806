"""A file of events is read and validated as a whole; sending stops at the first failure with a complete report."""

import asyncio
import json
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from notifier.model.errors import QueueError, QueueUnavailable
from notifier.model.message import Lane
from notifier.publishing.event_file import (
    MAX_IN_FLIGHT_EVENTS,
    EventFileRules,
    FileEvent,
    format_line_ranges,
    read_events,
    send_all,
)

ISS = "https://id.example.com"
READING = EventFileRules(max_bytes=1000, new_id=lambda: "made-up", now=0.0)


def event(number: int) -> dict[str, object]:
    """Return an event with an id."""
    return {"id": f"e-{number}", "iss": ISS, "sub": "alice", "clients": ["shop"]}


def written(count: int) -> list[FileEvent]:
    """Return events on the lines from 1."""
    return read_events("\n".join(json.dumps(event(number)) for number in range(count)).encode(), READING)


@given(
    indents=st.lists(st.sampled_from([None, 0, 2]), min_size=1), between=st.sampled_from(["\n", "\n\n", " ", "\r\n"])
)
def test_layout_is_irrelevant(indents: list[int | None], between: str) -> None:
    """On one or many lines, with any white space between events: each is found with its first line."""
    texts = [json.dumps(event(number), indent=indent) for number, indent in enumerate(indents)]
    file = between.join(texts)
    found = read_events(file.encode(), READING)
    assert [json.loads(each.body) for each in found] == [event(number) for number in range(len(indents))]
    begins = [file.index(f'"e-{number}"') for number in range(len(indents))]
    lines = [file.count("\n", 0, file.rindex("{", 0, begin)) + 1 for begin in begins]
    assert [each.line for each in found] == lines


class EventSender:
    """A queue that accepts events until `lost`, and confirms each one round of the event loop later."""

    def __init__(self, lost: str = "") -> None:
        self.sent: list[str | None] = []
        self.under_way = self.most_under_way = 0
        self._lost = lost

    async def send_event(
        self, lane: Lane, body: bytes, *, message_id: str | None, content_type: str = "application/json"
    ) -> None:
        """Implement the port."""
        del lane, body, content_type
        self.sent.append(message_id)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await asyncio.sleep(0)
        self.under_way -= 1
        if message_id == self._lost:
            raise QueueUnavailable("gone")


async def sent(sender: EventSender, events: Sequence[FileEvent]) -> tuple[QueueError | None, list[str]]:
    """Return the reason of the stop, and the confirmed ids."""
    confirmed: list[FileEvent] = []
    failure = await send_all(sender, Lane.EVENTS, events, confirmed.append)
    return failure, [each.id for each in confirmed]


async def test_events_are_sent_in_order_with_a_bound() -> None:
    """The number of unconfirmed events is bounded for any file."""
    sender = EventSender()
    failure, confirmed = await sent(sender, written(MAX_IN_FLIGHT_EVENTS * 3))
    assert failure is None
    assert sender.sent == confirmed == [f"e-{number}" for number in range(MAX_IN_FLIGHT_EVENTS * 3)]
    assert sender.most_under_way == MAX_IN_FLIGHT_EVENTS


async def test_first_failure_stops_sending() -> None:
    """Events in flight are awaited and reported; no further event is sent."""
    sender = EventSender(lost="e-300")
    failure, confirmed = await sent(sender, written(MAX_IN_FLIGHT_EVENTS * 3))
    assert str(failure) == "gone"
    assert set(confirmed) == set(sender.sent) - {"e-300"}
    assert 300 <= len(confirmed) <= 300 + MAX_IN_FLIGHT_EVENTS


def test_lines_are_reported_in_ranges() -> None:
    """Adjacent lines are joined."""
    events = written(9)
    assert format_line_ranges(events, set(events)) == "1-9"
    assert format_line_ranges(events, {events[index] for index in (0, 1, 2, 4, 7, 8)}) == "1-3, 5, 8-9"
    assert format_line_ranges(events, set()) == ""
