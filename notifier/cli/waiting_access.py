"""What the commands on waiting deliveries share: the open queue, Ctrl-C, progress, and the issuer of a client."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer

from notifier.cli.command_options import quiet_logs
from notifier.cli.queue_access import read_queue, wait_until_ready
from notifier.domain.errors import QueueError

if TYPE_CHECKING:
    from notifier.adapters.configuration.config_file import ReadPart
    from notifier.operations.dead_letter_repair import RepairOptions
    from notifier.operations.queue_port import Queue

T = TypeVar("T")


def queue_part(config: Path | None, log_from: str = "critical") -> ReadPart:
    """Read only the queue's settings and the issuers' names. Raises ConfigurationError."""
    quiet_logs(log_from)
    return read_queue(config, os.environ)


def issuer_of(part: ReadPart, iss: str | None) -> str:
    """The issuer that is meant: the one given, or the only one of the configuration."""
    if iss is not None:
        return iss
    if len(part.issuers) == 1:
        return next(iter(part.issuers))
    known = f": there are {', '.join(sorted(part.issuers))}" if part.issuers else ", whose client it is"
    raise typer.BadParameter(f"say which issuer{known}", param_hint="--iss")


def deliveries(count: int) -> str:
    """The number with its noun."""
    return f"{count:,} {'delivery' if count == 1 else 'deliveries'}"


def run_on_queue(
    part: ReadPart,
    act: Callable[[Queue, RepairOptions], Awaitable[T]],
    *,
    what: str,
    limit: int | None = None,
    dry_run: bool = False,
) -> T:
    """Open the queue, and act on it. The options stop at Ctrl-C, and show progress. Raises QueueError."""
    import uvloop

    from notifier.app import build_queue
    from notifier.cli.output import progress_of
    from notifier.operations.dead_letter_repair import RepairOptions

    settings = part.settings.queue
    file = settings.sqlite_file
    if file is not None and not file.exists():
        raise QueueError(f"there is no queue file {file}; a worker or `notifier publish` makes it")

    async def run() -> T:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)

        async def pause(seconds: float) -> None:
            try:
                async with asyncio.timeout(seconds):
                    await stop.wait()
            except TimeoutError:
                pass

        queue = build_queue(settings)
        await queue.open()
        try:
            await wait_until_ready(queue)
            with progress_of(what) as progress:
                options = RepairOptions(
                    clock=time.time, steady=time.monotonic, pause=pause, progress=progress, stop=stop.is_set,
                    limit=limit, dry_run=dry_run,
                )  # fmt: skip
                return await act(queue, options)
        finally:
            await queue.close()

    return uvloop.run(run())
