"""Logs what somebody did by hand with what waits, and who did it. A line holds no `sub` and no `sid`."""

from collections.abc import Mapping

from notifier.operators.letters.dead_letter_audit import WriteAudit
from notifier.operators.letters.visits import RepairResult
from notifier.operators.letters.waiting_filter import WaitingFilter, WaitingSummary


class WaitingAudit:
    """Logs each cancellation."""

    def __init__(self, write: WriteAudit) -> None:
        self._write = write

    def cancelled(self, who: str, wanted: WaitingFilter, result: RepairResult) -> None:
        """Log what was cancelled in all."""
        self._write(
            "waiting_cancelled",
            who=who,
            done=result.done,
            by_reason=dict(result.by_reason),
            unfinished=result.unfinished,
            wanted=_narrowing(wanted),
        )

    def cancelled_one(self, who: str, one: WaitingSummary) -> None:
        """Log one cancelled delivery, which cannot come back."""
        named = {name: value for name, value in one.document().items() if name not in ("text", "asked")}
        self._write("waiting_cancelled_one", who=who, **named)


def _narrowing(wanted: WaitingFilter) -> Mapping[str, object]:
    narrowing: dict[str, object] = {
        "ids": sorted(wanted.ids)[:20] + (["…"] if len(wanted.ids) > 20 else []),
        "client_id": wanted.client_id,
        "iss": wanted.iss,
        "event_id": wanted.event_id,
        "issuers": None if wanted.issuers is None else sorted(wanted.issuers),
    }
    return {name: value for name, value in narrowing.items() if value} or {"all": True}
