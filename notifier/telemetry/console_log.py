"""Renders log lines for people: time and level first, success in green, failure in red."""

from collections.abc import Mapping

from structlog.dev import Column, ConsoleRenderer, KeyValueColumnFormatter, LogLevelColumnFormatter, plain_traceback
from structlog.typing import EventDict, WrappedLogger

EVENT_WIDTH = 16  # of most events
FIRST = ("client_id", "reason", "status", "error")  # of the rest, what tells most

_RESET, _BOLD, _DIM = "\x1b[0m", "\x1b[1m", "\x1b[2m"
_RED, _GREEN, _YELLOW, _CYAN = "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[36m"
_LEVELS: Mapping[str, str] = {"debug": _DIM, "info": "", "warning": _YELLOW, "error": _BOLD + _RED}
_OUTCOMES: Mapping[object, str] = {"delivered": _GREEN, "refused": _RED, "failed": _RED}
_QUOTED = frozenset(" =\"'")


def console_renderer(*, colors: bool) -> ConsoleRenderer:
    """Return the last processor of such a line. `time` is RFC 3339."""
    bold, dim, cyan, reset = (_BOLD, _DIM, _CYAN, _RESET) if colors else ("", "", "", "")
    name, pair = KeyValueColumnFormatter(None, dim, reset, str), KeyValueColumnFormatter(cyan, "", reset, _value)
    return ConsoleRenderer(
        sort_keys=False,
        exception_formatter=plain_traceback,
        columns=[
            Column("time", KeyValueColumnFormatter(None, dim, reset, _time)),
            Column("level", LogLevelColumnFormatter({level: _LEVELS[level] * colors for level in _LEVELS}, reset)),
            Column("event", KeyValueColumnFormatter(None, bold, reset, str, width=EVENT_WIDTH)),
            Column("logger", name),
            Column("outcome", lambda _key, value: f"{_OUTCOMES.get(value, '') * colors}{value!s:9}{reset}"),
            *(Column(key, pair) for key in FIRST),
            Column("", pair),
        ],
    )


def without_nothing(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    """Remove members without a value."""
    return {name: value for name, value in line.items() if value is not None}


def _time(value: object) -> str:
    """Return `2026-01-31 12:00:00.123Z`."""
    return f"{str(value)[:23].replace('T', ' ')}Z"


def _value(value: object) -> str:
    if isinstance(value, str):
        return repr(value) if not value or _QUOTED & set(value) else value
    return repr(value)
