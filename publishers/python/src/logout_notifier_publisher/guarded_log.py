"""The package's logger. A handler of the application that raises must not end a lane, nor stop a sign-out."""

import logging
from contextlib import suppress
from typing import Any

NAME = "notifier.publisher"


class GuardedLogger(logging.LoggerAdapter[logging.Logger]):
    """Logs to the application's handlers, and ignores their errors."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log a line. Never raises."""
        with suppress(Exception):
            super().log(level, msg, *args, **{**kwargs, "stacklevel": 2})  # the caller's line, not this one


log = GuardedLogger(logging.getLogger(NAME), {})
