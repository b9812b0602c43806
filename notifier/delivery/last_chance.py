"""Buries a message at its last chance, before anything of it is begun.

A message that the queue itself gives up looks like a forgery, and cannot be replayed.
"""

import dataclasses
from typing import Literal

from notifier.delivery.facts import EventTaken
from notifier.delivery.settlement import Send, buried
from notifier.model.documents import dead_letter, documents
from notifier.model.documents.dead_letter import DeadLetter
from notifier.model.message import Kind, Message
from notifier.model.outcome import DeadReason
from notifier.model.session_ended import SessionEnded


def worn_out(message: Message, only: str | None, now: float) -> tuple[Send, EventTaken | None] | None:
    """Return the dead letter that replaces the message, and the fact for observers. None if it goes on unopened.

    A publisher's own message is buried unread: reading it may be what kills the process. `only`: see `limited`.
    """
    times = max(message.delivery_count, message.crashes)
    text = (
        f"given back to the queue {times} times: each worker that took it died, or lost its "
        "connection before it was done; look for `crashed` in the log, and for what ended them"
    )
    reason = DeadReason.DELIVERY_LIMIT
    match message.kind:
        case Kind.DELIVERY:
            delivery = documents.load_delivery(message.body)
            letter = dead_letter.bury_delivery(delivery, reason, text, now)
            return buried(letter, delivery.reply_to), None
        case Kind.EVENT:
            event = documents.load_event(message.body).event
            letter = dead_letter.bury_event(event, reason, text, now)
            return buried(letter, event.reply_to), event_taken(event, "accepted")
        case None:
            letter = limited(dead_letter.bury_unread(message, reason, text, now), only)
            fact = EventTaken(
                result="accepted", event_id=letter.event_id, iss=letter.iss, publisher=letter.publisher, deliveries=0,
                dated=message.timestamp is not None, source=message.source,
            )  # fmt: skip
            return buried(letter, message.reply_to), fact
        case _:
            return None


def limited(letter: DeadLetter, only: str | None) -> DeadLetter:
    """Return the letter. If the source's message came for some of its events alone (`only`), so does the letter."""
    return letter if only is None else dataclasses.replace(letter, events=only)


def event_taken(event: SessionEnded, result: Literal["accepted", "split"]) -> EventTaken:
    """Return the fact of an event that no delivery in memory stands for."""
    return EventTaken(
        result=result, event_id=event.id, iss=event.iss, publisher=event.publisher, deliveries=0,
        dated=event.ended_at is not None, reply_to=event.reply_to, unread=event.unread,
    )  # fmt: skip
