"""Writes and reads the document of a reply, which tells a publisher the fate at one client: JSON with a version.

`delivered`, `dead` and `skipped` are the last word on a client. An event that concerns no client alone (malformed, of
an unknown issuer, a copy) gets one reply, without `client_id`.
"""

import json
from typing import Any, Literal, NotRequired

from pydantic import TypeAdapter
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier.model.fate import Fate, Notice
from notifier.model.moment import read_moment, render_moment

VERSION = 1
TEXT = 500  # characters of `text`


class _Reply(TypedDict):
    v: Literal[1]
    fate: Fate
    iss: str
    event_id: str
    client_id: NotRequired[str | None]
    id: NotRequired[str]
    reason: NotRequired[str | None]
    status: NotRequired[int | None]
    attempts: NotRequired[int]
    next_due: NotRequired[str | None]
    text: NotRequired[str]
    of: NotRequired[int | None]


_REPLY = TypeAdapter(_Reply)


def reply_document(notice: Notice) -> dict[str, object]:
    """Return the members of a reply that have a value."""
    document: dict[str, object] = {"fate": notice.fate.value, "iss": notice.iss, "event_id": notice.event_id}
    if notice.next_due is not None:
        document["next_due"] = render_moment(notice.next_due)
    optional: dict[str, object] = {
        "client_id": notice.client_id,
        "id": notice.delivery_id,
        "reason": notice.reason if notice.fate in (Fate.RETRYING, Fate.DEAD) else None,
        "status": notice.status,
        "attempts": notice.attempts or None,
        "of": notice.of,
        "text": notice.text[:TEXT],
    }
    return document | {name: value for name, value in optional.items() if value not in (None, "")}


def dump_reply(notice: Notice) -> bytes:
    """Encode a notice as the body of a reply."""
    return json.dumps({"v": VERSION, **reply_document(notice)}, ensure_ascii=False).encode()


def load_reply(body: bytes) -> Notice | None:
    """Decode the body of a reply. None if it is not one, or a later release wrote it."""
    try:
        members: dict[str, Any] = {
            name: value for name, value in _REPLY.validate_json(body).items() if value is not None
        }
        del members["v"]
        due = members.pop("next_due", None)
        return Notice(delivery_id=members.pop("id", ""), next_due=None if due is None else read_moment(due), **members)
    except ValueError:  # pydantic's ValidationError is one
        return None
