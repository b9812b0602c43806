"""Provides what commands on a queue share: its settings, the open queue, passes that Ctrl-C stops, URLs to print."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit, urlunsplit

import uvloop

from notifier.model.errors import ConfigurationError, InputIssue, PassStopped, QueueError, QueueUnavailable
from notifier.model.moment import wait_for_event
from notifier.operators.terminal.command_options import quiet_logs
from notifier.operators.terminal.output import make_progress, say
from notifier.queues.building import build_queue
from notifier.queues.passes import RepairOptions, stopped_by
from notifier.queues.queue_port import EventQueue, Queue
from notifier.queues.sqlite.lock import find_moved_file
from notifier.settings.config_file import PartialSettings, read_sections
from notifier.settings.queue_settings import QueueSettings

T = TypeVar("T")
CONNECT_TIMEOUT_SECONDS = 15.0  # after which the queue is unavailable
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
QUIET_SECONDS = 2.0  # after which a command reports that it waits for the queue
REQUEST_QUIET_SECONDS = 4.0  # … or for a request, of which the answers of workers may take 2 s


def read_queue(config: Path | None, environ: Mapping[str, str], options: str = "-c FILE") -> PartialSettings:
    """Read the queue's settings and the issuers' names. Raises ConfigurationError, also if nothing names a queue.

    A configuration or a variable can name it. The error lists `options`, the command's options that can name one.
    """
    if config is None and not _is_named(environ):
        raise ConfigurationError(
            [InputIssue("queue.url", f"name the queue: {options}, NOTIFIER_CONFIG or NOTIFIER_QUEUE__URL")]
        )
    return read_sections(config, environ, {"queue"})


def require_queue(config: Path | None, environ: Mapping[str, str], part: PartialSettings) -> None:
    """Raise ConfigurationError if no queue is named and the file of the default queue does not exist."""
    file = part.settings.queue.sqlite_file
    if config is not None or _is_named(environ) or file is None or file.exists():
        return
    text = (
        f"no configuration is given, and the default queue, {file.absolute()}, does not exist; name"
        " the configuration by -c FILE or NOTIFIER_CONFIG, or the queue by NOTIFIER_QUEUE__URL"
    )
    raise ConfigurationError([InputIssue("queue.url", text)])


def _is_named(environ: Mapping[str, str]) -> bool:
    """Return True if an environment variable names the queue."""
    return any(environ.get(name) for name in ("NOTIFIER_QUEUE__URL", "NOTIFIER_QUEUE"))


def load_queue_part(config: Path | None, log_from: str = "critical") -> PartialSettings:
    """Read the queue's settings and the issuers' names. Log from the level `log_from` on. Raises ConfigurationError."""
    quiet_logs(log_from)
    return read_queue(config, os.environ)


@asynccontextmanager
async def open_queue(settings: QueueSettings, *, opening: bool) -> AsyncIterator[Queue]:
    """Open the queue, yield it when it can be used, and close it. Raises QueueError.

    Without `opening`, a queue on RabbitMQ is not opened: each pass over its messages uses a separate connection.
    """
    file = settings.sqlite_file
    if file is not None and not file.exists():
        text = find_moved_file(file) or f"there is no queue file {file}; a worker or `notifier publish` makes it"
        raise QueueError(text)
    queue = build_queue(settings)
    if not opening and file is None:
        yield queue
        return
    async with opened(queue):
        yield queue


@asynccontextmanager
async def opened(queue: Queue) -> AsyncIterator[None]:
    """Open the queue for the block, once it can be used, unless it is open already. Raises QueueError."""
    if queue.status().connected:
        yield
        return
    await queue.open()
    try:
        await wait_until_ready(queue)
        yield
    finally:
        await queue.close()


def run_on_queue(
    settings: QueueSettings,
    act: Callable[[Queue, RepairOptions], Awaitable[T]],
    *,
    progress_text: str,
    opening: bool = True,
    rate: float | None = None,
    limit: int | None = None,
    dry_run: bool = False,
) -> T:
    """Open the queue, call `act`, and return its result. Raises QueueError. `opening`: as `open_queue` receives it.

    The options that `act` receives stop a pass at Ctrl-C, and print progress with `progress_text`.
    """

    async def run() -> T:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, stop.set)

        options = RepairOptions(
            clock=time.time, monotonic=time.monotonic, pause=partial(wait_for_event, stop),
            progress=make_progress(progress_text), stop=stop.is_set, rate=rate, limit=limit, dry_run=dry_run,
            patient=rate is not None, opening=partial(stopped_by, stop),
        )  # fmt: skip
        try:
            async with open_queue(settings, opening=opening) as queue:
                return await act(queue, options)
        finally:
            for number in STOP_SIGNALS:  # otherwise uvloop would ignore these signals after the loop is closed
                loop.remove_signal_handler(number)

    return uvloop.run(run())


def run_request(settings: QueueSettings, act: Callable[[Queue], Awaitable[T]], stopped_text: str) -> T:
    """Call `act` with the queue, which is not opened on RabbitMQ, and return its result. Raises QueueError.

    If that takes long, print that it waits. Ctrl-C and SIGTERM end it, by PassStopped with `stopped_text`.
    """

    async def run(queue: Queue, options: RepairOptions) -> T:
        notice = asyncio.get_running_loop().call_later(
            REQUEST_QUIET_SECONDS, partial(say, "waiting for the queue", err=True)
        )
        try:
            async with options.opening():
                return await act(queue)
        except PassStopped:
            raise PassStopped(stopped_text) from None
        finally:
            notice.cancel()

    return run_on_queue(settings, run, progress_text="", opening=False)


async def wait_until_ready(queue: EventQueue) -> None:
    """Wait until the queue can be used. Print the reason if that takes long. Raises QueueUnavailable."""
    try:
        async with asyncio.timeout(QUIET_SECONDS):
            await queue.wait_until_ready()
    except TimeoutError:
        say(f"waiting for the queue: {queue.status().problem or 'not connected'}", err=True)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS - QUIET_SECONDS):
                await queue.wait_until_ready()
        except TimeoutError:
            text = queue.status().problem or f"not connected within {CONNECT_TIMEOUT_SECONDS:.0f} s"
            raise QueueUnavailable(text) from None


def redact_urls(queue: QueueSettings) -> list[str]:
    """Return each URL without its password and its query, which may contain a password too."""
    return [url if queue.sqlite_file is not None else _without_password(url) for url in queue.url]


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    return urlunsplit((parts.scheme, user.partition(":")[0] + at + host, parts.path, "", ""))
