"""Checks that the names in a dead letter are those of the delivery or event that it holds.

Searches, lists and permissions go by the letter's names. A replay goes by what it holds. So the two must agree.
"""

from typing import Any, NotRequired

from pydantic import TypeAdapter
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier.domain.documents import parse
from notifier.domain.errors import MalformedEvent, Mistake


class _Delivery(TypedDict):
    id: str
    iss: str
    client_id: str
    event_id: str
    publisher: NotRequired[str | None]


class _Event(TypedDict):
    id: str
    iss: str
    publisher: NotRequired[str | None]
    clients: NotRequired[Any]


class Names(TypedDict):
    """The names in a letter, or in what it holds."""

    id: str
    iss: NotRequired[str]
    client_id: NotRequired[str]
    event_id: NotRequired[str]
    publisher: NotRequired[str | None]
    delivery: NotRequired[_Delivery | None]
    event: NotRequired[_Event | None]


_NAMES = TypeAdapter(Names)
_TOLD = ("id", "iss", "client_id", "event_id", "publisher")


def check_names(body: bytes) -> None:
    """Raise MalformedEvent if the letter's names differ from those of what it holds."""
    if mistakes := disagreements(parse(_NAMES, body)):
        raise MalformedEvent(mistakes)


def disagreements(names: Names) -> list[Mistake]:
    """Yield a mistake for each name that differs. A name that is left out never differs."""
    told = {name: str(names.get(name) or "") for name in _TOLD}
    found: list[Mistake] = []
    if (delivery := names.get("delivery")) is not None:
        held = {name: str(delivery.get(name) or "") for name in _TOLD}
        found += _differences(told, held, "delivery")
    if (event := names.get("event")) is not None:
        held = told | {"iss": event["iss"], "event_id": event["id"], "publisher": event.get("publisher") or ""}
        if told["client_id"] and not _names_client(event.get("clients"), told["client_id"]):
            held["client_id"] = ""
        found += _differences(told, held, "event")
    return found


def _differences(told: dict[str, str], held: dict[str, str], what: str) -> list[Mistake]:
    if told == held:
        return []
    wrong = [name for name in _TOLD if told[name] and told[name] != held[name]]
    return [Mistake(name, f"is not that of the {what} that it holds") for name in wrong]


def _names_client(clients: object, client_id: str) -> bool:
    """True if it is one of these. A wrong entry's letter names its client, a whole event's letter names none."""
    return isinstance(clients, list) and any(
        (entry.get("client_id") if isinstance(entry, dict) else entry) == client_id for entry in clients
    )
