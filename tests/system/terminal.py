"""A terminal that a command writes to, and what a person sees on it when the command has ended."""

import os
import pty
import re
import subprocess
import termios
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from tests.system.command import environment
from tests.system.loaded_program import start_with

_PARTS = re.compile(r"\x1b\[(\??[0-9;]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")


def on_a_terminal(words: Sequence[str | Path], cwd: Path, *, columns: int = 80, piped: bool = False) -> list[str]:
    """Run a command there. Return the lines that are left. `piped`: its stdout goes there through `cat`."""
    return seen(written(words, cwd, columns=columns, piped=piped))


def written(words: Sequence[str | Path], cwd: Path, *, columns: int, piped: bool = False) -> str:
    """All that the terminal got until nobody had it open any more."""
    ours, theirs = pty.openpty()
    with suppress(termios.error):
        termios.tcsetwinsize(theirs, (50, columns))
    settings = environment({"TERM": "xterm-256color"})
    del settings["COLUMNS"], settings["NO_COLOR"]
    with ExitStack() as stack:
        out = os.dup(theirs)
        if piped:
            out = _through_cat(stack, out)
        start_with([str(word) for word in words], cwd, settings, (os.dup(theirs), out, theirs))
        got = b""
        with suppress(OSError):  # the end of a terminal that nobody has open any more
            while chunk := os.read(ours, 65536):
                got += chunk
    os.close(ours)
    return got.decode()


def _through_cat(stack: ExitStack, terminal: int) -> int:
    """The end of a pipe, of which `cat` writes what comes to the terminal."""
    theirs, end = os.pipe()
    stack.enter_context(subprocess.Popen(["cat"], stdin=theirs, stdout=terminal))
    os.close(theirs)
    os.close(terminal)
    return end


def seen(written: str) -> list[str]:
    """What the lines show in the end. It knows what rich draws a bar with, and no more."""
    lines, row, column = [""], 0, 0
    for number, letter, control, text in _PARTS.findall(written):
        if letter == "K":
            lines[row] = ""
        elif letter == "A":
            row -= int(number or 1)
        elif control == "\r":
            column = 0
        elif control == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif text:
            lines[row] = lines[row][:column].ljust(column) + text + lines[row][column + len(text) :]
            column += len(text)
    return [line.rstrip() for line in lines]
