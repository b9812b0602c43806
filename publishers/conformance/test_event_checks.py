"""The Python package checks events by its own code, with the same results as the service's reader."""

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from logout_notifier_publisher.event_checks import EventMistake, to_checked_json, to_json
from logout_notifier_publisher.redaction import _spellings, redact

from notifier.model.defaults import MAX_EVENT
from notifier.model.documents.event_document import read_event
from notifier.model.errors import MalformedEvent
from notifier.model.message import Lane, Message
from notifier.model.redaction import redact_secret
from tests.fuzz import grammar
from tests.fuzz.conftest import many
from tests.model.documents.test_event_document import IN_DISGUISE, MOMENTS, NO_MOMENTS, NO_URIS, URIS

INFORMATIONAL = ("ended_at", "reason")
EVENT: dict[str, Any] = {"id": "e", "iss": "https://id.example.com", "sub": "ann", "clients": ["shop"]}


def of_service(event: object) -> list[str]:
    """Return the paths of the service's findings."""
    message = Message(lane=Lane.EVENTS, body=to_json(event), tag=None, content_type="application/json")
    try:
        read_event(message, max_bytes=MAX_EVENT, new_id=str, now=0.0)
    except MalformedEvent as malformed:
        return [mistake.path for mistake in malformed.mistakes]
    return []


def of_package(event: dict[str, Any]) -> list[str]:
    """Return the paths of the package's findings, without members that the service drops before it delivers."""
    try:
        to_checked_json(event)
    except EventMistake as mistake:
        found = [text.partition(": ")[0] if ": " in text else "" for text in mistake.mistakes]
        return [place for place in found if place not in INFORMATIONAL]
    return []


def client(**members: object) -> dict[str, Any]:
    """An event with one client that has these members."""
    return EVENT | {"clients": [{"client_id": "shop"} | members]}


def test_both_find_the_same_mistakes() -> None:
    """In addresses and moments, in what is too large, and in long lists."""
    for event in (
        *(client(backchannel_logout_uri=uri) for uri in (*URIS, *NO_URIS, *IN_DISGUISE)),
        *(client(frontchannel_logout_uri=uri) for uri in (*URIS, *NO_URIS, *IN_DISGUISE, 5, None)),
        *(client(frontchannel_logout_session_required=flag) for flag in (True, None, "true", 1)),
        *(EVENT | {name: moment} for moment in (*MOMENTS, *NO_MOMENTS) for name in ("ended_at", "not_after")),
        EVENT | {"clients": ["x" * 500] * 259},
        EVENT | {"clients": ["x" * 500] * 261},
        EVENT | {"clients": [5] * 50},
    ):
        assert of_package(event) == of_service(event), event


def test_both_find_the_same_mistakes_in_made_up_events() -> None:
    """At the same places. Nesting of more than 200 levels is left out: there the service alone has a limit."""
    came: Counter[str] = Counter()

    @many(300, 100_000)
    @given(grammar.events)
    def each(text: str) -> None:
        try:
            event = json.loads(text)
            event["id"] = "e" if event.get("id") is None else event["id"]  # the service would make one
            body = to_json(event)
        except (ValueError, RecursionError):
            return
        if max(body.count(b"["), body.count(b"{")) < 100:
            assert sorted(of_package(event)) == sorted(of_service(event)), event
            came["wrong" if of_package(event) else "good"] += 1

    each()
    assert min(came["good"], came["wrong"]) > 30, came


@pytest.mark.parametrize("secret", ["ann", "a/b+c@d", 'x"<é>\\y', "ann smith"])
def test_both_find_a_name_however_it_is_spelt(secret: str) -> None:
    """In JSON, in a URL, in a page, in capitals."""
    for spelling in _spellings(secret):
        text = f"no session of {spelling}, nor {spelling.upper()}"
        assert redact(text, secret, "<sub>") == redact_secret(text, secret, "<sub>") == "no session of <sub>, nor <sub>"
