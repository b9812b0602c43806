"""Convert the documents of one identity server to events, by the mapping of a configured source.

Mapped events are validated like events in notifier's form, so that all errors are listed. A message may contain a list
of events. Each is valid, ignored or malformed independently of the others.

The `id` of an event is that of the mapping, otherwise of the envelope, otherwise the AMQP `message_id`. The latter two
belong to the whole message, and are not used for members of a list. Otherwise the id is a digest of the mapped members,
and of the message's time if these have neither a time nor a session. Without a time, the id is a new one: the user's
next sign-out would have the same digest, and be dropped. A time that cannot be parsed is digested as a text.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from notifier.features.sources.envelopes import (
    Envelope,
    UnreadablePart,
    UnwrappedDocument,
    is_empty,
    read_documents,
    unwrap_documents,
)
from notifier.features.sources.expressions import EvaluationError, Expression, ExpressionReader
from notifier.features.sources.translation import (
    NO_ISSUER,
    DocumentDigests,
    Translation,
    TranslationBuilder,
    cloudevent_of,
    derive_id,
    explain_not_object,
    match_issuer,
    properties_of,
)
from notifier.model.documents.cloudevents import OpenedMessage
from notifier.model.documents.event_document import INFORMATIONAL_MEMBERS, ParsedEvent, parse_opened
from notifier.model.documents.sourced import Positions, to_kept
from notifier.model.errors import InputIssue, MalformedEvent
from notifier.model.message import Message
from notifier.model.printable import excerpt
from notifier.model.record import copy_record
from notifier.model.validation import kind_of
from notifier.tokens.security_event_token import is_verification

MAX_EVENTS_AT_ONCE = 200  # of one message; reading them blocks the event loop for 20 ms
# Not `sid`, which is refused if empty: without it, the event would end all sessions of the user.
_OMITTED_IF_EMPTY: Final = ("id", "iss", "sub", "email", "reason", "ended_at", "not_after")
# The values of members whose expression failed. The event is refused, and these values cause no further errors.
_PLACEHOLDERS: Mapping[str, object] = {"clients": "*", "sub": "-", "sid": "-"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A compiled source.

    `issuer` and the values of `issuers` are the only issuers whose sessions it may end. `realm` returns what a
    document calls its issuer: a key of `issuers` or, without `issuers`, a name that must match `issuer`. `types`: by
    issuer, the CloudEvents types that an event of a source with signed bodies must have. `lines`: bodies may be JSON
    lines. `as_json`: bodies are JSON, whatever their content type. `members`: the expressions of an event's members.
    `secret_headers`: lower-case names of headers that must never be stored. `used_names`: all names in the expressions.
    """

    name: str
    preset: str | None = None
    issuer: str | None = None
    issuers: Mapping[str, str] | None = None
    types: Mapping[str, frozenset[str]] = field(default_factory=dict)
    realm: Expression | None = None
    envelopes: tuple[Envelope, ...] = ()
    lines: bool = False
    as_json: bool = False
    ignore_case: bool = False
    when: Expression | None = None
    members: Mapping[str, Expression]
    secret_headers: frozenset[str] = frozenset()
    used_names: frozenset[str] = frozenset()

    @property
    def speaks_for(self) -> tuple[str, ...]:
        """Return the issuers whose sessions the source may end."""
        issuers = [self.issuer, *(self.issuers or {}).values()]
        return tuple(dict.fromkeys(issuer for issuer in issuers if issuer is not None))

    @property
    def accepts_empty(self) -> bool:
        """Return whether an empty body is valid: `when` does more than name members, so that it can evaluate null."""
        return self.when is not None and not self.when.needs_object

    def strip_headers(self, message: Message) -> Message:
        """Return the message without secret headers and without its request for a delivery report."""
        return to_kept(message, self.secret_headers, self.used_names)

    def translate(
        self,
        message: Message,
        *,
        max_bytes: int,
        new_id: Callable[[], str],
        now: float,
        only: Positions | None = None,
        max_events: int = MAX_EVENTS_AT_ONCE,
    ) -> Translation:
        """Convert a message returned by `strip_headers`. Raises MalformedEvent if it has only errors.

        `only`: the events to read by number, each with the positions of the clients to read; None for all. With None, a
        message of more than `max_events` events is not read: the result has the positions of its parts.
        """
        reader = _MessageReader(self, message, new_id, now)
        documents = reader.read_documents(max_bytes)
        count = len(documents)
        if only is None and count > max_events:
            starts = range(0, count, max_events)
            return Translation(parts=tuple(f"{start}-{min(start + max_events, count) - 1}" for start in starts))
        builder = TranslationBuilder(count)
        for number, document in enumerate(documents):
            entries = None if only is None else only.get(number, ())
            if entries is None or entries:
                builder.add(number, entries, partial(reader.read_event, document, entries))
        for number, entries in () if only is None else only.items():
            if number >= count:
                builder.add_errors(number, entries, [InputIssue("", "is not in the message any more")])
        return copy_record(builder.build(), timeless_ids=frozenset(reader.timeless_ids))


