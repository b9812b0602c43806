"""Logs what somebody did with dead letters by hand, and who did it. A line holds no `sub` and no `sid`."""

from collections.abc import Mapping
from typing import Protocol

from notifier.model.moment import render_moment
from notifier.operators.letters.letter_filter import LetterFilter, LetterSummary
from notifier.operators.letters.visits import RepairResult


class WriteAudit(Protocol):
    """Writes one line of the audit."""

    def __call__(self, action: str, **details: object) -> None:
        """Write it, whatever the level of the log."""


class DeadLetterAudit:
    """Logs each replay, each discard, and each look at whole letters."""

    def __init__(self, write: WriteAudit) -> None:
        self._write = write

    def repaired(self, action: str, who: str, wanted: LetterFilter, result: RepairResult, **more: object) -> None:
        """Log a replay or discard."""
        self._write(
            f"dead_letters_{action}",
            who=who,
            done=result.done,
            by_reason=dict(result.by_reason),
            kept=dict(result.kept),
            unfinished=result.unfinished,
            wanted=_without_subject(wanted),
            **more,
        )

    def discarded(self, who: str, letter: LetterSummary) -> None:
        """Log one discarded letter, which cannot come back."""
        named = {name: value for name, value in letter.document().items() if name not in ("attempts", "text")}
        self._write("dead_letter_discarded", who=who, **named)

    def read(self, action: str, who: str, wanted: LetterFilter) -> None:
        """Log that somebody reads whole letters, with `sub` and `sid`."""
        self._write(f"dead_letters_{action}", who=who, wanted=_without_subject(wanted))


def _without_subject(wanted: LetterFilter) -> Mapping[str, object]:
    narrowing: dict[str, object] = {
        "ids": sorted(wanted.ids)[:20] + (["…"] if len(wanted.ids) > 20 else []),
        "client_id": wanted.client_id,
        "iss": wanted.iss,
        "event_id": wanted.event_id,
        "source": wanted.source,
        "reasons": sorted(wanted.reasons),
        "since": None if wanted.since is None else render_moment(wanted.since),
        "until": None if wanted.until is None else render_moment(wanted.until),
        "subject": None if wanted.subject is None else "[given]",
        "issuers": None if wanted.issuers is None else sorted(wanted.issuers),
    }
    return {name: value for name, value in narrowing.items() if value} or {"all": True}
