"""Sets up the log of the process: JSON lines, or coloured text on a terminal. Secrets are redacted.

An output that fails, or that nobody reads, loses log lines, but never stops the process.
"""

import atexit
import json
import logging
import os
import select
import sys
import threading
import time
from asyncio import AbstractEventLoop, get_running_loop
from collections.abc import Callable
from io import TextIOWrapper
from queue import SimpleQueue
from time import monotonic
from typing import Literal, TextIO, cast

import structlog
from pydantic_core import PydanticSerializationError, to_json
from structlog.dev import ConsoleRenderer, plain_traceback
from structlog.typing import EventDict, Processor, WrappedLogger

from notifier.model.printable import printable, printable_lines
from notifier.model.redaction import redact

MAX_WAITING_CHARACTERS = 1024 * 1024  # of lines that the reader of the log has not taken
WRITE_INTERVAL_SECONDS, FLUSH_SECONDS = 0.005, 1.0
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


class LogOutput:
    """Writes log lines in a dedicated thread, so that a full pipe or disk never delays deliveries. It never raises.

    Lines wait in memory while the stream takes none. Beyond MAX_WAITING_CHARACTERS further lines are dropped, and
    counted in `dropped` like those that the stream refuses. Audit lines may use as much again.

    A line is written at once, but lines that follow within WRITE_INTERVAL_SECONDS are written together, since waking
    the thread costs as much as formatting a line.
    Outside an event loop, `add` waits until the line is written, or for FLUSH_SECONDS.
    Without `stream` the lines go to the current `sys.stderr`, which a progress bar replaces while it is drawn.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._lock = threading.RLock()  # reentrant: garbage collection may log at any time
        self._lines: list[str] = []
        self._loop: AbstractEventLoop | None = None  # that will hand over these lines
        self._hand_over_at = 0.0  # by the monotonic clock, when the next lines may be handed over
        self._batches: SimpleQueue[list[str] | threading.Event | None] = SimpleQueue()
        self._waiting_characters = 0
        self._thread: threading.Thread | None = None
        self._is_stuck = False
        self.dropped = 0
        self.logger = LineLogger(self, MAX_WAITING_CHARACTERS)
        self.audit_logger = LineLogger(self, 2 * MAX_WAITING_CHARACTERS)
        atexit.register(self.close)  # writes the last lines of an event loop

    def __call__(self, *_: object) -> "LineLogger":
        """Return the logger of structlog."""
        return self.logger

    def write(self, text: str) -> None:  # called by handlers of `logging`
        self.add(text, MAX_WAITING_CHARACTERS)

    def add(self, text: str, max_waiting: int) -> None:
        """Write this text soon, or drop it if more than `max_waiting` characters would wait."""
        with self._lock:
            if self._waiting_characters + len(text) > max_waiting:
                self.dropped += 1
                return
            self._waiting_characters += len(text)
            self._lines.append(text)
        try:
            loop = get_running_loop()
        except RuntimeError:
            self._flush()
        else:
            if self._loop is not loop:
                self._loop = loop
                loop.call_later(self._hand_over_at - monotonic(), self._hand_over)

    def close(self) -> None:
        """Write the lines that wait, for at most FLUSH_SECONDS, and end the thread. A later line starts another."""
        self._flush()
        with self._lock:
            if self._thread is not None:
                self._batches.put(None)
                self._thread = None
        atexit.unregister(self.close)

    def _hand_over(self) -> None:
        with self._lock:
            lines, self._lines, self._loop = self._lines, [], None
            if not lines:
                return
            self._hand_over_at = monotonic() + WRITE_INTERVAL_SECONDS
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_batches, name="log", daemon=True)
                self._thread.start()
            self._batches.put(lines)

    def _flush(self) -> None:
        """Wait until all lines are written, unless an earlier wait was in vain and nothing was written since."""
        self._hand_over()
        thread = self._thread
        if thread is None or thread is threading.current_thread() or self._is_stuck:
            return
        written = threading.Event()
        self._batches.put(written)
        self._is_stuck = not written.wait(FLUSH_SECONDS)

    def _write_batches(self) -> None:
        while (batch := self._batches.get()) is not None:
            if isinstance(batch, threading.Event):
                batch.set()
                continue
            text = "".join(batch)
            try:
                _write(self._stream or sys.stderr, text)
                lost = 0
            except Exception:  # noqa: BLE001  whatever the stream raises, the thread must go on
                lost = len(batch)
            with self._lock:
                self._waiting_characters -= len(text)
                self.dropped += lost
                self._is_stuck = False


class LineLogger:
    """The logger that structlog calls with finished lines."""

    def __init__(self, output: LogOutput, max_waiting: int) -> None:
        self._output = output
        self._max_waiting = max_waiting

    def msg(self, line: str) -> None:
        self._output.add(line + "\n", self._max_waiting)

    log = debug = info = warn = warning = error = critical = fatal = failure = exception = msg


def current_output() -> LogOutput | None:
    """Return the output that `configure` set up last."""
    factory = structlog.get_config()["logger_factory"]
    return factory if isinstance(factory, LogOutput) else None


def _write(stream: TextIO, text: str) -> None:
    """Write to the file of the stream, past its buffer: the end of the process would wait for the buffer's lock."""
    try:
        file = stream.fileno() if isinstance(stream, TextIOWrapper) else None
    except OSError:
        file = None
    if file is None:
        stream.write(text)
        stream.flush()
        return
    data = text.encode(stream.encoding, "backslashreplace")
    while data:
        try:
            data = data[os.write(file, data) :]
        except BlockingIOError:  # a program that shares the file has made it non-blocking
            select.select((), (file,), ())


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
