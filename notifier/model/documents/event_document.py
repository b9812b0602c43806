"""Parses an event: from a message to `SessionEnded`. Also generates the JSON Schema of events for publishers.

Unknown members are ignored; `misspelt` names those that probably mean a known one. Invalid values of known members are
mistakes. An invalid entry of `clients` does not affect the other entries. A valid event takes one call of the
validator. Only an invalid event is parsed again, part by part, to explain the mistakes. Parsing blocks the event loop,
for up to 10 ms for an event of 128 KiB.

The `id` is that of the body, or the CloudEvents `id`, or the AMQP `message_id`, in this order: libraries generate a new
`message_id` for every publish, so it does not identify an event that is published again. `ended_at` is that of the
body, or the CloudEvents `time`, or the message's timestamp.

No delivery depends on the informational members: `ended_at`, CloudEvents `time`, and `reason`. Invalid ones are
dropped, and their names are kept in `unread`.
"""

from collections.abc import Callable, Sequence
from typing import Literal

from pydantic import TypeAdapter, ValidationError
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import CoreSchema

from notifier.model.documents.cloudevents import MAX_ID_BYTES, OpenedMessage, open_message
from notifier.model.documents.event_entries import (
    EntryList,
    GoodEntries,
    WrongEntries,
    abridge_issues,
    has_subject,
    read_entries,
    separate_entries,
)
from notifier.model.documents.event_members import EventBody
from notifier.model.documents.misspelt_members import EVENT_MEMBERS, find_misspelt_members, suggest_members
from notifier.model.errors import InputIssue, MalformedEvent
from notifier.model.message import Message
from notifier.model.printable import excerpt
from notifier.model.record import copy_record, record
from notifier.model.session_ended import SessionEnded
from notifier.model.validation import kind_of, to_issues

INFORMATIONAL_MEMBERS = ("ended_at", "reason")
MAX_ENTRIES_READ_WHOLE = (
    200  # entries; a larger event is parsed in parts at once, so that an invalid one is not parsed twice
)

_BODY = TypeAdapter(EventBody)

_EXAMPLES: list[dict[str, object]] = [
    {"iss": "https://id.example.com", "sub": "248289761001", "sid": "08a5019c", "clients": ["shop", "mail"]},
    {
        "id": "4d7c6f1e",
        "iss": "https://id.example.com",
        "sid": "08a5019c",
        "clients": [
            {"client_id": "shop", "backchannel_logout_uri": "https://shop.example.com/backchannel-logout"},
            {"client_id": "mail", "sub": "pairwise-7f3a", "id_token_signed_response_alg": "ES256"},
        ],
        "ended_at": "2026-01-31T12:00:00Z",
        "reason": "session_expiration",
    },
    {"iss": "https://id.example.com", "sub": "248289761001", "clients": "*"},
]


class _SchemaWithoutTitles(GenerateJsonSchema):
    """Leaves out the titles that pydantic makes from member names."""

    def field_title_should_be_set(self, schema: CoreSchema) -> bool:
        del schema
        return False


