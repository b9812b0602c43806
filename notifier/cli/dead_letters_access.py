"""What the commands on dead letters share: which ones are meant, the way to them, and progress on a terminal."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import mkstemp
from typing import IO, TYPE_CHECKING, Annotated

import typer

from notifier.cli.output import say
from notifier.domain.errors import ConfigurationError, Mistake, QueueError, QueueUnavailable

if TYPE_CHECKING:
    from notifier.domain.letter_filter import LetterFilter
    from notifier.operations.dead_letter_listing import DeadLetters
    from notifier.operations.queue_port import Queue
    from notifier.settings import QueueSettings

CONNECT_TIMEOUT = 15.0  # seconds; then the queue is away
PLAIN_EVERY = 2.0  # seconds between two lines of progress off a terminal

Ids = Annotated[
    list[str] | None, typer.Argument(metavar="[ID]…", help="Only the letters with these IDs.", show_default=False)
]
ClientId = Annotated[str | None, typer.Option("--client-id", help="Only letters of this client.", show_default=False)]
Iss = Annotated[str | None, typer.Option("--iss", help="Only letters of this issuer.", show_default=False)]
EventId = Annotated[str | None, typer.Option("--event-id", help="Only letters of this event.", show_default=False)]
Reasons = Annotated[
    list[str] | None,
    typer.Option("--reason", help="Only letters with this reason; may be repeated.", show_default=False),
]
Since = Annotated[
    str | None,
    typer.Option(help="Only letters not older: 2026-01-31T12:00:00Z, or 24h (ago).", show_default=False),
]
Until = Annotated[str | None, typer.Option(help="Only letters not newer, likewise.", show_default=False)]
Subject = Annotated[str | None, typer.Option(help="Only letters about this sub or sid.", show_default=False)]


def wanted_of(
    ids: list[str] | None,
    client_id: str | None,
    iss: str | None,
    event_id: str | None,
    reasons: list[str] | None,
    since: str | None,
    until: str | None,
    subject: str | None,
) -> LetterFilter:
    """Which letters the options mean. Raises BadParameter."""
    from notifier.domain.letter_filter import LetterFilter, read_reasons, read_when

    try:
        return LetterFilter(
            ids=frozenset(ids or ()),
            client_id=client_id,
            iss=iss,
            event_id=event_id,
            reasons=read_reasons(reasons or ()),
            since=None if since is None else read_when(since, time.time()),
            until=None if until is None else read_when(until, time.time()),
            subject=subject,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def queue_settings(config: Path | None) -> QueueSettings:
    """Of the configuration only the queue, never a key. Raises ConfigurationError."""
    from notifier.adapters.configuration.config_file import read_part

    if config is None and not any(os.environ.get(name) for name in ("NOTIFIER_QUEUE__URL", "NOTIFIER_QUEUE")):
        text = "say where the queue is: -c FILE, or NOTIFIER_QUEUE__URL"
        raise ConfigurationError([Mistake("queue.url", text)])
    return read_part(config, os.environ, {"queue"}).settings.queue


@asynccontextmanager
async def opened_letters(settings: QueueSettings, *, writing: bool) -> AsyncIterator[DeadLetters]:
    """The dead letters of the queue. Raises QueueError."""
    from notifier.app import build_queue

    file = settings.sqlite_file
    if file is not None and not file.exists():
        raise QueueError(f"there is no queue file {file}; a worker or `notifier publish` makes it")
    queue = build_queue(settings)
    if not writing and file is None:
        yield queue.dead_letters()
        return
    await queue.open()
    try:
        await _ready(queue)
        yield queue.dead_letters()
    finally:
        await queue.close()


async def _ready(queue: Queue) -> None:
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            await queue.ready()
    except TimeoutError:
        text = queue.status().problem or f"not connected within {CONNECT_TIMEOUT:.0f} s"
        raise QueueUnavailable(text) from None


@contextmanager
def written_anew(file: Path) -> Iterator[IO[str]]:
    """What is to be written there, for its owner alone; `-` is stdout. A file takes its place once all is written.

    It is made beside, since one that is there keeps its mode, and what is open stays open, when it is written over.
    What is no regular file (`/dev/null`, a pipe) is written to as it is. Raises OSError.
    """
    to_stdout = file == Path("-")
    if to_stdout or (file.exists() and not file.is_file()):
        with open(1 if to_stdout else file, "w", encoding="utf-8", closefd=not to_stdout) as out:
            yield out
        return
    descriptor, made = mkstemp(dir=file.parent, prefix=f".{file.name}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            yield out
        Path(made).replace(file)
    except BaseException:
        Path(made).unlink()
        raise


@contextmanager
def progress_of(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show how far it is: drawn on a terminal, else a line now and then, both on stderr."""
    if not sys.stderr.isatty():
        due = time.monotonic() + PLAIN_EVERY

        def tell(seen: int, of: int) -> None:
            nonlocal due
            if time.monotonic() >= due:
                due = time.monotonic() + PLAIN_EVERY
                say(f"{what}: {seen:,} of {of:,}", err=True)

        yield tell
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from notifier.cli.screen import screen

    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen(err=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda seen, of: progress.update(task, completed=seen, total=of)
