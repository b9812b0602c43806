"""Logs manual actions and who did them, at every level: whoever may set the level must not hide that way."""

import getpass
import logging
import os
import socket
from contextlib import suppress

import structlog


def operating_user() -> str:
    """Who runs this command: `alice@host`, or `root@host (sudo by alice)`."""
    name = "unknown"
    with suppress(OSError, KeyError):  # a user id without a name, as in containers
        name = getpass.getuser()
    by = os.environ.get("SUDO_USER")
    return f"{name}@{socket.gethostname()}" + (f" (sudo by {by})" if by else "")


_EVERY_LEVEL = structlog.make_filtering_bound_logger(logging.NOTSET)


def write_audit(action: str, **members: object) -> None:
    """Write one line, marked `audit`, with the usual processors. It must hold no `sub` or `sid`."""
    structlog.wrap_logger(None, wrapper_class=_EVERY_LEVEL).warning(action, audit=True, **members)
