"""Sets up the log of the process: JSON lines, or coloured text on a terminal. Secrets are redacted.

An output that fails, or that nobody reads, loses log lines, but never stops the process.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Callable
from typing import Literal, TextIO, cast

import structlog
from pydantic_core import PydanticSerializationError, to_json
from structlog.dev import ConsoleRenderer, plain_traceback
from structlog.typing import EventDict, Processor, WrappedLogger

from notifier.model.printable import printable, printable_lines
from notifier.model.redaction import redact
from notifier.telemetry.log_stream import LogOutput, current_output

_MULTILINE_MEMBERS = frozenset({"event", "exception", "stack"})  # `event` of libraries' lines


def escape_control_characters(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    """Replace the control characters in a line for a terminal, before colours are added. JSON escapes them itself."""
    for name, value in line.items():
        if isinstance(value, str):
            line[name] = printable_lines(value) if name in _MULTILINE_MEMBERS else printable(value)
    return line


class JsonLine:
    """Formats a line as JSON in one processor, which is faster than structlog's four.

    Each attempt writes a line, up to thousands per second.
    """

    def __init__(self) -> None:
        self._encode = json.JSONEncoder(default=repr, separators=(",", ":")).encode
        self._second, self._date = -1, ""

    def __call__(self, logger: WrappedLogger, method: str, line: EventDict) -> str:
        self._add_level_and_time(method, line)
        if "exc_info" in line:
            line = structlog.processors.format_exc_info(logger, method, line)
        return redact(self._encode(line))

    def format_plain_values(self, method: str, line: EventDict) -> str:
        """Return the same line as `__call__`, but faster. Values must be strings and numbers.

        Other objects would be written with their fields, whereas `__call__` writes their `repr`.
        """
        self._add_level_and_time(method, line)
        try:
            text = to_json(line).decode()
        except PydanticSerializationError:
            return redact(self._encode(line))
        # `_encode` escapes characters outside ASCII, which may control a terminal.
        return redact(text if text.isascii() else self._encode(line))

    def _add_level_and_time(self, method: str, line: EventDict) -> None:
        line["level"] = method
        now = time.time()
        if int(now) != self._second:
            self._second = int(now)
            self._date = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(self._second))
        line["time"] = f"{self._date}.{int(now % 1 * 1e6):06}Z"


def make_quick_writer() -> Callable[[str, EventDict], None] | None:
    """Return a function that writes info lines faster than structlog, given the event and the members of the line.

    None if structlog does not use `JsonLine` alone. Values must be strings and numbers. structlog's bound logger would
    cost as much as the line itself.
    """
    configured = structlog.get_config()
    processors, factory = configured["processors"], configured["logger_factory"]
    if len(processors) != 1 or not isinstance(processors[0], JsonLine):
        return None
    render, logger = processors[0], factory()

    def write(event: str, line: EventDict) -> None:
        line["event"] = event
        logger.info(render.format_plain_values("info", line))

    return write


def configure(
    level: str = "info", log_format: Literal["auto", "json", "console"] = "auto", *, stream: TextIO | None = None
) -> bool:
    """Set up the log of the process and of its libraries (`logging`). Return True if lines are written as JSON.

    `auto` is `console` on a terminal and `json` elsewhere. Libraries log from `warning` on; from `error` on if
    `level` is `error`; from `info` on if it is `debug`, since at debug they would log AMQP frames, which have tokens.
    """
    if (former := current_output()) is not None:
        former.close()
    out = LogOutput(stream)
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    is_terminal = (stream or sys.stderr).isatty()
    as_json = log_format == "json" or (log_format == "auto" and not is_terminal)
    last = _renderers(as_json=as_json, is_terminal=is_terminal)
    structlog.configure(
        processors=[JsonLine()] if as_json else [*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=out,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(cast("TextIO", out))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name, structlog.stdlib.ExtraAdder()],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    _set_library_levels(number)
    for name in ("aiormq", "aio_pika"):  # the queue logs their failures once, without frames
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.captureWarnings(capture=True)
    return as_json


def set_level(level: str) -> None:
    """Log from this level on. Existing bound loggers keep their level: see LogObserver.on_level_change."""
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(**{**structlog.get_config(), "wrapper_class": structlog.make_filtering_bound_logger(number)})
    _set_library_levels(number)


def _set_library_levels(number: int) -> None:
    logging.getLogger().setLevel(max(number, logging.INFO if number <= logging.DEBUG else logging.WARNING))
    logging.getLogger("notifier").setLevel(number)


def _renderers(*, as_json: bool, is_terminal: bool) -> list[Processor]:
    if as_json:
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(separators=(",", ":")), _redact]
    colors = is_terminal and "NO_COLOR" not in os.environ
    renderer = ConsoleRenderer(
        colors=colors, sort_keys=False, exception_formatter=plain_traceback, timestamp_key="time"
    )
    return [escape_control_characters, renderer, _redact]


def _redact(_logger: WrappedLogger, _method: str, line: EventDict | str) -> str:
    assert isinstance(line, str), "comes after the renderer"
    return redact(line)
