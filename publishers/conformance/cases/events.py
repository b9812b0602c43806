"""Whatever was published in all the cases before, the service takes. Run near the end."""

import json

from notifier.model.defaults import MAX_EVENT
from notifier.model.documents.event_document import read_event
from notifier.model.message import Lane, Message
from publishers.conformance.harness import Harness


async def test_the_service_takes_each_event(harness: Harness) -> None:
    """Its own reader finds no mistake in any: members, moments, addresses, size. None is without an id."""
    assert harness.broker.received, "nothing was published"
    for received in harness.broker.received:
        body = json.dumps(received.event).encode()
        message = Message(lane=Lane(received.lane), body=body, tag=None, content_type="application/json")
        assert read_event(message, max_bytes=MAX_EVENT, new_id=str, now=0.0).id == received.id != ""
        assert 0 < received.size <= MAX_EVENT
