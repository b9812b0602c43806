"""`notifier publish`: events from a file or stdin into the queue, all judged before the first is sent."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import uuid4

import typer

from notifier.cli.options import Config, Json, quiet_logs
from notifier.domain.errors import ConfigurationError, Mistake, QueueError, QueueUnavailable
from notifier.domain.message import Lane

if TYPE_CHECKING:
    from notifier.adapters.config_file import ReadPart
    from notifier.app import Queue
    from notifier.operations.publishing import Written
    from notifier.settings import QueueSettings

CONNECT_TIMEOUT = 15.0  # seconds; then the queue is away
TOLD_AFTER = 2.0  # seconds of waiting for it in silence
PLAIN_EVERY = 2.0  # seconds between two lines of progress off a terminal
LISTED = 20  # so many events are named one by one

EXAMPLES = (
    ("one event from a file", "notifier publish -c n.yaml event.json"),
    (
        "one made up here; no configuration is needed where the broker is named",
        """echo '{"iss": "https://id.example.com", "sub": "alice", "clients": "*"}' | notifier publish --url amqp://mq/""",
    ),
    ("a mass logout: JSON Lines, behind everybody who has just signed out", "notifier publish --lane bulk all.jsonl"),
    ("what was not confirmed, for a script", "notifier publish --json all.jsonl | jq 'select(.confirmed | not).line'"),
)


class Into(StrEnum):
    """The lanes that take events from publishers."""

    EVENTS = "events"
    BULK = "bulk"


def publish(
    file: Annotated[
        Path,
        typer.Argument(allow_dash=True, help="One event or many; - is stdin."),
    ] = Path("-"),
    config: Config = None,
    url: Annotated[
        str | None, typer.Option(help="The queue, as queue.url; wins over the configuration.", show_default=False)
    ] = None,
    lane: Annotated[Into, typer.Option(help="bulk for mass logouts, which stand behind all others.")] = Into.EVENTS,
    as_json: Json = False,
) -> None:
    """Publish events from a file or stdin, and wait for their confirms.

    An event is a JSON object, bare or CloudEvents, on one line or many; several follow one another. All are checked
    before the first is sent: if one is wrong, nothing is sent and the exit status is 2. Then each is sent as any
    publisher would, and waited for until the queue has confirmed it. An event without an id gets one.

    If the queue goes away the exit status is 1, and the lines that were not confirmed are told: send those again, a
    copy does no harm. --json prints id, line and confirmed of each event.

    Of the configuration only the queue and the issuers' names are read, never a key. Without one, --url or
    NOTIFIER_QUEUE__URL says where the queue is (a password is better in NOTIFIER_QUEUE__PASSWORD than there).
    """
    from notifier.operations.publishing import Reading, read_events

    part = _read_part(config, url)
    queue = part.settings.queue
    reading = Reading(max_bytes=queue.max_event, new_id=lambda: str(uuid4()), now=time.time(), issuers=part.issuers)
    events = read_events(_content(file), reading)
    quiet_logs()
    report = _Report(events, as_json=as_json)
    try:
        with report.progress():
            failure = asyncio.run(_send(queue, Lane(lane), events, report))
    except BaseException:  # Ctrl-C, or nobody reads stdout any more
        report.conclude(queue, "interrupted")
        raise
    report.conclude(queue, None if failure is None else str(failure))
    raise typer.Exit(0 if failure is None else 1)


def _read_part(config: Path | None, url: str | None) -> ReadPart:
    from notifier.adapters.config_file import read_part

    environ: Mapping[str, str] = os.environ if url is None else {**os.environ, "NOTIFIER_QUEUE__URL": url}
    if config is None and not any(environ.get(name) for name in ("NOTIFIER_QUEUE__URL", "NOTIFIER_QUEUE")):
        text = "say where the queue is: -c FILE, --url URL, or NOTIFIER_QUEUE__URL"
        raise ConfigurationError([Mistake("queue.url", text)])
    return read_part(config, environ, {"queue"})


