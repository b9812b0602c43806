"""A terminal that a command writes to."""

import os
import pty
import termios
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.system.command import environment
from tests.system.loaded_program import start_with


def written(words: Sequence[str | Path], cwd: Path, *, columns: int) -> str:
    """All that the terminal got until nobody had it open any more."""
    ours, theirs = pty.openpty()
    with suppress(termios.error):
        termios.tcsetwinsize(theirs, (50, columns))
    settings = environment({"TERM": "xterm-256color"})
    del settings["COLUMNS"], settings["NO_COLOR"]
    start_with([str(word) for word in words], cwd, settings, (os.dup(theirs), os.dup(theirs), theirs))
    got = b""
    with suppress(OSError):  # the end of a terminal that nobody has open any more
        while chunk := os.read(ours, 65536):
            got += chunk
    os.close(ours)
    return got.decode()
