"""What commands on a queue share: its settings, the wait until it can be used, and its URLs without secrets."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from notifier.cli.output import say
from notifier.domain.errors import ConfigurationError, Mistake, QueueUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from notifier.adapters.configuration.config_file import ReadPart
    from notifier.operations.queue_port import EventQueue
    from notifier.settings.service_settings import QueueSettings

CONNECT_TIMEOUT = 15.0  # seconds; then the queue counts as away
SILENT = 2.0  # seconds of waiting for the queue before a line says so


def read_queue(config: Path | None, environ: Mapping[str, str], options: str = "-c FILE") -> ReadPart:
    """Read only the queue's settings, and never a key. `options` can name a queue. Raises ConfigurationError."""
    from notifier.adapters.configuration.config_file import read_part

    if config is None and not _named(environ):
        raise ConfigurationError(
            [Mistake("queue.url", f"say where the queue is: {options}, NOTIFIER_CONFIG or NOTIFIER_QUEUE__URL")]
        )
    return read_part(config, environ, {"queue"})


def require_queue(config: Path | None, environ: Mapping[str, str], part: ReadPart) -> None:
    """Raise ConfigurationError if nobody has named a queue, and the one that would be looked at is not there."""
    file = part.settings.queue.sqlite_file
    if config is not None or _named(environ) or file is None or file.exists():
        return
    text = (
        f"no configuration is given, and the embedded queue that is used then, {file.absolute()}, is not there; name"
        " the configuration by -c FILE or NOTIFIER_CONFIG, or the queue by NOTIFIER_QUEUE__URL"
    )
    raise ConfigurationError([Mistake("queue.url", text)])


def _named(environ: Mapping[str, str]) -> bool:
    return any(environ.get(name) for name in ("NOTIFIER_QUEUE__URL", "NOTIFIER_QUEUE"))


async def wait_until_ready(queue: EventQueue) -> None:
    """Wait until the queue can be used. Raises QueueError."""
    try:
        async with asyncio.timeout(SILENT):
            await queue.ready()
    except TimeoutError:
        say(f"waiting for the queue: {queue.status().problem or 'not connected'}", err=True)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT - SILENT):
                await queue.ready()
        except TimeoutError:
            text = queue.status().problem or f"not connected within {CONNECT_TIMEOUT:.0f} s"
            raise QueueUnavailable(text) from None


def shown_urls(queue: QueueSettings) -> list[str]:
    """Each URL without its password and its query, which may hold a password too."""
    return [url if queue.sqlite_file is not None else _without_password(url) for url in queue.url]


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    return urlunsplit((parts.scheme, user.partition(":")[0] + at + host, parts.path, "", ""))
