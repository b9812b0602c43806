"""What the commands on dead letters share: the options that choose letters, and export files."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import mkstemp
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from notifier.model.errors import Mistake
from notifier.operators.terminal.chosen_options import with_chosen

if TYPE_CHECKING:
    from notifier.operators.letters.letter_filter import LetterFilter


def _option(name: str, text: str) -> Any:
    return Annotated[str | None, typer.Option(name, help=text, show_default=False)]


_IDS = Annotated[
    list[str] | None, typer.Argument(metavar="ID", help="Only the letters with these IDs.", show_default=False)
]
_FILTER_OPTIONS: Mapping[str, Any] = {
    "client_id": _option("--client-id", "Only letters of this client."),
    "reason": Annotated[
        list[str] | None,
        typer.Option("--reason", help="Only letters with this reason; may be repeated.", show_default=False),
    ],
    "iss": _option("--iss", "Only letters of this issuer."),
    "event_id": _option("--event-id", "Only letters of this event."),
    "source": _option("--source", "Only letters of messages that came from this source."),
    "subject": _option("--subject", "Only letters about this sub or sid."),
    "since": _option("--since", "Only letters given up since then: 2026-01-31T12:00:00Z, or 24h (ago)."),
    "until": _option("--until", "Only letters given up until then, in the same form."),
}


def with_filter(command: Callable[..., None], *, ids: bool = False) -> Callable[..., None]:
    """Give a command the options that choose letters. It gets them as its parameter `chosen`, a `LetterFilter`."""
    return with_chosen(command, {"id": _IDS, **_FILTER_OPTIONS} if ids else _FILTER_OPTIONS, _read)


def _read(given: Mapping[str, Any]) -> LetterFilter:
    from notifier.operators.letters.letter_filter import read_filter

    chosen = read_filter(given, time.time())
    if isinstance(chosen, Mistake):
        raise typer.BadParameter(chosen.text, param_hint=f"--{chosen.path}")
    return chosen


with_filter_or_ids = partial(with_filter, ids=True)
"""The same for a command that also takes the IDs of letters as arguments."""


@contextmanager
def written_anew(file: Path) -> Iterator[IO[str]]:
    """A text file to write, readable by its owner only. It replaces `file` once everything is written; `-` is stdout.

    It is a new file beside the old one: an old file would keep its mode, and readers who have it open would see the
    new text. What is no regular file (`/dev/null`, a pipe) is written directly. Raises OSError.
    """
    to_stdout = file == Path("-")
    if to_stdout or (file.exists() and not file.is_file()):
        with open(1 if to_stdout else file, "w", encoding="utf-8", closefd=not to_stdout) as out:
            yield out
        return
    descriptor, made = mkstemp(dir=file.parent, prefix=f".{file.name}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            yield out
        Path(made).replace(file)
    except BaseException:
        Path(made).unlink()
        raise
