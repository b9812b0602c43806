"""The event as publishers write it, read: from a message to `SessionEnded`, and the JSON Schema to write it by.

Members that are unknown are ignored, unknown values of known members are mistakes, and a wrong entry of `clients`
never takes the others with it. The happy path is one pass of the validator; only once something is known to be wrong
is the event read again, part by part, to say what.

Who gives the `id`, first come first taken: the body, CloudEvents `id`, AMQP `message_id`. CloudEvents stands before
`message_id`, because libraries make up a new `message_id` at every publish, and a repeated event would not be known.
Who gives `ended_at`: the body, CloudEvents `time`, the message's timestamp.
"""

import contextlib
from collections.abc import Callable, Iterable
from typing import Literal

from pydantic import TypeAdapter, ValidationError
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import CoreSchema, ErrorDetails, from_json, to_json

from notifier.domain.cloudevents import ID_BYTES, echo, kind_of, open_message
from notifier.domain.errors import MalformedEvent, Mistake
from notifier.domain.event_members import EntryDocument, EventBody, Text
from notifier.domain.message import Message
from notifier.domain.session_ended import ClientEntry, SessionEnded, WrongEntry

MISTAKES = 1000  # a mistake for each of 60,000 wrong entries would make 4 MB of an answer

Clients = tuple[ClientEntry | WrongEntry, ...] | Literal["*"]

_TEXT = TypeAdapter[str](Text)
_ENTRY = TypeAdapter(EntryDocument)
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


class _Untitled(GenerateJsonSchema):
    """Without the titles that pydantic makes of member names."""

    def field_title_should_be_set(self, schema: CoreSchema) -> bool:
        del schema
        return False


