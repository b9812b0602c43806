"""Checks at start the libraries whose internals a worker with these settings uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from notifier.model.library_hooks import Hook
    from notifier.settings.service_settings import Settings

UPDATE_ADVICE = "install a version that works, or a release of notifier that was tested with the installed one"
EXPLAIN_COMMAND = "notifier explain NotifierLibraryHookOff"


def examinations(settings: Settings) -> Iterator[Callable[[], Mapping[str, Hook]]]:
    """Yield functions that return hooks by name, or raise ConfigurationError for a library that cannot be used."""
    from notifier.network.http.aiohttp_hooks import examine_aiohttp  # noqa: PLC0415  only a start needs these libraries

    yield examine_aiohttp
    if settings.queue.sqlite_file is None:
        from notifier.queues.rabbitmq.wire.aiormq_hooks import install  # noqa: PLC0415

        yield install


def library_hooks(settings: Settings) -> Sequence[Hook]:
    """Return the hooks into libraries, in use or not. Raises ConfigurationError."""
    return [hook for examine in examinations(settings) for hook in examine().values()]


def log_hooks(settings: Settings) -> None:
    """Log each hook that is not in use."""
    for hook in library_hooks(settings):
        if hook.difference is not None:
            structlog.get_logger().warning(
                "library_hook_off",
                hook=hook.name,
                reason=hook.reason,
                cost=hook.cost,
                hint=UPDATE_ADVICE,
                help=EXPLAIN_COMMAND,
            )
