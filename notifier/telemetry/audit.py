"""Logs manual actions with the operator's name at every log level, and keeps the newest lines for the console."""

import getpass
import logging
import os
import socket
import time
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import chain
from sys import getsizeof
from typing import Any

import structlog

from notifier.model.printable import printable
from notifier.model.shared_resources import shared_bound, shared_ring
from notifier.telemetry.log_stream import current_output

CLAIMED_SUFFIX = " (claimed)"
"""Ends a name that a command claims. The name of an API token is proven."""


def operating_user() -> str:
    """Return the user that runs this command: `alice@host (claimed)`, or `root@host (sudo by alice) (claimed)`."""
    name = "unknown"
    with suppress(OSError, KeyError):  # a user id without a name, as in containers
        name = getpass.getuser()
    sudo_user = os.environ.get("SUDO_USER")
    suffix = f" (sudo by {sudo_user})" if sudo_user else ""
    return mark_claimed(printable(f"{name}@{socket.gethostname()}{suffix}"))


def mark_claimed(who: str) -> str:
    """Return a name from a request between workers, of which anyone who may use the queue may be the sender."""
    return who.removesuffix(CLAIMED_SUFFIX)[:MAX_NAME_CHARACTERS] + CLAIMED_SUFFIX


MAX_NAME_CHARACTERS = 200
MAX_LINES_PER_KIND = 20  # for each user and action, so that frequent actions do not displace others
MAX_BYTES_PER_KIND = 16_384  # of these lines; the oldest are dropped
MAX_KINDS = shared_bound(100)  # pairs of user and action; a new pair replaces the least recent

_EVERY_LEVEL = structlog.make_filtering_bound_logger(logging.NOTSET)


_recent: OrderedDict[tuple[object, str], deque[tuple[int, Mapping[str, Any]]]] = OrderedDict()
"""Lines with their sizes in bytes, by user and action."""


def recent_lines() -> Sequence[Mapping[str, Any]]:
    """Return the newest lines of this process, oldest first, each with `at` (epoch seconds) and `action`."""
    lines = (line for _, line in chain.from_iterable(_recent.values()))
    return sorted(lines, key=lambda line: float(line["at"]))


def write_audit(action: str, **members: object) -> None:
    """Log one line, marked `audit`, and keep it for `recent_lines`. It must not contain a `sub` or `sid`."""
    who = str(members.get("who"))
    kind = CLAIMED_SUFFIX if who.endswith(CLAIMED_SUFFIX) else who, action  # commands may claim any number of names
    line = {"at": time.time(), "action": action, **members}
    lines = _recent.setdefault(kind, shared_ring(MAX_LINES_PER_KIND))
    lines.append((getsizeof(repr(line)), line))
    while len(lines) > 1 and sum(size for size, _ in lines) > MAX_BYTES_PER_KIND:
        lines.popleft()
    _recent.move_to_end(kind)
    if len(_recent) > MAX_KINDS:
        _recent.popitem(last=False)
    output = current_output()
    logger = None if output is None else output.audit_logger
    structlog.wrap_logger(logger, wrapper_class=_EVERY_LEVEL).warning(action, audit=True, **members)
