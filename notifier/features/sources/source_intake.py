"""Open a message of a source by its mapping, and return its event or the messages that replace it.

A single event is processed directly. Several events are published in notifier's form before the message is acked, and
the malformed ones as one dead letter. An ignored event is only counted.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Literal

from notifier.delivery.facts import EventTaken
from notifier.delivery.ports import SingleEvent
from notifier.delivery.replacements import Replacement, Send, send_dead_letter
from notifier.features.sources.source import Source
from notifier.features.sources.translation import Translation
from notifier.model.documents import dead_letter, documents
from notifier.model.documents.dead_letter import DeadLetter
from notifier.model.documents.sourced import RereadMessage, parse_event_positions, to_kept, to_sourced
from notifier.model.errors import InputIssue, MalformedEvent, UnknownSource
from notifier.model.frozen import replace
from notifier.model.ids import new_id
from notifier.model.message import Kind, Lane, Message, Outgoing


class SourceIntake:
    """Opens messages of sources. `sources` returns the current sources; `max_event` is in bytes; `new_id` makes ids."""

    def __init__(
        self, sources: Callable[[], Mapping[str, Source]], *, new_id: Callable[[], str], max_event: int
    ) -> None:
        self._sources = sources
        self._new_id = new_id
        self._max_event = max_event

    def without_secrets(self, message: Message) -> Message:
        """Return the message without the headers that must not be stored."""
        source = self._sources().get(message.source or "")
        return to_kept(message) if source is None else source.strip_headers(message)

    def open(
        self, message: Message, only: str | None, now: float, rest_until: float | None
    ) -> SingleEvent | Replacement:
        """Read the message by the current mapping. Its replacements are held until `rest_until` (epoch seconds).

        Raises MalformedEvent, and UnknownSource if the source is not configured.
        """
        name = message.source or ""
        source = self._sources().get(name)
        if source is None:
            text = f"the source {name} is not configured (any more); add sources.{name}, then replay"
            raise UnknownSource([InputIssue("", text)])
        positions = None if only is None else parse_event_positions(only)
        translation = source.translate(message, max_bytes=self._max_event, new_id=self._new_id, now=now, only=positions)
        letter = None if translation.wrong is None else dead_letter.dead_letter_events(message, translation.wrong, now)
        if len(translation.events) == 1:
            return SingleEvent(event=translation.events[0], dead_letter=letter)
        return Replacement(
            sends=self._sends(message, translation, letter, rest_until), fact=_to_fact(message, translation)
        )

    def _sends(
        self, message: Message, translation: Translation, letter: DeadLetter | None, rest_until: float | None
    ) -> Iterator[Send]:
        lane = Lane.BULK if message.lane is Lane.BULK else Lane.EVENTS
        if letter is not None:
            yield send_dead_letter(letter, None)
        for part in translation.parts:
            yield Send(queue=lane, due=rest_until, message=to_sourced(message, self._new_id(), part))
        for event in translation.events:
            document = documents.EventDocument(event=replace(event, id_given=True), bulk=lane is Lane.BULK)
            # Separate message ids, because two events with the same id would be confirmed as one.
            body = documents.dump_event(document)
            yield Send(
                queue=lane, due=rest_until, message=Outgoing(kind=Kind.EVENT, body=body, message_id=self._new_id())
            )


def _to_fact(message: Message, translation: Translation) -> EventTaken:
    result: Literal["split", "ignored", "malformed"] = "ignored" if translation.wrong is None else "malformed"
    if translation.parts or translation.events:
        result = "split"
    issuers = {event.iss for event in translation.events}
    return EventTaken(
        result=result,
        event_id=message.message_id or "",
        iss=issuers.pop() if len(issuers) == 1 else "",
        publisher=message.user_id,
        deliveries=0,
        dated=True,
        source=message.source,
    )


def read_again(
    sources: Mapping[str, Source], max_event: int, message: Message, only: str | None, now: float
) -> RereadMessage | str:
    """Return the unchanged message for a replay if the sources can read it; otherwise return the reason.

    The worker reads it by the mapping that is configured then.
    """
    name = message.source or ""
    source, positions = sources.get(name), None if only is None else parse_event_positions(only)
    why = f"sources.{name} is not configured"
    if source is not None:
        try:
            source.translate(message, max_bytes=max_event, new_id=new_id, now=now, only=positions)
        except MalformedEvent as malformed:
            why = str(malformed)
        else:
            return RereadMessage(message=message)
    return f"still malformed ({why}): correct sources.{name}, and try it with `notifier sources try`"
