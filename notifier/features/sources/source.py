"""Convert the documents of one identity server to events, by the mapping of a configured source.

Mapped events are validated like events in notifier's form, so every error is listed. A message may hold a list of
events; each is good, ignored or malformed independently.

The `id` comes from the mapping, else from the envelope, else from AMQP `message_id`; the latter two belong to the whole
message and do not apply to members of a list. Otherwise the id is a digest of all that was read, if that has a time or
a session. Without both, the user's next sign-out would have the same id and be dropped as a duplicate. An unreadable
time enters the digest as written.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Final
from urllib.parse import unquote

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
    Translation,
    TranslationBuilder,
    cloudevent_of,
    derive_id,
    explain_not_object,
    properties_of,
)
from notifier.model.documents.cloudevents import OpenedMessage
from notifier.model.documents.event_document import INFORMATIONAL_MEMBERS, ParsedEvent, parse_opened
from notifier.model.documents.sourced import Positions, to_kept
from notifier.model.errors import InputIssue, MalformedEvent
from notifier.model.frozen import replace
from notifier.model.message import Message
from notifier.model.printable import excerpt
from notifier.model.validation import kind_of
from notifier.tokens.security_event_token import is_verification

MAX_EVENTS_AT_ONCE = 200  # of one message: 20 ms
# An empty `sid` is kept and refused: without `sid`, the event would end all sessions of the user.
_OMITTED_IF_EMPTY: Final = ("id", "iss", "sub", "reason", "ended_at", "not_after")
# Placeholders for members whose expression failed, to avoid follow-up errors. The event is refused anyway.
_PLACEHOLDERS: Mapping[str, object] = MappingProxyType({"clients": "*", "sub": "-", "sid": "-"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A compiled source. `secret_headers` has the lower-case names of headers that must never be stored.

    `issuer` and the values of `issuers` are the only issuers whose sessions it may end. `types` has, per issuer, the
    CloudEvents types that end sessions, if the source signs its bodies: each event must have one of them, because an
    event without a signed type could be of any kind. `realm` extracts the document's name for its issuer: a key of
    `issuers` or, without `issuers`, a name that must match `issuer`. `as_json`: read bodies as JSON, whatever their
    content type. `members` maps members of the event to expressions. `used_names` has all names in the expressions.
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
        own = () if self.issuer is None else (self.issuer,)
        return tuple(dict.fromkeys((*own, *(self.issuers or {}).values())))

    @property
    def accepts_empty(self) -> bool:
        """Return whether `when` can evaluate an empty body (null), as it does not only name members."""
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
        most: int = MAX_EVENTS_AT_ONCE,
    ) -> Translation:
        """Convert a message returned by `strip_headers`. Raises MalformedEvent if no event is good or ignored.

        `only` selects the events, and their entries of `clients`, to read. A message of more than `most` events is
        split into parts.
        """
        reader = _MessageReader(self, message, new_id, now)
        documents = reader.read_documents(max_bytes)
        if only is None and len(documents) > most:
            runs = (range(at, min(at + most, len(documents))) for at in range(0, len(documents), most))
            return Translation(parts=tuple(f"{run[0]}-{run[-1]}" for run in runs))
        translation = TranslationBuilder(len(documents))
        for number, document in enumerate(documents):
            entries = None if only is None else only.get(number, ())
            if entries is None or entries:
                translation.add(number, entries, partial(reader.read_event, document, entries))
        for number, entries in () if only is None else only.items():
            if number >= len(documents):
                translation.add_errors(number, entries, [InputIssue("", "is not in the message any more")])
        return replace(translation.build(), timeless_ids=frozenset(reader.timeless_ids))


class _MessageReader:
    """The reading of one message by its source."""

    def __init__(self, source: Source, message: Message, new_id: Callable[[], str], now: float) -> None:
        self._source, self._message, self._new_id, self._now = source, message, new_id, now
        self._names: dict[str, object] = {}
        self._texts: dict[str, object] = {}
        self.timeless_ids: set[str] = set()
        if "$properties" in source.used_names:
            self._names["$properties"] = properties_of(message)
        if "$headers" in source.used_names:
            self._names["$headers"] = message.headers

    def read_documents(self, max_bytes: int) -> Sequence[UnwrappedDocument]:
        """Return the documents in the message. Raises MalformedEvent."""
        source, whole = self._source, f"sources.{self._source.name}"
        message = replace(self._message, content_type="application/json") if source.as_json else self._message
        if source.when is not None and is_empty(message):
            if source.accepts_empty:
                return [UnwrappedDocument(data=None)]
            text = "the message is empty; to ignore such ones, begin `when` with @ != `null` &&"
            raise MalformedEvent([InputIssue(whole, text)])
        try:
            documents = read_documents(message, max_bytes, lines=source.lines, ignore_case=source.ignore_case)
        except MalformedEvent as wrong:
            raise MalformedEvent([InputIssue(each.path or whole, each.text) for each in wrong.mistakes]) from None
        if len(documents) == 1 and is_verification(documents[0].data):
            return documents
        try:
            return unwrap_documents(documents, source.envelopes, message, self._names, ignore_case=source.ignore_case)
        except MalformedEvent as wrong:
            path = f"sources.{source.name}.envelope"
            raise MalformedEvent([InputIssue(path, mistake.text) for mistake in wrong.mistakes]) from None

    def read_event(self, document: UnwrappedDocument, only: Sequence[range] | None) -> ParsedEvent | None:
        """Return the event in the document, or None if it is ignored. Raises MalformedEvent."""
        source = self._source
        if isinstance(document.data, UnreadablePart):
            whole = f"sources.{source.name}"
            raise MalformedEvent([InputIssue(each.path or whole, each.text) for each in document.data.mistakes])
        if is_verification(document.data):
            return None
        names = {**self._names, "$envelope": document.envelope} if "$envelope" in source.used_names else self._names
        reader = ExpressionReader(document.data, names, ignore_case=source.ignore_case, texts=self._texts)
        if source.when is not None:
            if source.when.needs_object and not isinstance(document.data, dict):
                raise MalformedEvent([InputIssue(f"sources.{source.name}", explain_not_object(document.data))])
            if not self._is_selected(reader, source.when):
                return None
        path = f"sources.{source.name}.event."
        mistakes: list[InputIssue] = []
        data = self._map_members(reader, document, path, mistakes)
        try:
            data["iss"] = self._find_issuer(reader, data.get("iss"))
        except MalformedEvent as wrong:
            mistakes += wrong.mistakes
            data["iss"] = NO_ISSUER
        mistakes += self._check_type(document, str(data["iss"]))
        message = self._with_fallbacks(document, data)
        opened = OpenedMessage(
            data=data, envelope=cloudevent_of(document), path=path, mistakes=tuple(mistakes), trace=document.trace,
            unread_time=document.unread_time,
        )  # fmt: skip
        try:
            return parse_opened(opened, message, new_id=self._new_id, now=self._now, only=only)
        except MalformedEvent as wrong:
            if isinstance(document.data, dict) or data.keys() & {"sub", "sid", "clients"}:
                raise
            mistake = InputIssue(f"sources.{source.name}", explain_not_object(document.data))
            raise MalformedEvent((mistake, *wrong.mistakes), wrong.data) from None

    def _map_members(
        self, reader: ExpressionReader, document: UnwrappedDocument, path: str, mistakes: list[InputIssue]
    ) -> dict[str, object]:
        """Return the members of the event as the mapping gives them. Adds to `mistakes`.

        An unreadable informational member is dropped when the event is read. If its expression fails, the whole
        document replaces its value, so that the digest differs.
        """
        data: dict[str, object] = {}
        for name, expression in self._source.members.items():
            try:
                value = reader.evaluate(expression)
            except EvaluationError as failed:
                if name in INFORMATIONAL_MEMBERS:
                    data[name] = [document.data, document.envelope if "$envelope" in expression.fields else None]
                    continue
                mistakes.append(InputIssue(path + name, str(failed)))
                value = _PLACEHOLDERS.get(name)
            if self._is_bare_number(name, value):
                around = "from_s(…), from_ms(…) or from_us(…)" if name == "not_after" else "to_string(…)"
                mistakes.append(InputIssue(path + name, f"is a number; write {around} around it"))
                data[name] = _PLACEHOLDERS.get(name)
            elif value is not None and (value != "" or name not in _OMITTED_IF_EMPTY):
                data[name] = value
        return data

    def _is_bare_number(self, name: str, value: object) -> bool:
        """Return whether a number was given for a required text member."""
        numbers = ("clients", *INFORMATIONAL_MEMBERS, *(() if self._source.issuers is None else ("iss",)))
        return type(value) in (int, float) and name not in numbers

    def _is_selected(self, reader: ExpressionReader, when: Expression) -> bool:
        path = f"sources.{self._source.name}.when"
        try:
            value = reader.evaluate(when)
        except EvaluationError as failed:
            raise MalformedEvent([InputIssue(path, str(failed))]) from None
        if isinstance(value, bool):
            return value
        fields = ", ".join(sorted(when.fields))
        why = f"; a member that decides is missing or of another type, among {fields}" if value is None else ""
        raise MalformedEvent([InputIssue(path, f"must give true or false, not {kind_of(value)}{why}")])

    def _check_type(self, document: UnwrappedDocument, iss: str) -> list[InputIssue]:
        types, found_type = self._source.types.get(iss), document.type
        if types is None or found_type in types:
            return []
        what = "has no CloudEvents type" if found_type is None else f"is of the CloudEvents type {excerpt(found_type)}"
        text = f'{what}; of a signed body, issuers["{iss}"].event_types asks for one of {", ".join(sorted(types))}'
        return [InputIssue(f"sources.{self._source.name}", text)]

    def _find_issuer(self, reader: ExpressionReader, named: object) -> object:
        source = self._source
        if source.realm is not None:
            path = f"sources.{source.name}.issuers"
            try:
                named = reader.evaluate(source.realm)
            except EvaluationError as failed:
                raise MalformedEvent([InputIssue(path, str(failed))]) from None
            names = [str(item) for item in (named if isinstance(named, list) else [named]) if item not in (None, "")]
            if names:
                return self._match_issuer(names, path)
            named = None
        if named in (None, ""):
            named = source.issuer
        if named is None:
            raise MalformedEvent([InputIssue(f"sources.{source.name}.issuer", "the document names none; set it")])
        if isinstance(named, str) and named not in source.speaks_for:
            text = f"the document names {excerpt(named)}; this source speaks for {', '.join(source.speaks_for)} alone"
            raise MalformedEvent([InputIssue(f"sources.{source.name}.issuer", text)])
        return named

    def _match_issuer(self, names: Sequence[str], path: str) -> str:
        """Return the issuer with one of these names: the entry of `issuers`, else `issuer` if its end matches.

        The last name is the human-readable one. Raises MalformedEvent.
        """
        source = self._source
        if source.issuers is None:
            iss = source.issuer or ""
            if names[-1] in (iss, unquote(iss.rstrip("/").rpartition("/")[2])):
                return iss
            text = f"the document names {excerpt(names[-1])}, which does not fit {iss}; if it is the same, write "
            raise MalformedEvent([InputIssue(path, f'{text}issuers: {{"{excerpt(names[-1])}": "{iss}"}}')])
        for name in names:
            if (iss := source.issuers.get(name, "")) or (name == names[0] and name in source.speaks_for):
                return iss or name
        raise MalformedEvent([InputIssue(path, f"{excerpt(names[0])} is not among them; add what it means")])

    def _with_fallbacks(self, document: UnwrappedDocument, data: Mapping[str, object]) -> Message:
        """Return the message with the id and time that apply if the mapping gives none."""
        whole = self._message
        time = whole.timestamp if document.time is None else document.time
        fallback_id = document.id or (whole.message_id if document.index is None else None)
        if "id" in data:
            fallback_id = whole.message_id
        elif not fallback_id:
            when = time if document.unread_time is None else document.unread_time
            fallback_id = derive_id(data, when, whole.message_id, document.index)
            if fallback_id is not None and "ended_at" not in data and "sid" in data:
                self.timeless_ids.add(fallback_id)
        if fallback_id == whole.message_id and time == whole.timestamp:
            return whole
        return replace(whole, message_id=fallback_id, timestamp=time)
