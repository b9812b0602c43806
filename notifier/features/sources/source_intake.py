"""Convert a message of a source by its mapping: return its event, or the messages that replace the message.

A single event is processed directly. Several events are published in notifier's form before the message is acked. The
malformed events of a message become one dead letter. Ignored events are only counted.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Literal

from notifier.delivery.facts import EventTaken, Observer
from notifier.delivery.settlement import OutgoingMessage, to_dead_letter_message
from notifier.features.sources.source import Source
from notifier.features.sources.source_compiler import compile_sources
from notifier.features.sources.translation import Translation
from notifier.messages.replacements import Replacement, SingleEvent, to_members_misspelt
from notifier.model.defaults import MAX_EVENT
from notifier.model.documents import dead_letter, documents
from notifier.model.documents.dead_letter import DeadLetter
from notifier.model.documents.sourced import (
    EVENT_SOURCES,
    ReadAgain,
    RereadMessage,
    parse_event_positions,
    to_kept,
    to_sourced,
)
from notifier.model.errors import InputIssue, MalformedEvent, UnknownSource
from notifier.model.ids import new_id
from notifier.model.message import Kind, Lane, Message, MessageDraft
from notifier.model.record import copy_record
from notifier.settings.service_settings import Settings


class SourceIntake:
    """Converts messages of sources. `sources` returns the current sources by name. `max_event`: maximum bytes."""

    def __init__(
        self,
        sources: Callable[[], Mapping[str, Source]],
        *,
        new_id: Callable[[], str],
        max_event: int,
        observe: Observer = lambda _: None,
    ) -> None:
        self._sources = sources
        self._new_id = new_id
        self._max_event = max_event
        self._observe = observe

    def without_secrets(self, message: Message) -> Message:
        """Return the message without the headers that must not be stored."""
        source = self._sources().get(message.source or "")
        return to_kept(message) if source is None else source.strip_headers(message)

    def open(
        self, message: Message, only: str | None, now: float, rest_until: float | None
    ) -> SingleEvent | Replacement:
        """Return the event of a message by the current mapping, or the messages that replace it.

        `only`: the positions of the events to read; None for all. The replacements are due at `rest_until` (epoch
        seconds; None: at once). Raises MalformedEvent, and UnknownSource if the source is not configured.
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
        for event in translation.events:
            if event.misspelt:
                self._observe(to_members_misspelt(event, name))
        messages = self._replacements_of(message, translation, letter, rest_until)
        return Replacement(messages=messages, fact=_to_fact(message, translation))

    def _replacements_of(
        self, message: Message, translation: Translation, letter: DeadLetter | None, rest_until: float | None
    ) -> Iterator[OutgoingMessage]:
        """Yield the dead letter of the malformed events, the parts of the message, and its events."""
        lane = Lane.BULK if message.lane is Lane.BULK else Lane.EVENTS
        if letter is not None:
            yield to_dead_letter_message(letter, None)
        for part in translation.parts:
            yield OutgoingMessage(queue=lane, due=rest_until, message=to_sourced(message, self._new_id(), part))
        for event in translation.events:
            document = documents.EventDocument(event=copy_record(event, id_given=True), bulk=lane is Lane.BULK)
            # The message id is not that of the event: two messages with the same id would be confirmed as one.
            outgoing = MessageDraft(kind=Kind.EVENT, body=documents.dump_event(document), message_id=self._new_id())
            yield OutgoingMessage(queue=lane, due=rest_until, message=outgoing)


def _to_fact(message: Message, translation: Translation) -> EventTaken:
    """Return the fact of a message that was split into several, ignored or malformed."""
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


def readers_of(settings: Settings | None) -> Mapping[str, ReadAgain]:
    """Return the reader of messages for a replay. Without settings, it returns each message unchanged."""
    if settings is None:
        return {EVENT_SOURCES: lambda message, _only, _now: RereadMessage(message=message)}
    return {EVENT_SOURCES: partial(read_again, compile_sources(settings)[0], MAX_EVENT)}


def read_again(
    sources: Mapping[str, Source], max_event: int, message: Message, only: str | None, now: float
) -> RereadMessage | str:
    """Return the message for a replay, unchanged, or why none of it can be read.

    `only`: positions of the events to read. A worker converts it again by the mapping that is configured then.
    """
    name = message.source or ""
    source = sources.get(name)
    positions = None if only is None else parse_event_positions(only)
    error = f"sources.{name} is not configured"
    if source is not None:
        try:
            source.translate(message, max_bytes=max_event, new_id=new_id, now=now, only=positions)
            return RereadMessage(message=message)
        except MalformedEvent as malformed:
            error = str(malformed)
    return f"still malformed ({error}): correct sources.{name}, and try it with `notifier sources try`"