class _MessageReader:
    """Reads the documents and events of one message."""

    def __init__(self, source: Source, message: Message, new_id: Callable[[], str], now: float) -> None:
        self._source, self._message, self._new_id, self._now = source, message, new_id, now
        self._digests, self._parsed_texts = DocumentDigests(), dict[str, object]()
        self._names: dict[str, object] = {}  # values of `$headers` and `$properties`, for expressions
        self.timeless_ids: set[str] = set()
        if "$properties" in source.used_names:
            self._names["$properties"] = properties_of(message)
        if "$headers" in source.used_names:
            self._names["$headers"] = message.headers

    def read_documents(self, max_bytes: int) -> Sequence[UnwrappedDocument]:
        """Return the documents in the message, one for each event. Raises MalformedEvent."""
        source, source_path = self._source, f"sources.{self._source.name}"
        message = copy_record(self._message, content_type="application/json") if source.as_json else self._message
        if source.when is not None and is_empty(message):
            if source.accepts_empty:
                return [UnwrappedDocument(data=None)]
            text = "the message is empty; to ignore such ones, begin `when` with @ != `null` &&"
            raise MalformedEvent([InputIssue(source_path, text)])
        try:
            documents = read_documents(message, max_bytes, lines=source.lines, ignore_case=source.ignore_case)
        except MalformedEvent as error:
            issues = [InputIssue(mistake.path or source_path, mistake.text) for mistake in error.mistakes]
            raise MalformedEvent(issues) from None
        if len(documents) == 1 and is_verification(documents[0].data):  # it has no envelope
            return documents
        try:
            return unwrap_documents(documents, source.envelopes, message, self._names, ignore_case=source.ignore_case)
        except MalformedEvent as error:
            path = f"{source_path}.envelope"
            raise MalformedEvent([InputIssue(path, mistake.text) for mistake in error.mistakes]) from None

    def read_event(self, document: UnwrappedDocument, only: Sequence[range] | None) -> ParsedEvent | None:
        """Return the event in a document; None if it is ignored. Raises MalformedEvent. `only`: clients to read."""
        source, source_path = self._source, f"sources.{self._source.name}"
        if isinstance(document.data, UnreadablePart):
            unread = document.data.mistakes
            raise MalformedEvent([InputIssue(mistake.path or source_path, mistake.text) for mistake in unread])
        if is_verification(document.data):
            return None
        needs_envelope = "$envelope" in source.used_names
        names = {**self._names, "$envelope": document.envelope} if needs_envelope else self._names
        reader = ExpressionReader(document.data, names, ignore_case=source.ignore_case, texts=self._parsed_texts)
        if source.when is not None:
            if source.when.needs_object and not isinstance(document.data, dict):
                raise MalformedEvent([InputIssue(source_path, explain_not_object(document.data))])
            if not self._is_selected(reader, source.when):
                return None
        opened = self._map_document(reader, document)
        message = self._with_fallbacks(document, opened.data)
        try:
            return parse_opened(opened, message, new_id=self._new_id, now=self._now, only=only)
        except MalformedEvent as error:
            if isinstance(document.data, dict) or opened.data.keys() & {"sub", "sid", "clients"}:
                raise
            # The mapping found nothing, since the document is not an object. This error explains the others.
            issue = InputIssue(source_path, explain_not_object(document.data))
            raise MalformedEvent((issue, *error.mistakes), error.data) from None

    def _map_document(self, reader: ExpressionReader, document: UnwrappedDocument) -> OpenedMessage:
        """Return the event by the mapping, before its members are validated, with the errors of the mapping."""
        path = f"sources.{self._source.name}.event."
        mistakes: list[InputIssue] = []
        data = self._map_members(reader, document, path, mistakes)
        try:
            data["iss"] = self._find_issuer(reader, data.get("iss"))
        except MalformedEvent as error:
            mistakes += error.mistakes
            data["iss"] = NO_ISSUER
        mistakes += self._check_type(document, str(data["iss"]))
        return OpenedMessage(
            data=data, envelope=cloudevent_of(document), path=path, mistakes=tuple(mistakes), trace=document.trace,
            unread_time=document.unread_time,
        )  # fmt: skip

    def _map_members(
        self, reader: ExpressionReader, document: UnwrappedDocument, path: str, mistakes: list[InputIssue]
    ) -> dict[str, object]:
        """Return the value of each member's expression. Adds errors to `mistakes`.

        If the expression of an informational member fails, its value is a digest of the whole document. The value is
        dropped when the event is validated, but makes the digest for the id unique.
        """
        data: dict[str, object] = {}
        for name, expression in self._source.members.items():
            try:
                value = reader.evaluate(expression)
            except EvaluationError as error:
                if name in INFORMATIONAL_MEMBERS:
                    data[name] = self._digests.of(document, with_envelope="$envelope" in expression.fields)
                    continue
                mistakes.append(InputIssue(path + name, str(error)))
                value = _PLACEHOLDERS.get(name)
            if self._is_wrong_number(name, value):
                function = "from_s(…), from_ms(…) or from_us(…)" if name == "not_after" else "to_string(…)"
                mistakes.append(InputIssue(path + name, f"is a number; write {function} around it"))
                data[name] = _PLACEHOLDERS.get(name)
            elif value is not None and (value != "" or name not in _OMITTED_IF_EMPTY):
                data[name] = value
        return data

    def _is_wrong_number(self, name: str, value: object) -> bool:
        """Return whether a member that must be a text is a number. `iss` may be a number that is a key of `issuers`."""
        if type(value) not in (int, float) or name in ("clients", *INFORMATIONAL_MEMBERS):
            return False
        return name != "iss" or self._source.issuers is None

    def _is_selected(self, reader: ExpressionReader, when: Expression) -> bool:
        """Return the value of `when`. Raises MalformedEvent if it is neither true nor false."""
        path = f"sources.{self._source.name}.when"
        try:
            value = reader.evaluate(when)
        except EvaluationError as error:
            raise MalformedEvent([InputIssue(path, str(error))]) from None
        if isinstance(value, bool):
            return value
        fields = ", ".join(sorted(when.fields))
        cause = f"; a member that decides is missing or of another type, among {fields}" if value is None else ""
        raise MalformedEvent([InputIssue(path, f"must give true or false, not {kind_of(value)}{cause}")])

    def _check_type(self, document: UnwrappedDocument, iss: str) -> list[InputIssue]:
        """Return the error if the CloudEvents type of a signed body is none that ends sessions of its issuer."""
        permitted, actual = self._source.types.get(iss), document.type
        if permitted is None or actual in permitted:
            return []
        fault = "has no CloudEvents type" if actual is None else f"is of the CloudEvents type {excerpt(actual)}"
        text = f'{fault}; of a signed body, issuers["{iss}"].event_types asks for one of {", ".join(sorted(permitted))}'
        return [InputIssue(f"sources.{self._source.name}", text)]

    def _find_issuer(self, reader: ExpressionReader, iss: object) -> object:
        """Return the issuer of the event, or a value of another type, which is refused later. Raises MalformedEvent.

        `iss`: the value of the mapping. The source's `realm`, if any, replaces it.
        """
        source = self._source
        if source.realm is not None:
            path = f"sources.{source.name}.issuers"
            try:
                realm = reader.evaluate(source.realm)
            except EvaluationError as error:
                raise MalformedEvent([InputIssue(path, str(error))]) from None
            realms = realm if isinstance(realm, list) else [realm]
            names = [str(name) for name in realms if name not in (None, "")]
            if names:
                return match_issuer(names, source.issuer, source.issuers, path)
            iss = None
        if iss in (None, ""):
            iss = source.issuer
        if iss is None:
            raise MalformedEvent([InputIssue(f"sources.{source.name}.issuer", "the document names none; set it")])
        if isinstance(iss, str) and iss not in source.speaks_for:
            text = f"the document names {excerpt(iss)}; this source speaks for {', '.join(source.speaks_for)} alone"
            raise MalformedEvent([InputIssue(f"sources.{source.name}.issuer", text)])
        return iss

    def _with_fallbacks(self, document: UnwrappedDocument, data: Mapping[str, object]) -> Message:
        """Return the message with the id and time that the event has if the mapping gives none."""
        message = self._message
        time = message.timestamp if document.time is None else document.time
        event_id = message.message_id
        if "id" not in data and (document.id or document.index is not None):  # the message's id is of the whole list
            event_id = document.id
        if "id" not in data and not event_id:
            written_time = time if document.unread_time is None else document.unread_time
            event_id = derive_id(data, written_time, message.message_id, document.index)
            if event_id is not None and "ended_at" not in data and "sid" in data:  # the digest of the session alone
                self.timeless_ids.add(event_id)
        if event_id == message.message_id and time == message.timestamp:
            return message
        return copy_record(message, message_id=event_id, timestamp=time)
