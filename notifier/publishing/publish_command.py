"""`notifier publish`: publishes events from a file or stdin, after all of them have been checked."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import typer

from notifier.configuration.inline_senders import find_unlisted_user
from notifier.model.defaults import MAX_EVENT
from notifier.model.durations import format_in_words
from notifier.model.errors import QueueError
from notifier.model.message import Lane
from notifier.model.notice import DeliveryResult, Notice, SkipReason
from notifier.model.printable import counted, printable
from notifier.operators.terminal.command_options import Config, EventLane, Json, quiet_logs
from notifier.operators.terminal.known_registry import KnownRegistry, load_known_registry
from notifier.operators.terminal.output import make_progress, say, say_json
from notifier.operators.terminal.queue_access import read_queue, redact_urls, wait_until_ready
from notifier.publishing.event_file import EventFileRules, FileEvent, format_line_ranges, read_events, send_all
from notifier.publishing.notice_wait import EventNotices, NoticeWait, parse_wait
from notifier.queues.building import build_event_queue
from notifier.settings.queue_settings import QueueSettings

MAX_AWAITED_EVENTS = 1000  # events
MAX_REMARKED_BYTES = 64 * 1024  # larger files are not compared with the registry
MAX_LISTED_EVENTS = 20  # events that are listed individually
NOT_FINAL_STATUS = 3  # the exit status if a result is not final after --wait; HTTP answers 202 then
MAX_COLUMN_CHARACTERS = 40  # characters of a client_id before it breaks the column


EventFile = Annotated[Path, typer.Argument(allow_dash=True, help="A file with one event or many; - is stdin.")]
QueueUrl = Annotated[str | None, typer.Option(help="The queue, like queue.url; overrides the configuration.")]
LaneOption = Annotated[EventLane, typer.Option(help="bulk is for mass logouts: they are delivered after all others.")]
ResultWait = Annotated[
    str | None, typer.Option(metavar="DURATION", help="Wait for the result at each client; at most 30s.")
]


def publish(
    context: typer.Context,
    file: EventFile = Path("-"),
    config: Config = None,
    url: QueueUrl = None,
    lane: LaneOption = EventLane.EVENTS,
    wait: ResultWait = None,
    as_json: Json = False,
) -> None:
    """Publish events from a file or stdin, and wait until the queue has confirmed each.

    An event is a JSON object, bare or as a CloudEvent, on one line or several; more events may follow it. The command
    reads all of them before it sends the first: if any is wrong, it sends nothing and exits with 2. An event without
    an id gets one. Probable mistakes, such as an unknown client, are reported on stderr.

    If the queue becomes unavailable, the exit status is 1, and the command lists the lines that were not confirmed.
    Send those again; a copy does no harm. --json prints id, line and confirmed of each event.

    With --wait 5s it also shows the result at each client so far: delivered, retrying (with the reason and the next
    attempt), dead (with the reason), or skipped. It ends early if no further result can arrive in time. The exit status
    is 1 if an event, or a delivery of it, has become a dead letter by then, and otherwise 3 if a result is not final:
    the client is retried, or no worker has received the event yet. --wait takes at most 1,000 events.

    On RabbitMQ each event carries the user of the connection as `user_id`, so that `issuers.<iss>.publishers` can name
    it; not with `auth=external`, whose user the certificate names.

    It reads the queue and the issuers' names from the configuration, but no key. Without a configuration, give the
    queue by --url or NOTIFIER_QUEUE__URL (NOTIFIER_QUEUE__PASSWORD is a better place for a password than either).

    Examples:
        # one event from a file
        notifier publish -c n.yaml event.json
        # an event from stdin; with the broker's URL no configuration is needed
        echo '{"iss": "https://id.example.com", "sub": "alice", "clients": "*"}' | notifier publish --url amqp://mq/
        # one event, and its result at each client; exit status 3 if a result is not final yet
        notifier publish -c n.yaml --wait 5s event.json
        # a mass logout: JSON Lines, delivered after users who have just signed out
        notifier publish --lane bulk all.jsonl
        # the lines that were not confirmed, for a script
        notifier publish --json all.jsonl | jq 'select(.confirmed | not).line'
    """
    environ: Mapping[str, str] = os.environ if url is None else {**os.environ, "NOTIFIER_QUEUE__URL": url}
    part = read_queue(config, environ, "-c FILE, --url URL")
    queue = part.settings.queue
    content = _read_content(file)
    known = load_known_registry(config, context.obj) if len(content) <= MAX_REMARKED_BYTES else None
    events = _read_events(content, part.issuers, known)
    seconds = _wait_seconds(wait, len(events))
    quiet_logs()
    wait_for = None if seconds is None else NoticeWait((event.id for event in events), time.time)
    report = _PublishReport(events, as_json=as_json, notices=wait_for)
    try:
        failure = asyncio.run(_send(queue, Lane(lane), events, report, seconds))
    except BaseException:  # Ctrl-C, or stdout was closed
        report.conclude(queue, "interrupted")
        raise
    report.conclude(queue, None if failure is None else str(failure))
    raise typer.Exit(1 if failure is not None or report.has_dead else 0 if report.is_complete else NOT_FINAL_STATUS)


def _read_content(file: Path) -> bytes:
    if file != Path("-"):
        try:
            return file.read_bytes()
        except OSError as error:
            raise typer.BadParameter(f"{file} cannot be read: {error.strerror}", param_hint="FILE") from None
    if sys.stdin.isatty():
        say("Type an event as JSON, then Ctrl-D.", err=True)
    return sys.stdin.buffer.read()


def _read_events(content: bytes, issuers: Collection[str], known: KnownRegistry | None) -> Sequence[FileEvent]:
    """Return the events in a file, and report probable mistakes on stderr. Raises MalformedEvent if any is wrong."""
    registry = None if known is None or known.unread else known.registry
    rules = EventFileRules(
        max_bytes=MAX_EVENT, new_id=lambda: str(uuid4()), now=time.time(), issuers=issuers, registry=registry
    )
    events = read_events(content, rules)
    refused = {} if known is None else find_unlisted_user(known.settings)
    for event in events:
        for remark in (*event.remarks, *([refused[event.iss]] if event.iss in refused else ())):
            say(printable(f"notifier: line {event.line}: {remark}"), err=True)
    return events


def _wait_seconds(wait: str | None, events: int) -> float | None:
    """Return how long to wait for notices of this many events, or None without the option."""
    if wait is None:
        return None
    if events > MAX_AWAITED_EVENTS:
        raise typer.BadParameter(f"takes {MAX_AWAITED_EVENTS:,} events at most, not {events:,}", param_hint="--wait")
    try:
        return parse_wait(wait)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--wait") from None


async def _send(
    settings: QueueSettings, lane: Lane, events: Sequence[FileEvent], report: _PublishReport, seconds: float | None
) -> QueueError | None:
    queue = build_event_queue(settings)
    notices = report.notices
    if notices is not None:
        queue.receive_replies(notices.on_reply)
    await queue.open()
    try:
        await wait_until_ready(queue)
        failure = await send_all(queue, lane, events, report.confirm)
        if failure is None and notices is not None and seconds is not None:
            await notices.wait(seconds)
    except QueueError as error:
        return error
    else:
        return failure
    finally:
        await queue.close()


class _PublishReport:
    """Reports the result of each event: at once with `--json`, else at the end. Progress goes to stderr."""

    def __init__(self, events: Sequence[FileEvent], *, as_json: bool, notices: NoticeWait | None = None) -> None:
        self._events = events
        self._as_json = as_json
        self.notices = notices  # with --wait
        self._confirmed: set[FileEvent] = set()
        self._progress = make_progress("confirmed")

    def confirm(self, event: FileEvent) -> None:
        """Record that the queue has confirmed an event."""
        self._confirmed.add(event)
        if self._as_json and self.notices is None:
            self._report(event, confirmed=True)
        self._progress(len(self._confirmed), len(self._events))

    @property
    def has_dead(self) -> bool:
        """True if an event, or its delivery to one of its clients, has become a dead letter."""
        noted = () if self.notices is None else self.notices.events.values()
        return any(notice.fate is DeliveryResult.DEAD for event in noted for notice in event.known)

    @property
    def is_complete(self) -> bool:
        """True if the result of each event is final, or the command does not wait for results."""
        return self.notices is None or all(event.settled for event in self.notices.events.values())

    def _report(self, event: FileEvent, *, confirmed: bool) -> None:
        fates = {} if self.notices is None else self.notices.events[event.id].document()
        say_json({"id": event.id, "line": event.line, "confirmed": confirmed, **fates})

    def _report_fates(self, event: FileEvent) -> None:
        for line in () if self.notices is None else _format_notices(self.notices.events[event.id], time.time()):
            say(printable(f"  {line}"))

    def conclude(self, queue: QueueSettings, failure: str | None) -> None:
        """Report at the end which events were confirmed. `failure` is the reason if some were not."""
        lost = [event for event in self._events if event not in self._confirmed]
        if failure is not None:  # first, since stdout may be what failed
            say(f"notifier: {failure}", err=True)
            if self._confirmed:
                say(f"  confirmed: line {format_line_ranges(self._events, self._confirmed)}", err=True)
            if lost:
                lines = format_line_ranges(self._events, set(lost))
                say(f"  not confirmed: line {lines}; send again, a copy does no harm", err=True)
        if self._as_json:
            for event in lost if self.notices is None else self._events:
                self._report(event, confirmed=event in self._confirmed)
            return
        count = len(self._confirmed)
        if count <= MAX_LISTED_EVENTS or self.notices is not None:
            for event in self._events:
                if event in self._confirmed:
                    say(printable(f"line {event.line}: {event.id}"))
                    self._report_fates(event)
        say(f"{counted(count, 'event')} confirmed by {redact_urls(queue)[0]}")


def _format_notices(event: EventNotices, now: float) -> Iterator[str]:
    """Yield a line for each client, in the order of their first notices. `now` is in epoch seconds."""
    known = event.known
    width = min(MAX_COLUMN_CHARACTERS, max((len(notice.client_id) for notice in known), default=0))
    for notice in known:
        words = _format_notice(notice, now)
        yield f"{notice.client_id:{width}}  {words}" if notice.client_id else words
    if not known:
        yield "no result yet: no worker has received it, or it could not reply"
    elif not event.settled and (missing := (known[0].of or 0) - len(known)) > 0:
        yield f"no notice of {counted(missing, 'more client')} yet"


def _format_notice(notice: Notice, now: float) -> str:
    match notice.fate:
        case DeliveryResult.DELIVERED:
            return "delivered" if notice.attempts <= 1 else f"delivered, by attempt {notice.attempts}"
        case DeliveryResult.RETRYING:
            status = "" if notice.status is None else f" {notice.status}"
            due = "" if notice.next_due is None else f", again in {format_in_words(notice.next_due - now)}"
            return f"retrying: {notice.reason}{status}{due}" + (f" ({notice.text})" if notice.text else "")
        case DeliveryResult.DEAD:
            return f"dead: {notice.reason}" + (f" ({notice.text})" if notice.text else "")
        case DeliveryResult.SKIPPED:
            if not notice.client_id:
                return "skipped: no client of the issuer has a backchannel_logout_uri"
            if notice.reason == SkipReason.SESSION_ONLY:
                return "skipped: session_only (notifier.channel would end all sessions of the user; see its sessions)"
            return "skipped: it has no backchannel_logout_uri"
        case DeliveryResult.DUPLICATE:
            return "duplicate: a copy of an event that was received before"
