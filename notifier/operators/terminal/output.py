"""Prints all text of the commands, and the bar of progress, which never shares a line with it. Tables: `screen`."""

from __future__ import annotations

import os
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from stat import S_ISFIFO, S_ISSOCK
from typing import TYPE_CHECKING, TextIO

import typer

from notifier.model.printable import json_text, printable_lines

if TYPE_CHECKING:
    from rich.progress import Progress

PLAIN_EVERY = 2.0  # seconds between two lines of progress if there is no bar
AGAIN_AFTER = 0.25  # seconds without other text, before the bar is drawn again


def say(text: str, *, err: bool = False, nl: bool = True, fold: bool = True) -> None:
    """Print a text without characters that a terminal obeys: on stdout, or with `err` on stderr.

    On a terminal, lines that are too long are broken between words. Without `fold` it is left to the terminal.
    """
    stream = sys.stderr if err else sys.stdout
    text = printable_lines(text)
    _print(wrapped(text, columns(stream)) if fold and stream.isatty() else text, err=err, nl=nl)


def say_json(document: object, *, indent: int | None = None) -> None:
    """Print a document as JSON. A terminal breaks its lines, not we, so that it can be copied."""
    _print(json_text(document, indent=indent))


def _print(text: str, *, err: bool = False, nl: bool = True) -> None:
    erase_bar()
    typer.echo(text, err=err, nl=nl)


def columns(stream: TextIO, otherwise: int = 80) -> int:
    """The width of what is written there: COLUMNS, that of the terminal, or `otherwise`.

    What another program reads ends most likely on the terminal of stderr, as with `| less`.
    """
    asked = os.environ.get("COLUMNS", "")
    if asked.isdigit() and int(asked):
        return int(asked)
    try:
        shown = sys.stderr if _piped(stream) else stream
        return os.get_terminal_size(shown.fileno()).columns or otherwise
    except (OSError, ValueError):
        return otherwise


def wrapped(text: str, width: int) -> str:
    """The text with its lines broken between words. What goes on is indented by two more than its beginning."""
    return "\n".join(_wrapped(line, width) for line in text.split("\n"))


def _wrapped(line: str, width: int) -> str:
    if len(line) <= width:
        return line
    indent = line[: len(line) - len(line.lstrip())] + "  "
    lines = textwrap.wrap(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines)


# ── progress ────────────────────────────────────────────────────────────────────────────────────────────────────────


class ErrorStream:
    """stderr, for logs: it takes the bar away before it writes."""

    def write(self, text: str) -> None:
        """Write at once what others would write at `flush`."""
        erase_bar()
        sys.stderr.write(text)

    def flush(self) -> None:
        """Of a stream."""
        sys.stderr.flush()

    def isatty(self) -> bool:
        """Whether stderr is a terminal."""
        return sys.stderr.isatty()


_SHOWN: ContextVar[_Bar | None] = ContextVar("notifier.bar", default=None)


@contextmanager
def progress_of(what: str, *, plain: bool = True) -> Iterator[Callable[[int, int], None]]:
    """Show progress on stderr: a bar on a terminal, otherwise (if `plain`) a line now and then.

    The block gets a function to call with how much is done, and how much there is in all. There is no bar if another
    program reads stdout: what it prints may come on the line of the bar.
    """
    if not sys.stderr.isatty() or _piped(sys.stdout):
        yield _plain(what) if plain else lambda _done, _total: None
        return
    bar = _Bar(what)
    before = _SHOWN.set(bar)
    try:
        bar.draw()
        yield bar.show
    finally:
        bar.erase()
        _SHOWN.reset(before)


def erase_bar() -> None:
    """Take the bar away, if there is one. Its next progress draws it again."""
    if (bar := _SHOWN.get()) is not None:
        bar.erase()


def _piped(stream: TextIO) -> bool:
    try:
        mode = os.fstat(stream.fileno()).st_mode
    except (OSError, ValueError):
        return False
    return S_ISFIFO(mode) or S_ISSOCK(mode)


def _plain(what: str) -> Callable[[int, int], None]:
    due = time.monotonic() + PLAIN_EVERY

    def tell(done: int, total: int) -> None:
        nonlocal due
        if done < total and time.monotonic() >= due:  # the end is said by the command itself
            due = time.monotonic() + PLAIN_EVERY
            say(f"{what}: {done:,} of {total:,}", err=True)

    return tell


class _Bar:
    """A bar on stderr."""

    def __init__(self, what: str) -> None:
        self._progress = _progress()
        self._task = self._progress.add_task(what, total=None)
        self._drawn = False
        self._due = 0.0

    def show(self, done: int, total: int) -> None:
        """Draw how much is done."""
        self._progress.update(self._task, completed=done, total=total)
        self.draw()

    def draw(self) -> None:
        """Draw it, unless something else was written just now."""
        if not self._drawn and time.monotonic() >= self._due:
            self._progress.start()
            self._drawn = True

    def erase(self) -> None:
        """Leave an empty line, with the cursor at its beginning."""
        if self._drawn:
            self._progress.stop()
            self._drawn = False
        self._due = time.monotonic() + AGAIN_AFTER


def _progress() -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from notifier.operators.terminal.screen import screen

    return Progress(
        "{task.description}",
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=screen(err=True),
        transient=True,
        redirect_stdout=False,  # rich would print rows on stderr
        redirect_stderr=False,
    )
