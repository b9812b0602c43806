"""Writes the lines of the log, so that a reader that takes none never delays deliveries, nor does a full disk.

Nothing here raises. A pipe or socket is written without waiting, and a regular file as is. What these do not take, and
lines for other streams, such as a terminal, are written by a thread. It is not used for all lines, since threads that
compete for the interpreter lock made each delivery a fifth more expensive.
"""

import atexit
import os
import select
import socket
import stat
import sys
import threading
from asyncio import AbstractEventLoop, get_running_loop
from collections.abc import Callable
from functools import partial
from io import TextIOWrapper
from queue import SimpleQueue
from typing import TextIO

import structlog

from notifier.model.shared_resources import shared_bound, shared_reentrant_lock, start_thread

MAX_WAITING_CHARACTERS = shared_bound(1024 * 1024)  # of lines that the reader of the log has not taken
FLUSH_SECONDS = 1.0


class LogOutput:
    """The output of the log. `dropped` counts the lines that were lost.

    Lines wait in memory while the stream takes none. Beyond MAX_WAITING_CHARACTERS further lines are dropped, as are
    those that the stream refuses. Audit lines may use as much again.

    The lines of one round of the event loop are written together, since a write costs as much as formatting a line.
    Outside an event loop, `add` waits until the line is written, or for FLUSH_SECONDS.
    Without `stream` the lines go to the current `sys.stderr`, which a progress bar replaces while it is drawn.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._direct_stream = stream or sys.stderr
        self._write_directly = _make_direct_write(self._direct_stream)
        self._lock = shared_reentrant_lock()  # reentrant: garbage collection may log at any time
        self._lines: list[str] = []
        self._loop: AbstractEventLoop | None = None  # that will hand over these lines
        self._batches: SimpleQueue[tuple[str, int] | threading.Event | None] = SimpleQueue()
        self._backlog = 0  # characters that wait for the thread
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
        if self._backlog and self._backlog + len(text) > max_waiting:
            self.dropped += 1
            return
        self._lines.append(text)
        try:
            loop = get_running_loop()
        except RuntimeError:
            self._flush()
        else:
            if self._loop is not loop:
                self._loop = loop
                loop.call_soon(self._hand_over)

    def close(self) -> None:
        """Write the lines that wait, for at most FLUSH_SECONDS, and end the thread. A later line starts another."""
        self._flush()
        with self._lock:
            if self._thread is not None:
                self._batches.put(None)
                self._thread = None
        atexit.unregister(self.close)

    def _hand_over(self) -> None:
        """Write the lines without waiting, and leave to the thread what is not taken, or comes behind its lines."""
        with self._lock:
            self._loop, lines = None, self._lines
            count = len(lines)
            text = "".join(lines[:count])
            del lines[:count]  # not the lines that another thread adds meanwhile
            if not self._backlog and (self._stream or sys.stderr) is self._direct_stream:
                text = self._write_directly(text)
            if text and sys.is_finalizing():  # no thread runs any more
                self.dropped += count
            elif text:
                self._backlog += len(text)
                self._batches.put((text, count))
                if self._thread is None:
                    self._thread = start_thread("log", self._write_batches)

    def _flush(self) -> None:
        """Wait until all lines are written, unless an earlier wait timed out and nothing was written since."""
        self._hand_over()
        thread = self._thread
        if thread is None or thread is threading.current_thread() or self._is_stuck or not self._backlog:
            return
        written = threading.Event()
        self._batches.put(written)
        self._is_stuck = not written.wait(FLUSH_SECONDS)

    def _write_batches(self) -> None:
        while (batch := self._batches.get()) is not None:
            if isinstance(batch, threading.Event):
                batch.set()
                continue
            text, line_count = batch
            try:
                _write_and_wait(self._stream or sys.stderr, text)
                lost = 0
            except Exception:  # noqa: BLE001  whatever the stream raises, the thread must go on
                lost = line_count
            with self._lock:
                self._backlog -= len(text)
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
    """Return the output that was set up last."""
    factory = structlog.get_config()["logger_factory"]
    return factory if isinstance(factory, LogOutput) else None


def _make_direct_write(stream: TextIO) -> Callable[[str], str]:
    """Return a function that writes to the file of the stream without waiting, and returns the rest of the text."""
    try:
        file = stream.fileno() if isinstance(stream, TextIOWrapper) else -1
        mode = os.fstat(file).st_mode
        if stat.S_ISSOCK(mode):  # of the journal
            send = socket.socket(fileno=os.dup(file)).send
            return partial(_write_some, lambda data: send(data, socket.MSG_DONTWAIT))
        if stat.S_ISFIFO(mode):  # opened again, since others who share the pipe may not expect O_NONBLOCK
            file = os.open(f"/proc/self/fd/{file}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            return partial(_write_some, partial(os.write, file))
        if stat.S_ISREG(mode):
            return partial(_write_some, partial(os.write, file))
    except OSError:  # there is no file, or it may not be opened again
        pass
    return str


def _write_some(write: Callable[[bytes], int], text: str) -> str:
    data = text.encode("utf-8", "backslashreplace")
    try:
        return data[write(data) :].decode("utf-8", "replace") if data else ""
    except OSError:  # full, or broken: the thread's write shows which
        return text


def _write_and_wait(stream: TextIO, text: str) -> None:
    """Write to the file of the stream, past its buffer: the end of the process would wait for the buffer's lock."""
    try:
        file = stream.fileno() if isinstance(stream, TextIOWrapper) else None
    except OSError:
        file = None
    if file is None:
        stream.write(text)
        stream.flush()
        return
    data = text.encode("utf-8", "backslashreplace")
    while data:
        try:
            data = data[os.write(file, data) :]
        except BlockingIOError:  # a program that shares the file has made it non-blocking
            select.select((), (file,), ())
