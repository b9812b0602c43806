"""Provides what the commands on dead letters share: their table, their filter options, and the file of an export."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkstemp
from typing import IO, Any, TypeVar

import typer

from notifier.model.errors import InputIssue
from notifier.model.moment import format_moment_for_people
from notifier.model.printable import counted, printable
from notifier.operators.deliveries.dead_letter_filter import DeadLetterFilter, read_filter
from notifier.operators.deliveries.dead_letter_summary import DeadLetterSummary
from notifier.operators.deliveries.groups import Group
from notifier.operators.deliveries.job_documents import DEAD_LETTER_JOBS
from notifier.operators.deliveries.message_table import MessageTable
from notifier.operators.terminal.output import format_age

T = TypeVar("T")


def _format_row(dead_letter: DeadLetterSummary) -> Sequence[str]:
    """Return the parts of a line of `list --rows`."""
    parts = [
        dead_letter.id,
        format_moment_for_people(dead_letter.dead_since),
        f"{dead_letter.reason:<21}",
        dead_letter.client_id or "–",
    ]
    parts += [f"event {dead_letter.event_id or '–'}", f"attempts {dead_letter.attempts}"]
    if dead_letter.iss:
        parts.append(f"issuer {dead_letter.iss}")
    if dead_letter.source is not None:
        parts.append(f"source {dead_letter.source}")
    return parts


def _format_cells(group: Group, now: float) -> Sequence[str]:
    """Return the cells of a group in the table of `list`."""
    ages = (format_age(moment, now) for moment in (group.oldest, group.newest))
    return printable(group.client_id) or "–", group.reason, f"{group.count:,}", *ages


DEAD_LETTER_TABLE = MessageTable(
    messages_of=lambda queue, namer: queue.dead_letters(namer), job_kinds=DEAD_LETTER_JOBS,
    opens_queue=False, format_row=_format_row,
    format_cells=_format_cells,
    heads=("client", "reason", "count:", "oldest:", "newest:"),
    format_total=lambda count: counted(count, "dead letter"),
    verb="Discard", past_verb="discarded",
    noun="dead letter",
    format_missing=lambda ids: f"there is no dead letter {ids}; `notifier dead-letters list --rows` shows them",
)  # fmt: skip


def read_filter_options(members: Mapping[str, Any]) -> DeadLetterFilter:
    """Return the filter that the options of a command describe. Raises BadParameter for an invalid option."""
    return filter_or_usage_error(read_filter(members, time.time()))


def filter_or_usage_error(filter_: T | InputIssue) -> T:
    """Return the filter. Raises BadParameter if it is an InputIssue, which names the invalid option."""
    if isinstance(filter_, InputIssue):
        raise typer.BadParameter(filter_.text, param_hint=f"--{filter_.path.replace('_', '-')}")
    return filter_


@contextmanager
def open_replacement(file: Path) -> Iterator[IO[str]]:
    """Open a new text file that replaces `file` when the block ends without an error. `-` is stdout. Raises OSError.

    Only its owner can read the new file. Overwriting the old file would keep the old mode, and show the text to readers
    who have it open. A path that is not a regular file (`/dev/null`, a pipe) is written directly.
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