def event_schema() -> dict[str, object]:
    """Return the JSON Schema (draft 2020-12) of the event, generated from the types that parse it."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:notifier:session-ended:1",
        **_BODY.json_schema(schema_generator=_SchemaWithoutTitles),
        "examples": _EXAMPLES,
    }


@record
class ParsedEvent:
    """An event with its valid entries. `wrong` describes the invalid entries; None if there are none."""

    event: SessionEnded
    wrong: WrongEntries | None


def read_event(
    message: Message, *, max_bytes: int, new_id: Callable[[], str], now: float, only: Sequence[range] | None = None
) -> SessionEnded:
    """Return the event in the message. Raises MalformedEvent if there is none, or if any entry of `clients` is invalid.

    `new_id` is called only if no id was given. `now` is in epoch seconds; a later `ended_at` becomes `now`. `only`: the
    positions in `clients` to parse; the other entries are omitted.
    """
    document = parse_event(message, max_bytes=max_bytes, new_id=new_id, now=now, only=only)
    if document.wrong is not None:
        raise MalformedEvent(abridge_issues(document.wrong.mistakes, document.wrong.more))
    return document.event


def parse_event(
    message: Message, *, max_bytes: int, new_id: Callable[[], str], now: float, only: Sequence[range] | None = None
) -> ParsedEvent:
    """Return the event as `read_event` does, and its invalid entries. Raises MalformedEvent if no entry is valid."""
    return parse_opened(open_message(message, max_bytes), message, new_id=new_id, now=now, only=only)


def parse_opened(
    opened: OpenedMessage,
    message: Message,
    *,
    new_id: Callable[[], str],
    now: float,
    only: Sequence[range] | None = None,
) -> ParsedEvent:
    """Return the event as `parse_event` does. `opened`: its JSON, already extracted from the message."""
    data = opened.data
    if only is not None and isinstance(every := data.get("clients"), list):
        data["clients"] = [entry for run in only for entry in every[run.start : run.stop]]
    mistakes = list(opened.mistakes)
    envelope = opened.envelope
    message_id = (message.message_id or None) if envelope is None and data.get("id") is None else None
    if message_id is not None and (not message_id.isprintable() or len(message_id.encode()) > MAX_ID_BYTES):
        mistakes.append(InputIssue("message_id", f"must be printable and have at most {MAX_ID_BYTES} bytes in UTF-8"))
    body, clients, wrong, unread = _parse_members(data, opened.path, mistakes)
    own_id = body.get("id") or (envelope.id if envelope else message_id)
    ended_at = body.get("ended_at")
    if ended_at is None:
        ended_at = envelope.time if envelope and envelope.time is not None else message.timestamp
    event = SessionEnded(
        id=own_id or new_id(),
        id_given=own_id is not None,
        iss=body["iss"],
        sub=body.get("sub"),
        sid=body.get("sid"),
        clients=clients,
        ended_at=None if ended_at is None else min(ended_at, now),
        not_after=body.get("not_after"),
        reason=body.get("reason"),
        email=body.get("email"),
        source=envelope.source if envelope else None,
        type=envelope.type if envelope else None,
        publisher=message.user_id,
        claimed_publisher=None if message.app_id is None else excerpt(message.app_id),
        vouched=message.vouched,
        trace=opened.trace,
        reply_to=message.reply_to,
        unread=unread if opened.unread_time is None else (*unread, "time"),
        received_at=message.received_at,
    )
    if len(body) != len(data) or body["clients"] != data["clients"]:  # unknown members, or read in parts
        event = copy_record(event, misspelt=find_misspelt_members(data))
    return ParsedEvent(event=event, wrong=wrong)


def _parse_members(
    data: dict[str, object], path: str, mistakes: list[InputIssue]
) -> tuple[EventBody, GoodEntries | Literal["*"], WrongEntries | None, tuple[str, ...]]:
    """Return the members, the valid and the invalid entries of `clients`, and the names of dropped members.

    `path`: the prefix for the paths of mistakes. `mistakes`: found before. Raises MalformedEvent if there are
    any, or if no entry is valid.
    """
    body: EventBody | None = None
    unread: tuple[str, ...] = ()
    listed: EntryList | Literal["*"]
    raw_clients = data.get("clients")
    if isinstance(raw_clients, list) and len(raw_clients) > MAX_ENTRIES_READ_WHOLE:
        body, listed, unread = _parse_in_parts(data, path, mistakes)
    else:
        try:
            body = _BODY.validate_python(data)
        except ValidationError:
            body, listed, unread = _parse_in_parts(data, path, mistakes)
        else:
            listed = body["clients"]
    named = data.get("sub") is not None or data.get("sid") is not None
    if not named and (listed == "*" or not any(map(has_subject, listed))):
        mistakes.append(InputIssue(f"{path}sub", "sub or sid is required, here or in every entry of clients"))
        named = True  # so that the mistake is not reported for each entry, too
    clients: GoodEntries | Literal["*"] = "*"
    wrong: WrongEntries | None = None
    if listed != "*":
        clients, wrong = separate_entries(listed, data.get("clients"), f"{path}clients", event_has_subject=named)
    if body is None or mistakes or not clients:
        of_entries, more = ((), 0) if wrong is None else (wrong.mistakes, wrong.more)
        suggested = suggest_members(mistakes, path, data, EVENT_MEMBERS)
        raise MalformedEvent(abridge_issues((*suggested, *of_entries), more), data)
    return body, clients, wrong, unread


def _parse_in_parts(
    data: dict[str, object], path: str, mistakes: list[InputIssue]
) -> tuple[EventBody | None, EntryList | Literal["*"], tuple[str, ...]]:
    """Parse the members without `clients`, then the entries. Append mistakes of the members to `mistakes`.

    Return the members (None if they are invalid), the entries, and the names of dropped informational members.
    """
    body: EventBody | None = None
    unread: tuple[str, ...] = ()
    members = {**data, "clients": "*"}
    try:
        body = _BODY.validate_python(members)
    except ValidationError as error:
        wrong = {str(each["loc"][0]) for each in error.errors(include_url=False, include_input=False) if each["loc"]}
        unread = tuple(name for name in INFORMATIONAL_MEMBERS if name in wrong)
        try:
            body = _BODY.validate_python({name: value for name, value in members.items() if name not in unread})
        except ValidationError as remaining:
            mistakes.extend(to_issues(remaining, path))
    raw = data.get("clients")
    if isinstance(raw, list) and raw:
        return body, read_entries(raw), unread
    if raw == "*":
        return body, "*", unread
    fault = "is required" if raw is None else f"must not be {_describe_value(raw)}"
    mistakes.append(InputIssue(f"{path}clients", f'{fault}: give a list of at least one client, or "*" for all'))
    return None, (), unread


def _describe_value(value: object) -> str:
    if value == []:
        return "an empty list"
    return f'"{excerpt(value)}"' if isinstance(value, str) else kind_of(value)
