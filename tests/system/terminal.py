"""A terminal that a command writes to, and what a person sees on it when the command has ended."""

import os
import pty
import re
import subprocess
import termios
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.system.command import command, environment

_PARTS = re.compile(r"\x1b\[(\??[0-9;]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")


def on_a_terminal(words: Sequence[str | Path], cwd: Path, *, columns: int = 80, piped: bool = False) -> list[str]:
    """Run a command there. Return the lines that are left. `piped`: its stdout goes there through `cat`."""
    ours, theirs = pty.openpty()
    with suppress(termios.error):
        termios.tcsetwinsize(theirs, (50, columns))
    settings = environment({"TERM": "xterm-256color"})
    del settings["COLUMNS"], settings["NO_COLOR"]
    run = ["sh", "-c", '"$@" | cat', "sh", *command(words)] if piped else command(words)
    with subprocess.Popen(run, cwd=cwd, env=settings, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        written = b""
        with suppress(OSError):  # the end of a terminal that nobody has open any more
            while chunk := os.read(ours, 65536):
                written += chunk
        process.wait(60)
    os.close(ours)
    return seen(written.decode())


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
