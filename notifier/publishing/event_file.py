"""Reads a file of events, checks all of them, and then publishes them.

A file holds one or more JSON objects, each on one line (JSON Lines) or on several. If any event has a mistake, nothing
is published. Events that the queue does not confirm are reported by their lines, so that a script can resume.
"""

import asyncio
import json
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

from notifier.model.documents.event_document import read_event
from notifier.model.documents.event_entries import MAX_ISSUES
from notifier.model.errors import InputIssue, MalformedEvent, QueueError
from notifier.model.message import Lane, Message
from notifier.model.nearest import explain_unknown_issuer
from notifier.model.registry import Registry
from notifier.model.session_ended import SessionEnded
from notifier.publishing.event_remarks import remark_members, remark_unknown_clients

MAX_IN_FLIGHT_EVENTS = 256  # sent and not yet confirmed

_DOCUMENT_START = re.compile(r"\S")
_LINE_OF_ERROR = re.compile(r"\bat line ([0-9]+) column\b")
_JSON, _CLOUDEVENTS = "application/json", "application/cloudevents+json"


class EventSender(Protocol):
    """Sends events to a queue."""

    async def send_event(self, lane: Lane, body: bytes, *, message_id: str | None, content_type: str = ...) -> None:
        """Return once the event is durable. Raises QueueUnavailable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEvent:
    """An event of the file. `line`: its first line. `id`: generated if the event has none.

    `remarks`: probable mistakes of the publisher.
    """

    line: int
    id: str
    iss: str
    body: bytes
    content_type: str
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFileRules:
    """The rules by which a file is read. `issuers`: the allowed issuers; empty for any. `now` is in epoch seconds.

    `registry`: the registry for remarks on unknown clients; None for no such remarks.
    """

    max_bytes: int
    new_id: Callable[[], str]
    now: float
    issuers: Collection[str] = ()
    registry: Registry | None = None


def read_events(content: bytes, rules: EventFileRules) -> list[FileEvent]:
    """Return every event of the file. Raises MalformedEvent with the first MAX_ISSUES mistakes and their lines."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise MalformedEvent([InputIssue(f"line {line}", "is not UTF-8 text")]) from None
    events: list[FileEvent] = []
    mistakes: list[InputIssue] = []
    for line, document in _split_documents(text):
        body = document.encode()
        try:
            event, remarks = _read_event(body, rules)
        except MalformedEvent as malformed:
            mistakes += [InputIssue(f"line {line}", _shift_line(str(mistake), line)) for mistake in malformed.mistakes]
            if len(mistakes) > MAX_ISSUES:
                raise MalformedEvent([*mistakes[:MAX_ISSUES], InputIssue("", "and more")]) from None
            continue
        content_type = _JSON if event.source is None else _CLOUDEVENTS
        events.append(
            FileEvent(line=line, id=event.id, iss=event.iss, body=body, content_type=content_type, remarks=remarks)
        )
    if not events and not mistakes:
        mistakes.append(InputIssue("", "there is no event; an event is a JSON object (`notifier schema event`)"))
    if mistakes:
        raise MalformedEvent(mistakes)
    return events


def _read_event(body: bytes, rules: EventFileRules) -> tuple[SessionEnded, tuple[str, ...]]:
    message = Message(lane=Lane.EVENTS, body=body, tag=None, content_type=_JSON)
    event = read_event(message, max_bytes=rules.max_bytes, new_id=rules.new_id, now=rules.now)
    if rules.issuers and event.iss not in rules.issuers:
        raise MalformedEvent([InputIssue("iss", explain_unknown_issuer(event.iss, sorted(rules.issuers)))])
    remarks = list(remark_members(event))
    if (registry := rules.registry) is not None:
        remarks += remark_unknown_clients(event, registry, accepts_addresses=registry.inline != "deny")
    return event, tuple(remarks)


def _shift_line(text: str, line: int) -> str:
    """Return the error text with line numbers of the file. The parser counts from `line`, where the event begins."""
    return _LINE_OF_ERROR.sub(lambda match: f"at line {int(match[1]) + line - 1} column", text)


def _split_documents(text: str) -> Iterator[tuple[int, str]]:
    """Yield (first line, text) of each JSON document. Invalid JSON ends before the next line that starts with `{`."""
    decoder = json.JSONDecoder()
    position, line = 0, 1
    while (start := _DOCUMENT_START.search(text, position)) is not None:
        begin = start.start()
        line += text.count("\n", position, begin)
        try:
            _, position = decoder.raw_decode(text, begin)
        except (ValueError, RecursionError):
            next_document = text.find("\n{", begin)
            position = len(text) if next_document < 0 else next_document
        yield line, text[begin:position].rstrip()
        line += text.count("\n", begin, position)


async def send_all(
    queue: EventSender, lane: Lane, events: Sequence[FileEvent], confirmed: Callable[[FileEvent], None]
) -> QueueError | None:
    """Send the events in order, several at a time, and call `confirmed` for each. Return the first failure, or None.

    After a failure no further event is sent, and the results of the events in flight are awaited.
    """
    remaining = iter(events)
    failures: list[QueueError] = []

    async def send() -> None:
        while not failures and (event := next(remaining, None)) is not None:
            try:
                await queue.send_event(lane, event.body, message_id=event.id, content_type=event.content_type)
            except QueueError as error:
                failures.append(error)
            else:
                confirmed(event)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(MAX_IN_FLIGHT_EVENTS, len(events))):
            group.create_task(send())
    return failures[0] if failures else None


def format_line_ranges(events: Sequence[FileEvent], chosen: AbstractSet[FileEvent]) -> str:
    """Return the first lines of the `chosen` events as text, such as `1-300, 302`: a range for consecutive events."""
    grouped = groupby(events, key=chosen.__contains__)
    runs = [[event.line for event in run] for is_chosen, run in grouped if is_chosen]
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