def _content(file: Path) -> bytes:
    if file != Path("-"):
        try:
            return file.read_bytes()
        except OSError as error:
            raise typer.BadParameter(f"{file} cannot be read: {error.strerror}", param_hint="FILE") from None
    if sys.stdin.isatty():
        typer.echo("Type an event as JSON, then Ctrl-D.", err=True)
    return sys.stdin.buffer.read()


async def _send(settings: QueueSettings, lane: Lane, events: Sequence[Written], report: _Report) -> QueueError | None:
    from notifier.app import build_queue
    from notifier.operations.publishing import send_all

    queue = build_queue(settings)
    await queue.open()
    try:
        await _ready(queue)
        return await send_all(queue, lane, events, report.confirm)
    except TimeoutError:
        return QueueUnavailable(queue.status().problem or f"not connected within {CONNECT_TIMEOUT:.0f} s")
    except QueueError as error:
        return error
    finally:
        await queue.close()


async def _ready(queue: Queue) -> None:
    """Return when the queue takes events. Raises TimeoutError, QueueError."""
    try:
        async with asyncio.timeout(TOLD_AFTER):
            await queue.ready()
    except TimeoutError:
        typer.echo(f"waiting for the queue: {queue.status().problem or 'not connected'}", err=True)
        async with asyncio.timeout(CONNECT_TIMEOUT - TOLD_AFTER):
            await queue.ready()


class _Report:
    """What became of each event: told as it comes with `--json`, else at the end. Progress goes to stderr."""

    def __init__(self, events: Sequence[Written], *, as_json: bool) -> None:
        self._events = events
        self._as_json = as_json
        self._confirmed: set[Written] = set()
        self._tick: Callable[[], object] = lambda: None

    def confirm(self, event: Written) -> None:
        """The queue has it."""
        self._confirmed.add(event)
        if self._as_json:
            self._tell(event, confirmed=True)
        self._tick()

    def _tell(self, event: Written, *, confirmed: bool) -> None:
        typer.echo(json.dumps({"id": event.id, "line": event.line, "confirmed": confirmed}, ensure_ascii=False))

    @contextmanager
    def progress(self) -> Iterator[None]:
        """Show how far it is: drawn on a terminal, else a line now and then."""
        if not sys.stderr.isatty():
            self._tick = self._plain(time.monotonic() + PLAIN_EVERY).__next__
            yield
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        columns = ("[progress.description]{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("confirmed", total=len(self._events))
            self._tick = lambda: progress.advance(task)
            yield

    def _plain(self, due: float) -> Iterator[None]:
        while True:
            if time.monotonic() >= due:
                due = time.monotonic() + PLAIN_EVERY
                typer.echo(f"{len(self._confirmed):,} of {len(self._events):,} confirmed", err=True)
            yield

    def conclude(self, queue: QueueSettings, failure: str | None) -> None:
        """The account at the end; `failure` says why not all are confirmed."""
        from notifier.cli.queue_url import shown_urls
        from notifier.operations.publishing import line_ranges

        lost = [event for event in self._events if event not in self._confirmed]
        if failure is not None:  # first, since stdout may be what failed
            typer.echo(f"notifier: {failure}", err=True)
            if self._confirmed:
                typer.echo(f"  confirmed: line {line_ranges(self._events, self._confirmed)}", err=True)
            if lost:
                lines = line_ranges(self._events, set(lost))
                typer.echo(f"  not confirmed: line {lines}; send again, a copy does no harm", err=True)
        if self._as_json:
            for event in lost:
                self._tell(event, confirmed=False)
            return
        count = len(self._confirmed)
        if count <= LISTED:
            for event in self._events:
                if event in self._confirmed:
                    typer.echo(f"line {event.line}: {event.id}")
        typer.echo(f"{count:,} event{'' if count == 1 else 's'} confirmed by {shown_urls(queue)[0]}")
