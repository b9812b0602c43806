"""What an identity server tells: a session ended, and these clients must hear of it.

An event of more than 128 KiB becomes several, each with an id of its own and a part of the clients.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal
from uuid import uuid4

from logout_notifier_publisher.event_checks import ID_BYTES, MAX_EVENT, EventMistake, checked_json, json_of
from logout_notifier_publisher.moment import render_moment

ROOM = 64  # bytes of a part that are kept free for the end of its id and for commas
REPEATED_WITHIN = 10.0  # seconds within which a second ending of one session is taken for the first

_MEMBERS = (
    "client_id",
    "backchannel_logout_uri",
    "backchannel_logout_session_required",
    "id_token_signed_response_alg",
    "frontchannel_logout_uri",
    "frontchannel_logout_session_required",
    "sub",
    "sid",
)


@dataclass(frozen=True, slots=True)
class Client:
    """A client to tell. What is given here wins over notifier's registry.

    `no_address`: the client has no `backchannel_logout_uri`. It is skipped unless the registry knows one. The
    front-channel members are for the page of `POST /v1/sign-outs`, where the registry has no such client.
    """

    client_id: str
    backchannel_logout_uri: str | None = None
    backchannel_logout_session_required: bool | None = None
    id_token_signed_response_alg: str | None = None
    sub: str | None = None
    sid: str | None = None
    no_address: bool = False
    frontchannel_logout_uri: str | None = None
    frontchannel_logout_session_required: bool | None = None

    def document(self) -> dict[str, object] | str:
        """As it stands in the event."""
        document = {name: value for name in _MEMBERS if (value := getattr(self, name)) is not None}
        if self.no_address and self.backchannel_logout_uri is None:
            document["backchannel_logout_uri"] = None
        return document if len(document) > 1 else self.client_id


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEnded:
    """A session of a user, or without `sid` all their sessions, ended at the issuer `iss`.

    `clients`: their ids, `Client`s or mappings; or "*", all that the registry knows. `id`: of this one ending; one is
    made if it is left out. `ended_at`: now if left out. `reason`: `user_logout`, `session_expiration`, `terminated`, or
    a word of your own.
    """

    iss: str
    clients: Sequence[str | Client | Mapping[str, object]] | Literal["*"]
    sub: str | None = None
    sid: str | None = None
    id: str | None = None
    ended_at: datetime | str | None = None
    not_after: datetime | str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPart:
    """An event as it is written and published: the whole, or a part of a large one."""

    id: str
    event: dict[str, object]


def documents(ended: SessionEnded, *, now: float, session: object = None, looked_up: bool = False) -> list[EventPart]:
    """The event, or the parts of a large one. Raises EventMistake.

    Without an `id` of its own an ending of a `session` has one that two processes derive alike, so that a double click
    is one ending. Where it is `looked_up` whether the session lives, an event that was published has ended it, and its
    id can be that of the session and its clients. Else the time belongs to it: the session may live, and end again.
    """
    members = {
        "iss": ended.iss,
        "sub": ended.sub,
        "sid": ended.sid,
        "ended_at": _moment(datetime.fromtimestamp(now, UTC) if ended.ended_at is None else ended.ended_at),
        "not_after": _moment(ended.not_after),
        "reason": ended.reason,
    }
    members = {name: value for name, value in members.items() if value is not None}
    clients = _clients(ended.clients)
    event_id = ended.id
    if event_id is None:
        event_id = str(uuid4())
        if session is not None:
            moment = None if looked_up else now // REPEATED_WITHIN
            event_id = _derived([ended.iss, ended.sub, ended.sid, session, clients, moment])
    parts = [clients] if isinstance(clients, str) else list(_parts(clients, len(json_of({"id": event_id, **members}))))
    ids = [event_id] if len(parts) == 1 else [_part_id(event_id, number) for number in range(1, len(parts) + 1)]
    found = [
        EventPart(id=each, event={"id": each, **members, "clients": part})
        for each, part in zip(ids, parts, strict=True)
    ]
    for each in found:
        checked_json(each.event)
    return found


def _moment(value: datetime | str | None) -> object:
    if not isinstance(value, datetime):
        return value
    if value.tzinfo is None:
        raise EventMistake(["ended_at, not_after: a datetime needs a time zone, such as datetime.now(UTC)"])
    try:
        return render_moment(value)
    except OverflowError:
        raise EventMistake(["ended_at, not_after: must be of the years 1 to 9999 in UTC"]) from None


def _clients(given: object) -> list[object] | str:
    if isinstance(given, str):
        return given  # "*", or a mistake that the check names
    if not isinstance(given, Sequence | set | frozenset | Iterator):
        raise EventMistake(['clients: give a list of at least one client, or "*" for all'])
    listed = sorted(given, key=str) if isinstance(given, set | frozenset) else list(given)
    return [each.document() if isinstance(each, Client) else each for each in listed]


def _parts(clients: list[object], around: int) -> Iterator[list[object]]:
    part: list[object] = []
    free = room = MAX_EVENT - around - ROOM
    for client in clients:
        size = len(json_of(client)) + 1
        if part and size > free:
            yield part
            part, free = [], room
        part.append(client)
        free -= size
    yield part


def _derived(what: list[object]) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:40]


def _part_id(event_id: str, number: int) -> str:
    made = f"{event_id}.{number}"
    return made if len(made.encode()) <= ID_BYTES else _derived([event_id, number])
