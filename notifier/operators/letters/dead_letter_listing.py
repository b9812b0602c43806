"""Looking at dead letters, for the command line and the API: one by one, counted, or whole. Looking changes nothing.

`dead_letter_repair` replays and discards them.
"""

from collections.abc import AsyncGenerator
from dataclasses import asdict, dataclass, replace
from typing import Any

from pydantic import TypeAdapter

from notifier.model.documents.dead_letter import DeadLetter, load_dead_letter
from notifier.model.documents.unreadable import Raw, shown
from notifier.model.errors import UnknownVersion
from notifier.model.message import Message
from notifier.model.moment import render_moment
from notifier.operators.letters.letter_filter import LetterFilter, LetterSummary, letter_reader, read_summary
from notifier.operators.letters.visits import each_found
from notifier.queues.passes import Progress, no_progress
from notifier.queues.queue_port import DeadLetters

GROUPS = 10_000  # pairs of client and reason that are counted apart; anybody can invent client ids in malformed events
_LETTER, _RAW = TypeAdapter(DeadLetter), TypeAdapter(Raw)


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterGroup:
    """The letters of one client with one reason. Moments are in epoch seconds."""

    client_id: str
    iss: str
    reason: str
    count: int
    oldest: float
    newest: float

    def document(self) -> dict[str, object]:
        """The JSON that the API gives."""
        return asdict(self) | {"oldest": render_moment(self.oldest), "newest": render_moment(self.newest)}


def matching_letters(
    letters: DeadLetters, chosen: LetterFilter, progress: Progress = no_progress, *, whole: bool = False
) -> AsyncGenerator[tuple[LetterSummary, Message], None]:
    """The letters that match, oldest first. Each message has its body if `whole`.

    The caller closes the iterator (`aclosing`). Raises QueueError.
    """
    return each_found(letters.visit(letter_reader(chosen, whole=whole)), progress)


class LetterCounts:
    """Counts letters by client and reason."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str, str], list[float]] = {}
        self.total = 0

    def add(self, summary: LetterSummary) -> None:
        """Count one more letter."""
        self.total += 1
        key = (summary.client_id, summary.iss, summary.reason)
        group = self._groups.get(key)
        if group is None:
            if len(self._groups) >= GROUPS:
                key = ("_other", "", summary.reason)
            group = self._groups.setdefault(key, [0, summary.dead_since, summary.dead_since])
        group[0] += 1
        group[1] = min(group[1], summary.dead_since)
        group[2] = max(group[2], summary.dead_since)

    def groups(self) -> list[LetterGroup]:
        """The groups, the largest first."""
        found = [
            LetterGroup(client_id=client_id, iss=iss, reason=reason, count=int(count), oldest=oldest, newest=newest)
            for (client_id, iss, reason), (count, oldest, newest) in self._groups.items()
        ]
        return sorted(found, key=lambda group: (-group.count, group.client_id, group.iss, group.reason))


def exported(message: Message) -> dict[str, object]:
    """The whole letter as JSON. Of a letter that a later release wrote: its summary and its body."""
    try:
        return document_of(load_dead_letter(message))
    except UnknownVersion:
        return {**read_summary(message).document(), "body": message.body.decode(errors="replace")}


def document_of(letter: DeadLetter) -> dict[str, Any]:
    """The whole letter as JSON. What its attempts met is the list `outcomes`."""
    content = _LETTER.dump_python(replace(letter, raw=None), mode="json", exclude_defaults=True)
    if letter.raw is not None:
        rest = _RAW.dump_python(replace(letter.raw, body=b""), mode="json", exclude_defaults=True)
        content["raw"] = {**shown(letter.raw), **rest}
    outcomes = [
        {"at": render_moment(past.at), "reason": past.reason, "status": past.status, "text": past.text}
        for past in letter.outcomes
    ]
    return {"v": 1, **content, "outcomes": outcomes}
