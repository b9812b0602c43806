"""What the commands on dead letters share: options that choose letters, and how an export is written."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkstemp
from typing import IO, Any, TypeVar

import typer

from notifier.model.errors import Mistake
from notifier.operators.letters.letter_filter import LetterFilter, read_filter

T = TypeVar("T")


def letters_of(asked: Mapping[str, Any]) -> LetterFilter:
    """Read the options that choose letters into a filter."""
    return accepted(read_filter(asked, time.time()))


def accepted(chosen: T | Mistake) -> T:
    """Return the filter, or refuse the option that is wrong."""
    if isinstance(chosen, Mistake):
        raise typer.BadParameter(chosen.text, param_hint=f"--{chosen.path.replace('_', '-')}")
    return chosen


@contextmanager
def written_anew(file: Path) -> Iterator[IO[str]]:
    """Open a text file to write, readable by its owner only. It replaces `file` once all is written; `-` is stdout.

    It is a new file beside the old one: an old file would keep its mode, and readers who have it open would see the
    new text. A path that is no regular file (`/dev/null`, a pipe) is written directly. Raises OSError.
    """
    to_stdout = file == Path("-")
    if to_stdout or (file.exists() and not file.is_file()):
        with open(1 if to_stdout else file, "w", encoding="utf-8", closefd=not to_stdout) as out:
            yield out
        return
    descriptor, draft = mkstemp(dir=file.parent, prefix=f".{file.name}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            yield out
        Path(draft).replace(file)
    except BaseException:
        Path(draft).unlink()
        raise
