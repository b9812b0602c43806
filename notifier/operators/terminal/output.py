"""Prints all text of the commands, and shows progress. Tables: `screen`."""

from __future__ import annotations

import os
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from stat import S_ISFIFO, S_ISSOCK
from typing import TextIO

from notifier.model.printable import json_text, printable_lines

PLAIN_EVERY = 2.0  # seconds between two lines of progress if there is no bar


def say(text: str, *, err: bool = False, nl: bool = True, fold: bool = True) -> None:
    """Print a text without characters that a terminal obeys: on stdout, or with `err` on stderr.

    On a terminal, lines that are too long are broken between words. Without `fold` it is left to the terminal.
    """
    stream = sys.stderr if err else sys.stdout
    text = printable_lines(text)
    _print(wrapped(text, columns(stream)) if fold and stream.isatty() else text, stream, "\n" * nl)


def say_json(document: object, *, indent: int | None = None) -> None:
    """Print a document as JSON. A terminal breaks its lines, not we, so that it can be copied."""
    _print(json_text(document, indent=indent), sys.stdout)


def _print(text: str, stream: TextIO, end: str = "\n") -> None:
    """Not by typer.echo: it knows the streams of the start, and so writes into a bar of progress."""
    stream.write(text + end)
    stream.flush()


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


@contextmanager
def progress_of(what: str, *, plain: bool = True, rows: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Show progress on stderr: a bar on a terminal, otherwise (if `plain`) a line now and then.

    The block gets a function to call with how much is done, and how much there is in all. There is no bar if another
    program reads stdout: what it prints may come on the line of the bar. Nor is there if the block prints `rows` on a
    terminal. What it writes to stderr comes above the bar.
    """
    if rows and sys.stdout.isatty():
        yield lambda _done, _total: None
    elif not sys.stderr.isatty() or _piped(sys.stdout):
        yield _plain(what) if plain else lambda _done, _total: None
    else:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        from notifier.operators.terminal.screen import screen

        columns = "{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        with Progress(*columns, console=screen(err=True), transient=True, redirect_stdout=False) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)


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
