"""Checks that the names in a dead letter equal the names in its delivery or event.

Searches, lists and permissions use the names of the letter, and a replay uses its content. So both must agree.
"""

from collections.abc import Mapping

from notifier.model.delivery import Delivery
from notifier.model.errors import InputIssue
from notifier.model.session_ended import SessionEnded

COMPARED_NAMES = ("id", "iss", "client_id", "event_id", "publisher")


def find_disagreements(
    names: Mapping[str, str | None], delivery: Delivery | None, event: SessionEnded | None
) -> list[InputIssue]:
    """Return a mistake for each of the letter's `names` that differs from its content. A missing name does not differ.

    `names` has the COMPARED_NAMES. Of an event, the letter's own ID is not compared, and any client may be named.
    """
    contents: dict[str, Mapping[str, str | None]] = {}
    if delivery is not None:
        contents["delivery"] = {name: getattr(delivery, name) for name in COMPARED_NAMES}
    if event is not None:
        entries = () if event.clients == "*" else event.clients
        client_ids = [entry if isinstance(entry, str) else entry.client_id for entry in entries]
        client_id = names["client_id"] if names["client_id"] in client_ids else None
        of_event = {"iss": event.iss, "event_id": event.id, "publisher": event.publisher, "client_id": client_id}
        contents["event"] = of_event
    return [
        InputIssue(name, f"is not that of the {content} that it holds")
        for content, of_content in contents.items()
        for name, value in of_content.items()
        if names[name] and names[name] != value
    ]
