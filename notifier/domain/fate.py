"""What a publisher is told of one client, as it stands: a JSON document with a version, one a reply.

`delivered`, `dead` and `skipped` are the last word; `retrying` may be followed by another. Of an event that concerns no
client alone (malformed, of an unknown issuer, a copy of an earlier one) there is one document without `client_id`.
"""

import json
from enum import StrEnum

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier.domain.frozen import frozen
from notifier.domain.moment import read_moment, render_moment

VERSION = 1
TEXT = 500  # characters of `text`


class Fate(StrEnum):
    """What became of a delivery, or of a whole event."""

    DELIVERED = "delivered"
    RETRYING = "retrying"
    DEAD = "dead"
    SKIPPED = "skipped"
    DUPLICATE = "duplicate"


@frozen
class Told:
    """One client's fate. `id` tells deliveries to one client apart; `next_due` in epoch seconds.

    `reason` is that of the last attempt, or the cause for which none was made. `of` is the number of fates to come in
    all, None where the event was not understood.
    """

    fate: Fate
    iss: str
    event_id: str
    client_id: str | None = None
    id: str = ""
    reason: str | None = None
    status: int | None = None
    attempts: int = 0
    next_due: float | None = None
    text: str = ""
    of: int | None = None

    @property
    def settled(self) -> bool:
        """Whether nothing more will come."""
        return self.fate is not Fate.RETRYING


class _Document(TypedDict, total=False):
    v: int
    fate: str
    iss: str
    event_id: str
    client_id: str | None
    id: str
    reason: str | None
    status: int | None
    attempts: int
    next_due: str | None
    text: str
    of: int | None


_DOCUMENT = TypeAdapter(_Document)


def document_of(told: Told) -> dict[str, object]:
    """The members that say something."""
    document: dict[str, object] = {"fate": told.fate.value, "iss": told.iss, "event_id": told.event_id}
    if told.next_due is not None:
        document["next_due"] = render_moment(told.next_due)
    for name in ("client_id", "id", "reason", "status", "attempts", "of"):
        if (value := getattr(told, name)) not in (None, "") and (name, value) != ("attempts", 0):
            document[name] = value
    if told.text:
        document["text"] = told.text[:TEXT]
    return document


def dump_told(told: Told) -> bytes:
    """As a reply holds it."""
    return json.dumps({"v": VERSION, **document_of(told)}, ensure_ascii=False).encode()


def load_told(body: bytes) -> Told | None:
    """What a reply says; None where it is none that this release knows."""
    try:
        document = _DOCUMENT.validate_json(body)
        due = document.get("next_due")
        told = Told(
            fate=Fate(document["fate"]),
            iss=document["iss"],
            event_id=document["event_id"],
            client_id=document.get("client_id"),
            id=document.get("id", ""),
            reason=document.get("reason"),
            status=document.get("status"),
            attempts=document.get("attempts", 0),
            next_due=None if due is None else read_moment(due),
            text=document.get("text", ""),
            of=document.get("of"),
        )
    except (ValidationError, ValueError, KeyError):
        return None
    return told if document.get("v") == VERSION else None
