"""Prints all text of the commands. `screen` has tables and the progress of long work."""

import os
import re
import sys
import textwrap
from stat import S_ISFIFO, S_ISSOCK
from typing import TextIO

from notifier.model.printable import json_text, printable_lines


def say(text: str, *, err: bool = False, nl: bool = True, fold: bool = True) -> None:
    """Print a text without characters that a terminal obeys: on stdout, or with `err` on stderr.

    On a terminal, lines that are too long are broken between words. Without `fold` it is left to the terminal.
    """
    stream = sys.stderr if err else sys.stdout
    text = printable_lines(text)
    _print(wrap_text(text, count_columns(stream)) if fold and stream.isatty() else text, stream, "\n" * nl)


def say_json(document: object, *, indent: int | None = None) -> None:
    """Print a document as JSON. A terminal breaks its lines, not we, so that it can be copied."""
    _print(json_text(document, indent=indent), sys.stdout)


def _print(text: str, stream: TextIO, end: str = "\n") -> None:
    """Not by typer.echo: it knows the streams of the start, and so writes into a bar of progress."""
    stream.write(text + end)
    stream.flush()


def count_columns(stream: TextIO, otherwise: int = 80) -> int:
    """Return the width to write in: COLUMNS, the width of the terminal, or `otherwise`.

    Text that another program reads most likely ends on the terminal of stderr, as with `| less`.
    """
    wanted = os.environ.get("COLUMNS", "")
    if wanted.isdigit() and int(wanted):
        return int(wanted)
    try:
        shown = sys.stderr if is_piped(stream) else stream
        return os.get_terminal_size(shown.fileno()).columns or otherwise
    except (OSError, ValueError):
        return otherwise


COMMAND_SPACE = "\ue000"  # a character of private use, which no text that is printed contains
_COMMAND = re.compile(r"`[^`\n]+`|\bnotifier explain \w+")


def join_commands(text: str, width: int) -> str:
    """The text with JOINT for the blanks in each command that fits into a line, so that no line ends in a command."""

    def keep(command: re.Match[str]) -> str:
        return command[0].replace(" ", COMMAND_SPACE) if len(command[0]) <= width else command[0]

    return _COMMAND.sub(keep, text)


def wrap_text(text: str, width: int) -> str:
    """Break the lines of the text between words. A continuation is indented by two more than its beginning."""
    return "\n".join(_wrap_line(line, width) for line in text.split("\n"))


def _wrap_line(line: str, width: int) -> str:
    if len(line) <= width:
        return line
    indent = line[: len(line) - len(line.lstrip())] + "  "
    lines = textwrap.wrap(
        join_commands(line, width - len(indent)), width, subsequent_indent=indent, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip
    return "\n".join(lines).replace(COMMAND_SPACE, " ")


def is_piped(stream: TextIO) -> bool:
    """Return True if another program reads what is written there."""
    try:
        mode = os.fstat(stream.fileno()).st_mode
    except (OSError, ValueError):
        return False
    return S_ISFIFO(mode) or S_ISSOCK(mode)
