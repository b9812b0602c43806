"""Checks that the names in a dead letter equal the names in its delivery or event.

Searches, lists and permissions use the names of the letter, and a replay uses its content. So both must agree.
"""

from typing import Any, NotRequired

from pydantic import TypeAdapter
from typing_extensions import TypedDict  # pydantic requires this TypedDict before Python 3.12

from notifier.model.errors import InputIssue


class _Delivery(TypedDict):
    id: str
    iss: str
    client_id: str
    event_id: str
    publisher: NotRequired[str | None]
    ended_at: NotRequired[float | None]
    first_taken_at: NotRequired[float | None]


class _Event(TypedDict):
    id: str
    iss: str
    publisher: NotRequired[str | None]
    clients: NotRequired[Any]
    ended_at: NotRequired[float | None]


class StoredNames(TypedDict):
    """The names in a letter, or in its content."""

    id: str
    iss: NotRequired[str]
    client_id: NotRequired[str]
    event_id: NotRequired[str]
    publisher: NotRequired[str | None]
    delivery: NotRequired[_Delivery | None]
    event: NotRequired[_Event | None]


NAMES_ADAPTER = TypeAdapter(StoredNames)
_COMPARED_NAMES = ("id", "iss", "client_id", "event_id", "publisher")


def find_disagreements(names: StoredNames) -> list[InputIssue]:
    """Return a mistake for each name of the letter that differs from its content. A missing name does not differ."""
    of_letter = {name: str(names.get(name) or "") for name in _COMPARED_NAMES}
    contents: dict[str, dict[str, str]] = {}
    delivery, event = names.get("delivery"), names.get("event")
    if delivery is not None:
        contents["delivery"] = {name: str(delivery.get(name) or "") for name in _COMPARED_NAMES}
    if event is not None:
        clients, client_id = event.get("clients"), of_letter["client_id"]
        entries = clients if isinstance(clients, list) and client_id else ()
        has_client = client_id in [entry.get("client_id") if isinstance(entry, dict) else entry for entry in entries]
        of_event = {"iss": event["iss"], "event_id": event["id"], "publisher": event.get("publisher") or ""}
        contents["event"] = of_letter | of_event | {"client_id": client_id if has_client else ""}
    return [
        InputIssue(name, f"is not that of the {content} that it holds")
        for content, of_content in contents.items()
        for name in _COMPARED_NAMES
        if of_letter[name] and of_letter[name] != of_content[name]
    ]
