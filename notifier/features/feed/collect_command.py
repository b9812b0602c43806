"""`notifier collect`: reads the feed from RabbitMQ into a file for `notifier report`."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from notifier.features.feed.feed_collection import FeedCollection
from notifier.features.feed.feed_collector import FeedCollector
from notifier.features.feed.feed_file import FeedFile
from notifier.model.durations import parse_duration
from notifier.model.errors import ConfigurationError, Mistake, QueueUnavailable
from notifier.model.printable import counted
from notifier.operators.terminal.command_options import Config, Json, quiet_logs
from notifier.operators.terminal.output import say, say_json
from notifier.operators.terminal.screen import screen
from notifier.queues.building import rabbit_options
from notifier.queues.rabbitmq.options import RabbitOptions
from notifier.queues.sqlite.feed_table import Retention
from notifier.settings.config_file import read_part

OUTCOMES_FILE = Path("outcomes.db")
CONNECT_TIMEOUT = 15.0  # seconds; then the broker counts as away
PLAIN_EVERY = 30.0  # seconds between two lines of progress off a terminal


def duration(text: str) -> float:
    """Read a duration of an option, in seconds."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def collect(
    config: Config = None,
    file: Annotated[Path, typer.Option(dir_okay=False, help="The file; it is made if it is missing.")] = OUTCOMES_FILE,
    lasting: Annotated[
        float | None, typer.Option("--for", parser=duration, metavar="DURATION", help="End after this time.")
    ] = None,
    drain: Annotated[bool, typer.Option("--drain", help="End once everything that waits is collected.")] = False,
    keep: Annotated[str, typer.Option(metavar="DURATION", help="Keep outcomes for this time.")] = "30d",
    most: Annotated[int, typer.Option(min=1, help="Keep at most this many outcomes; the oldest go first.")] = 5_000_000,
    as_json: Json = False,
) -> None:
    """Read outcomes from RabbitMQ into a file for `report`, until SIGTERM or SIGINT.

    It binds the durable queue <prefix>.collected to the exchange of outcomes. From then on the queue keeps what comes
    while no collector runs: 256 MiB for 7 days, and drops the oldest first. Set outcomes: all for the workers; else
    there is nothing to collect. The file keeps each outcome once.

    The embedded queue needs no collector: notifier report reads its file.

    Examples:
        # beside the workers, until SIGTERM
        notifier collect -c n.yaml
        # what has come since the last time, then end: for a timer
        notifier collect -c n.yaml --drain
        # for an hour, into a file of its own
        notifier collect -c n.yaml --for 1h --file canary.db
    """
    options = _options(config)
    archive = FeedFile.open(file, Retention(most=most, age=duration(keep)))
    with closing(archive), _progress() as progress:
        collecting = FeedCollection(archive, progress)
        asyncio.run(_collect(options, collecting, lasting, drain=drain))
    _conclude(collecting, file, as_json=as_json)


def _options(config: Config) -> RabbitOptions:
    quiet_logs()
    queue = read_part(config, os.environ, {"queue"}).settings.queue
    if queue.sqlite_file is not None:
        text = f"{queue.url[0]} is the embedded queue, which keeps its outcomes itself; run notifier report"
        raise ConfigurationError([Mistake("queue.url", text)])
    return rabbit_options(queue)


async def _collect(options: RabbitOptions, collecting: FeedCollection, lasting: float | None, *, drain: bool) -> None:
    """Collect until a signal, or the end of the time. Raises QueueError if it cannot begin."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if lasting is not None:
        loop.call_later(lasting, stop.set)
    collector = FeedCollector(options, collecting.take)
    running = asyncio.create_task(collector.run())
    ends = [asyncio.create_task(stop.wait()), *([asyncio.create_task(collector.drained.wait())] if drain else [])]
    try:
        await _begin(collector, ends)
        await asyncio.wait({running, *ends}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (*ends, running):
            task.cancel()
        await asyncio.wait({running, *ends})


async def _begin(collector: FeedCollector, ends: Sequence[asyncio.Task[bool]]) -> None:
    ready = asyncio.create_task(collector.ready())
    await asyncio.wait({ready, *ends}, timeout=CONNECT_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
    if ready.done():
        ready.result()
        return
    ready.cancel()
    await asyncio.wait({ready})
    if not any(task.done() for task in ends):
        raise QueueUnavailable(collector.problem or f"not connected within {CONNECT_TIMEOUT:.0f} s")


def _conclude(collecting: FeedCollection, file: Path, *, as_json: bool) -> None:
    if as_json:
        counts = {"collected": collecting.kept, "again": collecting.again, "unreadable": collecting.unreadable}
        say_json({**counts, "file": str(file)})
        return
    more = [f"{collecting.again:,} had come before"] if collecting.again else []
    more += [f"{collecting.unreadable:,} messages were not outcomes"] if collecting.unreadable else []
    note = f" ({', '.join(more)})" if more else ""
    say(f"{counted(collecting.kept, 'outcome')} collected into {file}{note}")


@contextmanager
def _progress() -> Iterator[Callable[[int], object]]:
    """Show how many outcomes are collected: in place on a terminal, else by a line now and then."""
    if sys.stderr.isatty():
        with screen(err=True).status("collecting; Ctrl-C ends it") as status:
            yield lambda count: status.update(f"{count:,} outcomes collected; Ctrl-C ends it")
        return
    due = time.monotonic() + PLAIN_EVERY

    def tell(count: int) -> None:
        nonlocal due
        if time.monotonic() >= due:
            due = time.monotonic() + PLAIN_EVERY
            say(f"{count:,} outcomes collected so far", err=True)

    yield tell
