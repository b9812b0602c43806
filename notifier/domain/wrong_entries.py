"""The dead letter of wrong entries. Those of one event share one, so that no event makes thousands of letters."""

from collections.abc import Sequence
from dataclasses import replace

from notifier.domain import frozen
from notifier.domain.dead_letter import DeadLetter, bury_event, digest
from notifier.domain.event_entries import WrongEntries, first_of
from notifier.domain.message import Message
from notifier.domain.outcome import DeadReason
from notifier.domain.session_ended import SessionEnded, WrongEntry
from notifier.domain.unreadable import few, header, raw_of, told


def bury_entries(message: Message, event: SessionEnded, wrong: WrongEntries, now: float) -> DeadLetter:
    """One letter for all wrong entries of the event in this message. A copy made by a crash has the same id."""
    mistakes = few(first_of(wrong.mistakes, wrong.more))
    return DeadLetter(
        id=digest(message.body, (message.message_id or "").encode(errors="replace"), b"entries"),
        reason=DeadReason.MALFORMED_EVENT,
        text=told(mistakes),
        dead_since=now,
        iss=header(event.iss),
        event_id=header(event.id),
        publisher=message.user_id,
        mistakes=mistakes,
        raw=raw_of(message),
        entries=wrong.which,
    )


def bury_wrong(event: SessionEnded, wrong: Sequence[WrongEntry], now: float) -> DeadLetter:
    """The letter for wrong entries that an earlier release read. It holds the event with these entries only."""
    mistakes = few(first_of([mistake for entry in wrong for mistake in entry.mistakes]))
    of_these = frozen.replace(event, clients=tuple(wrong))
    return replace(bury_event(of_these, DeadReason.MALFORMED_EVENT, told(mistakes), now), mistakes=mistakes)
