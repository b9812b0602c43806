"""Checks that the names in a dead letter are those of the delivery or event that it holds.

Searches, lists and permissions use the letter's names. A replay uses the content of the letter. So both must agree.
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
    """Return a mistake for each name that differs. A missing name does not differ."""
    values = {name: str(names.get(name) or "") for name in _COMPARED_NAMES}
    names_in: dict[str, dict[str, str]] = {}
    if (delivery := names.get("delivery")) is not None:
        names_in["delivery"] = {name: str(delivery.get(name) or "") for name in _COMPARED_NAMES}
    if (event := names.get("event")) is not None:
        of_event = {"iss": event["iss"], "event_id": event["id"], "publisher": event.get("publisher") or ""}
        # A wrong entry's letter names its client, a whole event's letter names none.
        clients = event.get("clients") if isinstance(event.get("clients"), list) and values["client_id"] else ()
        ids = [entry.get("client_id") if isinstance(entry, dict) else entry for entry in clients or ()]
        names_in["event"] = values | of_event | {"client_id": values["client_id"] if values["client_id"] in ids else ""}
    return [
        InputIssue(name, f"is not that of the {holder} that it holds")
        for holder, names_held in names_in.items()
        if names_held != values
        for name in _COMPARED_NAMES
        if values[name] and values[name] != names_held[name]
    ]
