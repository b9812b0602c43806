"""Renders log lines, removes secrets, and writes them so that a broken output stops nothing."""

import asyncio
import atexit
import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

import structlog
from pydantic_core import PydanticSerializationError, to_json
from structlog.typing import EventDict, WrappedLogger

from notifier.model.printable import printable, printable_lines
from notifier.model.redaction import redact

_MANY_LINES = frozenset({"event", "exception", "stack"})  # `event` of libraries' own lines


def harmless(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    """Remove what a terminal would obey, before colours are added. JSON escapes it anyway."""
    return {
        name: (printable_lines if name in _MANY_LINES else printable)(value) if isinstance(value, str) else value
        for name, value in line.items()
    }


class JsonLine:
    """The last processor of a line as JSON, in one step instead of structlog's own four.

    Every attempt has a line, thousands a second.
    """

    def __init__(self) -> None:
        self._encode = json.JSONEncoder(default=repr, separators=(",", ":")).encode
        self._second, self._date = -1, ""

    def __call__(self, logger: WrappedLogger, method: str, line: EventDict) -> str:
        self._stamp(method, line)
        if "exc_info" in line:
            line = structlog.processors.format_exc_info(logger, method, line)
        return redact(self._encode(line))

    def of_plain_values(self, method: str, line: EventDict) -> str:
        """Return the same line, for texts and numbers only: of an object it would show more than `repr`."""
        self._stamp(method, line)
        try:
            text = to_json(line).decode()
        except PydanticSerializationError:
            text = ""
        # Other characters than ASCII may control a terminal, so they are escaped.
        return redact(text if text and text.isascii() else self._encode(line))

    def _stamp(self, method: str, line: EventDict) -> None:
        line["level"] = method
        now = time.time()
        if int(now) != self._second:
            self._second = int(now)
            self._date = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(self._second))
        line["time"] = f"{self._date}.{int(now % 1 * 1e6):06}Z"


def quick_writer() -> Callable[[str, EventDict], None] | None:
    """Return a writer of info lines that does the same as structlog, if that only uses `JsonLine`. Otherwise None.

    It takes texts and numbers only. structlog's bound logger costs as much as the line itself.
    """
    configured = structlog.get_config()
    processors, factory = configured["processors"], configured["logger_factory"]
    if len(processors) != 1 or not isinstance(processors[0], JsonLine):
        return None
    render, logger = processors[0], factory()

    def write(event: str, line: EventDict) -> None:
        line["event"] = event
        logger.info(render.of_plain_values("info", line))

    return write


class Unbreakable:
    """A stream that never raises: a full disk or a closed reader must not stop deliveries.

    Lines of one pass of the event loop are written together: a write costs as much as making a line. None: stderr, as
    it is at that moment, since a bar of progress stands in for it while it is drawn.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._waiting: list[str] = []
        atexit.register(self.drain)  # lines that the last pass of a loop has left

    def write(self, text: str) -> None:
        self._waiting.append(text)

    def flush(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.drain()
        else:
            if len(self._waiting) == 1:
                loop.call_soon(self.drain)

    def drain(self) -> None:
        lines, self._waiting = self._waiting, []
        stream = self._stream or sys.stderr
        with suppress(OSError, ValueError):
            stream.write("".join(lines))
            stream.flush()

    def isatty(self) -> bool:
        return (self._stream or sys.stderr).isatty()
