"""Checks at start whether the installed libraries have the internals that notifier's hooks use.

A hook works on a library past its public API. Without the internals the hook stays off, and notifier uses the public
API at a higher cost.
"""

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
    """Yield, for each library that these settings use, the function that examines the library.

    The function returns the hooks by name. It raises ConfigurationError if the library cannot be used.
    """
    from notifier.network.http.aiohttp_hooks import examine_aiohttp  # noqa: PLC0415  only a start needs these libraries

    yield examine_aiohttp
    if settings.queue.sqlite_file is None:
        from notifier.queues.rabbitmq.wire.aiormq_hooks import install  # noqa: PLC0415

        yield install


def library_hooks(settings: Settings) -> Sequence[Hook]:
    """Return all hooks into libraries, including unused hooks. Raises ConfigurationError."""
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
