"""Opens a message of a source: finds its mapping, and says what becomes of the events in it.

One event goes on as any. Several become durable as events of notifier's own before the message is acked. So do the
wrong ones, as one dead letter. An event that is ignored leaves nothing but a count.
"""

from collections.abc import Callable, Iterator
from typing import Literal

from notifier.delivery.facts import EventTaken
from notifier.delivery.settlement import Send, buried
from notifier.features.sources.source import Translation
from notifier.model.documents import dead_letter, documents
from notifier.model.documents.dead_letter import DeadLetter
from notifier.model.documents.sourced import ONLY, as_received, as_sourced, kept_headers, read_places
from notifier.model.errors import MalformedEvent, Mistake
from notifier.model.frozen import frozen, replace
from notifier.model.message import Kind, Lane, Message, Outgoing
from notifier.model.registry import Registry
from notifier.model.session_ended import SessionEnded


@frozen
class Alone:
    """The only event of a message, and the dead letter of what else was in it."""

    event: SessionEnded
    letter: DeadLetter | None


@frozen
class Several:
    """What must be made durable in place of a message: its events, its parts, its dead letter, or nothing."""

    sends: Iterator[Send]
    fact: EventTaken


def as_came(message: Message, registry: Registry) -> tuple[Message, str | None]:
    """Return a source's message without what may not be kept, and which of its events are meant (None: all).

    Raises MalformedEvent.
    """
    only = None
    if message.kind is Kind.SOURCED:
        named = message.headers.get(ONLY)
        only = named if isinstance(named, str) else None
        message = as_received(message)
    source = registry.sources.get(message.source or "")
    if source is None:
        return replace(message, headers=kept_headers(message.headers), reply_to=None), only
    return source.received(message), only


class SourcedIntake:
    """Opens messages of sources. `max_event` is in bytes; `new_id` makes ids."""

    def __init__(self, *, new_id: Callable[[], str], max_event: int) -> None:
        self._new_id = new_id
        self._max_event = max_event

    def open(
        self, message: Message, only: str | None, registry: Registry, now: float, rest: float | None
    ) -> Alone | Several:
        """Read the message by today's mapping. `rest`: until when (epoch seconds) what is written in its place rests.

        Raises MalformedEvent.
        """
        name = message.source or ""
        source = registry.sources.get(name)
        if source is None:
            text = f"the source {name} is not configured (any more); add sources.{name}, then replay"
            raise MalformedEvent([Mistake("", text)])
        meant = None if only is None else read_places(only)
        found = source.translate(message, max_bytes=self._max_event, new_id=self._new_id, now=now, only=meant)
        letter = None if found.wrong is None else dead_letter.bury_events(message, found.wrong, now)
        if len(found.events) == 1:
            return Alone(event=found.events[0], letter=letter)
        return Several(sends=self._sends(message, found, letter, rest), fact=_fact(message, found))

    def _sends(
        self, message: Message, found: Translation, letter: DeadLetter | None, rest: float | None
    ) -> Iterator[Send]:
        lane = Lane.BULK if message.lane is Lane.BULK else Lane.EVENTS
        if letter is not None:
            yield buried(letter, None)
        for part in found.parts:
            yield Send(queue=lane, due=rest, message=as_sourced(message, self._new_id(), part))
        for event in found.events:
            document = documents.EventDocument(event=replace(event, id_given=True), bulk=lane is Lane.BULK)
            # Ids of their own: two events may have one id, and would be confirmed as one.
            body = documents.dump_event(document)
            yield Send(queue=lane, due=rest, message=Outgoing(kind=Kind.EVENT, body=body, message_id=self._new_id()))


def _fact(message: Message, found: Translation) -> EventTaken:
    result: Literal["split", "ignored", "malformed"] = "ignored" if found.wrong is None else "malformed"
    if found.parts or found.events:
        result = "split"
    issuers = {event.iss for event in found.events}
    return EventTaken(
        result=result,
        event_id=message.message_id or "",
        iss=issuers.pop() if len(issuers) == 1 else "",
        publisher=message.user_id,
        deliveries=0,
        dated=True,
        source=message.source,
    )
