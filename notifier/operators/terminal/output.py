"""Prints text of the commands. `screen` has tables and colours. Lines are never broken: the terminal does that."""

import sys
import time
from collections.abc import Callable

from notifier.model.durations import format_in_words
from notifier.model.printable import json_text, printable_lines

PROGRESS_INTERVAL_SECONDS = 2.0


def say(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Print a text without characters that a terminal obeys: on stdout, or with `err` on stderr."""
    stream = sys.stderr if err else sys.stdout
    stream.write(printable_lines(text) + "\n" * nl)
    stream.flush()


def say_json(document: object, *, indent: int | None = None) -> None:
    """Print a document as JSON."""
    say(json_text(document, indent=indent))


def format_age(moment: float | None, now: float) -> str:
    """Return how long ago it was."""
    return "–" if moment is None else f"{format_in_words(now - moment)} ago"


def make_progress(what: str) -> Callable[[int, int], None]:
    """Return a function that prints on stderr now and then how much is done, and how much there is in all."""
    due = time.monotonic() + PROGRESS_INTERVAL_SECONDS

    def tell(done: int, total: int) -> None:
        nonlocal due
        if done < total and time.monotonic() >= due:  # the command itself prints the end
            due = time.monotonic() + PROGRESS_INTERVAL_SECONDS
            say(f"{what}: {done:,} of {total:,}", err=True)

    return tell
