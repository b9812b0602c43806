"""Shares between the commands on dead letters: how they list and select letters, and write an export."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkstemp
from typing import IO, Any, TypeVar

import typer

from notifier.model.errors import InputIssue
from notifier.model.moment import shown_moment
from notifier.model.printable import counted, printable
from notifier.operators.deliveries.dead_letter_summary import DeadLetterSummary
from notifier.operators.deliveries.delivery_filter import DeliveryFilter, read_filter
from notifier.operators.deliveries.groups import Group
from notifier.operators.deliveries.message_table import MessageTable
from notifier.operators.terminal.screen import ago

T = TypeVar("T")


def _row(letter: DeadLetterSummary) -> Sequence[str]:
    parts = [letter.id, shown_moment(letter.dead_since), f"{letter.reason:<21}", letter.client_id or "–"]
    parts += [f"event {letter.event_id or '–'}", f"attempts {letter.attempts}"]
    if letter.iss:
        parts.append(f"issuer {letter.iss}")
    if letter.source is not None:
        parts.append(f"source {letter.source}")
    return parts


def _cells(group: Group, now: float) -> Sequence[str]:
    ages = (ago(moment, now) for moment in (group.oldest, group.newest))
    return printable(group.client_id) or "–", group.reason, f"{group.count:,}", *ages


LETTERS = MessageTable(
    messages=lambda queue: queue.dead_letters(), opening=False, row=_row, cells=_cells,
    heads=("client", "reason", "count:", "oldest:", "newest:"), total=lambda count: counted(count, "dead letter"),
    known="it is registered now: notifier dead-letters replay", does="Discard", did="discarded", what="dead letter",
    missing=lambda ids: f"there is no dead letter {ids}; `notifier dead-letters list --rows` shows them",
)  # fmt: skip


def letters_of(asked: Mapping[str, Any]) -> DeliveryFilter:
    """Read the options that choose letters into a filter."""
    return accepted(read_filter(asked, time.time()))


def accepted(chosen: T | InputIssue) -> T:
    """Return the filter, or refuse the option that is wrong."""
    if isinstance(chosen, InputIssue):
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
