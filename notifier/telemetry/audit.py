"""Logs manual actions and who did them, at every level: whoever may set the level must not hide that way."""

import getpass
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import structlog


def operating_user() -> str:
    """Who runs this command: `alice@host`, or `root@host (sudo by alice)`."""
    name = "unknown"
    with suppress(OSError, KeyError):  # a user id without a name, as in containers
        name = getpass.getuser()
    by = os.environ.get("SUDO_USER")
    return f"{name}@{socket.gethostname()}" + (f" (sudo by {by})" if by else "")


KEPT = 200  # lines

_EVERY_LEVEL = structlog.make_filtering_bound_logger(logging.NOTSET)


_lately: deque[Mapping[str, Any]] = deque(maxlen=KEPT)


def lately() -> Sequence[Mapping[str, Any]]:
    """Return the newest lines of this process, each with `at` (epoch seconds) and `action`."""
    return tuple(_lately)


def write_audit(action: str, **members: object) -> None:
    """Write one line, marked `audit`, with the usual processors. It must hold no `sub` or `sid`."""
    _lately.append({"at": time.time(), "action": action, **members})
    structlog.wrap_logger(None, wrapper_class=_EVERY_LEVEL).warning(action, audit=True, **members)
