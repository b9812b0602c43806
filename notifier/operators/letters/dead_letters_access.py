"""What the commands on dead letters share: options that choose letters, and how an export is written."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkstemp
from typing import IO, Annotated, Any

import typer

from notifier.model.errors import Mistake
from notifier.operators.letters.letter_filter import LetterFilter, read_filter


def _option(name: str, text: str) -> Any:
    return typer.Option(name, help=text)


IdsOption = Annotated[list[str] | None, typer.Argument(metavar="ID", help="Only the letters with these IDs.")]
ClientIdOption = Annotated[str | None, _option("--client-id", "Only letters of this client.")]
ReasonsOption = Annotated[list[str] | None, _option("--reason", "Only letters with this reason; may be repeated.")]
IssOption = Annotated[str | None, _option("--iss", "Only letters of this issuer.")]
EventIdOption = Annotated[str | None, _option("--event-id", "Only letters of this event.")]
SourceOption = Annotated[str | None, _option("--source", "Only letters of messages that came from this source.")]
SubjectOption = Annotated[str | None, _option("--subject", "Only letters about this sub or sid.")]
SinceOption = Annotated[
    str | None, _option("--since", "Only letters given up since then: 2026-01-31T12:00:00Z, or 24h (ago).")
]
UntilOption = Annotated[str | None, _option("--until", "Only letters given up until then, in the same form.")]


def letters_of(**options: str | list[str] | None) -> LetterFilter:
    """Read the options above into a filter."""
    chosen = read_filter(options, time.time())
    if isinstance(chosen, Mistake):
        raise typer.BadParameter(chosen.text, param_hint=f"--{chosen.path}")
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