def event_schema() -> dict[str, object]:
    """The JSON Schema (draft 2020-12) of the event, generated from the types that parse it."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:notifier:session-ended:1",
        **_BODY.json_schema(schema_generator=_Untitled),
        "examples": _EXAMPLES,
    }


def read_event(
    message: Message, *, max_bytes: int, new_id: Callable[[], str], now: float, strict: bool = False
) -> SessionEnded:
    """The event that the message carries; MalformedEvent with every mistake where it carries none.

    Wrong entries of `clients` are among `clients` as `WrongEntry`, unless `strict` makes them mistakes of the whole.
    `new_id` is asked only where nobody gave an id. `now` in epoch seconds: nothing ended later than that.
    """
    opened = open_message(message, max_bytes)
    mistakes = list(opened.mistakes)
    envelope = opened.envelope
    message_id = (message.message_id or None) if envelope is None and opened.data.get("id") is None else None
    if message_id is not None and (not message_id.isprintable() or len(message_id.encode()) > ID_BYTES):
        mistakes.append(Mistake("message_id", f"must be printable and have at most {ID_BYTES} bytes in UTF-8"))
    body, clients = _understand(opened.data, opened.path, mistakes)
    given = body.get("id") or (envelope.id if envelope else message_id)
    ended_at = body.get("ended_at")
    if ended_at is None:
        ended_at = envelope.time if envelope and envelope.time is not None else message.timestamp
    event = SessionEnded(
        id=given or new_id(),
        id_given=given is not None,
        iss=body["iss"],
        sub=body.get("sub"),
        sid=body.get("sid"),
        clients=clients,
        ended_at=None if ended_at is None else min(ended_at, now),
        not_after=body.get("not_after"),
        reason=body.get("reason"),
        source=envelope.source if envelope else None,
        type=envelope.type if envelope else None,
        publisher=message.user_id,
        claimed_publisher=None if message.app_id is None else echo(message.app_id),
        trace=opened.trace,
        reply_to=message.reply_to,
    )
    if strict and (wrong := all_mistakes(event)):
        raise MalformedEvent(wrong)
    return event


def all_mistakes(event: SessionEnded) -> tuple[Mistake, ...]:
    """Every mistake in the wrong entries of the event, the first thousand."""
    return _at_most(_entry_mistakes(event.clients))


def read_entry(raw: str, *, named: bool) -> ClientEntry | WrongEntry:
    """An entry that was wrong when it came, by the rules of today; `named` where its event has `sub` or `sid`."""
    try:
        document = from_json(raw)
    except ValueError:  # it was nested deeper than can be read back
        return WrongEntry(client_id=None, raw=raw, mistakes=(Mistake("clients[0]", "cannot be read back"),))
    return _judge_together((_judge(document, "clients[0]"),), [document], "clients", named=named)[0]


def _understand(data: dict[str, object], path: str, mistakes: list[Mistake]) -> tuple[EventBody, Clients]:
    """The members of the event, and its clients judged one by one. Raises MalformedEvent where `mistakes` are or come.

    `path` precedes the paths of mistakes.
    """
    body: EventBody | None = None
    clients: Clients
    try:
        body = _BODY.validate_python(data)
    except ValidationError:
        body, clients = _understand_in_parts(data, path, mistakes)
    else:
        listed = body["clients"]
        clients = "*" if listed == "*" else tuple(map(_entry, listed))
    named = data.get("sub") is not None or data.get("sid") is not None
    if not named and (clients == "*" or not any(map(_names_someone, clients))):
        mistakes.append(Mistake(f"{path}sub", "sub or sid is required, here or in every entry of clients"))
        named = True  # said once, not for each entry
    if clients != "*":
        clients = _judge_together(clients, data.get("clients"), f"{path}clients", named=named)
    if body is None or mistakes:
        raise MalformedEvent(_at_most((*mistakes, *_entry_mistakes(clients))))
    return body, clients


def _judge_together(
    clients: tuple[ClientEntry | WrongEntry, ...], raw: object, path: str, *, named: bool
) -> tuple[ClientEntry | WrongEntry, ...]:
    """What is wrong with entries that are well formed in themselves; `named` where the event has `sub` or `sid`."""
    misfits = {
        index: text
        for index, entry in enumerate(clients)
        if isinstance(entry, ClientEntry) and (text := _misfit(entry, named=named)) is not None
    }
    if not misfits:
        return clients
    assert isinstance(raw, list), "there are entries"
    return tuple(
        _wrong_entry(raw[index], (Mistake(f"{path}[{index}]", misfits[index]),)) if index in misfits else entry
        for index, entry in enumerate(clients)
    )


def _misfit(entry: ClientEntry, *, named: bool) -> str | None:
    if entry.client_id == "*":
        return 'is no client; for all clients write "clients": "*", not in a list'
    if not named and entry.sub is None and entry.sid is None:
        return "needs sub or sid, since the event has neither"
    return None


def _names_someone(entry: ClientEntry | WrongEntry) -> bool:
    return isinstance(entry, ClientEntry) and (entry.sub is not None or entry.sid is not None)


def _entry(document: str | EntryDocument) -> ClientEntry:
    return ClientEntry(client_id=document) if isinstance(document, str) else ClientEntry(**document)


def _understand_in_parts(
    data: dict[str, object], path: str, mistakes: list[Mistake]
) -> tuple[EventBody | None, Clients]:
    """The slow way: the event without its clients, whose mistakes go to `mistakes`, then each entry by itself."""
    body: EventBody | None = None
    try:
        body = _BODY.validate_python({**data, "clients": "*"})
    except ValidationError as error:
        mistakes.extend(_mistakes(error, path))
    raw = data.get("clients")
    if isinstance(raw, list) and raw:
        return body, tuple(_judge(entry, f"{path}clients[{index}]") for index, entry in enumerate(raw))
    if raw == "*":
        return body, "*"
    found = "is required" if raw is None else f"must not be {_shown(raw)}"
    mistakes.append(Mistake(f"{path}clients", f'{found}: give a list of at least one client, or "*" for all'))
    return None, ()


def _judge(raw: object, path: str) -> ClientEntry | WrongEntry:
    try:
        if isinstance(raw, str):
            return ClientEntry(client_id=_TEXT.validate_python(raw, strict=True))
        if isinstance(raw, dict):
            return _entry(_ENTRY.validate_python(raw))
    except ValidationError as error:
        return _wrong_entry(raw, tuple(_mistakes(error, path if isinstance(raw, str) else f"{path}.")))
    return _wrong_entry(raw, (Mistake(path, f"must be a client_id or an object with one, not {kind_of(raw)}"),))


def _wrong_entry(raw: object, mistakes: tuple[Mistake, ...]) -> WrongEntry:
    client_id: str | None = None
    with contextlib.suppress(ValidationError):  # then nobody can be named
        client_id = _TEXT.validate_python(raw.get("client_id") if isinstance(raw, dict) else raw, strict=True)
    # Kept as text, since JSON nested as deep as the limit could not be read back from within a document of ours.
    return WrongEntry(client_id=client_id, raw=to_json(raw).decode(), mistakes=mistakes)


def _mistakes(error: ValidationError, path: str) -> Iterable[Mistake]:
    for detail in error.errors(include_url=False):
        yield Mistake(path + ".".join(map(str, detail["loc"])), _text(detail))


def _text(detail: ErrorDetails) -> str:
    """Pydantic's finding in the words of someone who writes JSON."""
    match detail["type"]:
        case "missing":
            return "is required"
        case "string_type":
            return f"must be a string, not {kind_of(detail['input'])}"
        case "bool_type":
            return f"must be true or false, not {kind_of(detail['input'])}"
        case "string_too_short":
            return "must not be empty"
        case "string_too_long":
            return f"must have at most {detail['ctx']['max_length']} characters"
        case "string_pattern_mismatch":
            return "must not contain control characters"
        case _:
            return echo(detail["msg"], 400)  # our own words, which repeat no more of the input than `echo` lets through


def _shown(value: object) -> str:
    return "an empty list" if value == [] else f'"{echo(value)}"' if isinstance(value, str) else kind_of(value)


def _entry_mistakes(clients: Clients) -> Iterable[Mistake]:
    return (mistake for entry in clients if isinstance(entry, WrongEntry) for mistake in entry.mistakes)


def _at_most(mistakes: Iterable[Mistake]) -> tuple[Mistake, ...]:
    found = tuple(mistakes)
    if len(found) <= MISTAKES:
        return found
    return (*found[:MISTAKES], Mistake("", f"and {len(found) - MISTAKES} more mistakes"))
