"""Says what became of each client, in words for a terminal."""

from collections.abc import Iterator

from notifier.domain.durations import format_duration
from notifier.domain.fate import Fate, Notice
from notifier.domain.printable import counted
from notifier.operations.notice_wait import EventNotices

WIDEST = 40  # characters of a client_id before it breaks the column


def notice_lines(event: EventNotices, now: float) -> Iterator[str]:
    """Yield a line for each client, in the order in which they were heard of. `now` in epoch seconds."""
    known = event.known
    width = min(WIDEST, max((len(notice.client_id) for notice in known), default=0))
    for notice in known:
        words = _words(notice, now)
        yield f"{notice.client_id:{width}}  {words}" if notice.client_id else words
    if not event.settled:
        missing = (known[0].of or 0) - len(known) if known else None
        if missing is None:
            yield "nothing was heard of it yet: no worker took it, or it could not reply"
        elif missing > 0:
            yield f"of {counted(missing, 'more client')} nothing was heard yet"


def _words(notice: Notice, now: float) -> str:
    match notice.fate:
        case Fate.DELIVERED:
            return "delivered" if notice.attempts <= 1 else f"delivered, by attempt {notice.attempts}"
        case Fate.RETRYING:
            status = "" if notice.status is None else f" {notice.status}"
            due = (
                "" if notice.next_due is None else f", again in {format_duration(max(0, round(notice.next_due - now)))}"
            )
            return f"retrying: {notice.reason}{status}{due}"
        case Fate.DEAD:
            return f"dead: {notice.reason}" + (f" ({notice.text})" if notice.text else "")
        case Fate.SKIPPED:
            if not notice.client_id:
                return "skipped: no client of the issuer has a backchannel_logout_uri"
            return "skipped: it has no backchannel_logout_uri"
        case Fate.DUPLICATE:
            return "duplicate: a copy of an event that was taken before"
