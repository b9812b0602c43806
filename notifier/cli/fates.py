"""What became of each client, in words for a terminal."""

from collections.abc import Iterator

from notifier.domain.durations import format_duration
from notifier.domain.fate import Fate, Told
from notifier.operations.fates import Account

WIDEST = 40  # characters of a client_id before it breaks the column


def lines(account: Account, now: float) -> Iterator[str]:
    """One a client, in the order in which they were heard of. `now` in epoch seconds."""
    told = account.told
    width = min(WIDEST, max((len(each.client_id or "") for each in told), default=0))
    for each in told:
        words = _words(each, now)
        yield words if each.client_id is None else f"{each.client_id:{width}}  {words}"
    if not account.settled:
        missing = (told[0].of or 0) - len(told) if told else None
        if missing is None:
            yield "nothing was heard of it yet: no worker took it, or it could not reply"
        elif missing > 0:
            yield f"of {missing:,} more client{'' if missing == 1 else 's'} nothing was heard yet"


def _words(told: Told, now: float) -> str:
    match told.fate:
        case Fate.DELIVERED:
            return "delivered" if told.attempts <= 1 else f"delivered, by attempt {told.attempts}"
        case Fate.RETRYING:
            status = "" if told.status is None else f" {told.status}"
            due = "" if told.next_due is None else f", again in {format_duration(max(0, round(told.next_due - now)))}"
            return f"retrying: {told.reason}{status}{due}"
        case Fate.DEAD:
            return f"dead: {told.reason}" + (f" ({told.text})" if told.text else "")
        case Fate.SKIPPED:
            if told.client_id is None:
                return "skipped: no client of the issuer has a backchannel_logout_uri"
            return "skipped: it has no backchannel_logout_uri"
        case Fate.DUPLICATE:
            return "duplicate: a copy of an event that was taken before"
