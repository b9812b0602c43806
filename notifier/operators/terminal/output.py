"""Prints text and JSON for commands, without wrapping lines. `screen` prints tables and colours."""

import json
import sys
import time
from collections.abc import Callable

from notifier.model.durations import format_in_words
from notifier.model.printable import json_text, printable_lines

PROGRESS_INTERVAL_SECONDS = 2.0


def say(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Print a text on stdout, or with `err` on stderr. Control characters are replaced. Without `nl`, end no line."""
    stream = sys.stderr if err else sys.stdout
    stream.write(printable_lines(text) + ("\n" if nl else ""))
    stream.flush()


def say_json(document: object, *, indent: int | None = None) -> None:
    """Print a document as JSON, with escapes for what the terminal's encoding lacks."""
    text = json_text(document, indent=indent)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(document, indent=indent)
    say(text)


def format_age(moment: float | None, now: float) -> str:
    """Return how long ago a time was, in words."""
    return "–" if moment is None else f"{format_in_words(now - moment)} ago"


def make_progress(what: str) -> Callable[[int, int], None]:
    """Return a function that prints `what`: done of total, on stderr, every PROGRESS_INTERVAL_SECONDS at most."""
    due = time.monotonic() + PROGRESS_INTERVAL_SECONDS

    def report(done: int, total: int) -> None:
        nonlocal due
        if done < total and time.monotonic() >= due:  # the command prints the final result
            due = time.monotonic() + PROGRESS_INTERVAL_SECONDS
            say(f"{what}: {done:,} of {total:,}", err=True)

    return report
