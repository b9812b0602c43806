"""The guarantees of reading, for any input: an event, or MalformedEvent with errors that can be shown.

`read` and `open_fully` check every guarantee that holds for all input; both return the result.
"""

import itertools
import json
from collections.abc import Iterable

from notifier.delivery.settlement import OutgoingMessage
from notifier.messages.message_planner import DeliverySteps, MessagePlanner
from notifier.messages.replacements import Replacement
from notifier.model.client import Client
from notifier.model.delivery import Delivery
from notifier.model.documents import documents
from notifier.model.documents.dead_letter import dump_dead_letter, load_dead_letter
from notifier.model.documents.event_document import parse_event
from notifier.model.documents.event_entries import MAX_ISSUES
from notifier.model.errors import InputIssue, MalformedEvent
from notifier.model.message import Kind, Lane, Message
from notifier.model.registry import Issuer, Registry
from notifier.model.session_ended import SessionEnded
from notifier.operators.deliveries.dead_letter_summary import document_of
from notifier.queues.rabbitmq.delays import DELAY_QUEUES, to_first_hop
from tests.fuzz.grammar import ISS, LOUD, MOST, OTHER, SUBJECT

NOW = 1_800_000_000.0
QUEUES = frozenset({*Lane, "dead", *DELAY_QUEUES})
PATH, TEXT, ECHO = 200, 500, 100  # characters


def registry() -> Registry:
    """Return a registry of two issuers; the first has a client with a URI, and one without."""
    known = (
        Client(iss=ISS, client_id="shop", backchannel_logout_uri="https://shop.example/out"),
        Client(iss=ISS, client_id="mail", backchannel_logout_uri=None),
    )
    return Registry(
        issuers={iss: Issuer(iss=iss) for iss in (ISS, OTHER)},
        clients={ISS: {one.client_id: one for one in known}, OTHER: {}},
        inline="allow",
        unregistered=Client(iss="", client_id="", backchannel_logout_uri=None, registered=False),
    )


def intake() -> MessagePlanner:
    """Return the pipeline's reader."""
    numbers = itertools.count()
    known = registry()
    return MessagePlanner(
        lambda: known,
        clock=lambda: NOW,
        monotonic=lambda: NOW,
        new_id=lambda: f"made-up-{next(numbers)}",
        max_event=MOST,
    )


def fit(mistakes: Iterable[InputIssue]) -> None:
    """Check that errors are bounded and printable, and repeat only permitted parts of the input."""
    found = tuple(mistakes)
    assert 0 < len(found) <= MAX_ISSUES + 1
    for mistake in found:
        assert mistake.text
        assert len(mistake.path) <= PATH, mistake
        assert len(mistake.text) <= TEXT, mistake
        assert str(mistake).isprintable(), mistake
        assert SUBJECT not in str(mistake), mistake
        assert LOUD * (ECHO + 1) not in str(mistake), mistake


def read(message: Message) -> SessionEnded | None:
    """Return the event; None if the message is refused in the guaranteed way."""
    try:
        found = parse_event(message, max_bytes=MOST, new_id=lambda: "made-up", now=NOW)
    except MalformedEvent as malformed:
        fit(malformed.mistakes)
        return None
    event = found.event
    assert event.id
    assert len(event.id.encode()) <= 255
    assert event.ended_at is None or event.ended_at <= NOW
    assert event.clients == "*" or event.clients
    if found.wrong is not None:
        fit(found.wrong.mistakes)
    written = documents.dump_event(documents.EventDocument(event=event))
    assert documents.load_event(written).event == documents.to_written(event)[1]
    assert len(written) <= len(message.body) + 4096 + sum(len(str(value)) for value in message.headers.values())
    return event


def open_fully(message: Message) -> list[str]:
    """Open it as the worker does, and follow every step; return the results, a word for each step.

    An exception that was caught on the way is an error "reading it failed", which is a bug.
    """
    reader = intake()
    work = reader.plan(message)
    if not isinstance(work, DeliverySteps):
        return [_sent(send) for send in work.messages]
    words = []
    while (step := reader.next_step(message, work.steps)) is not None:
        if isinstance(step, Delivery):
            written = documents.dump_delivery(step)
            assert documents.load_delivery(written) == step
            words.append("delivery")
        elif isinstance(step, Replacement):
            words.extend(map(_sent, step.messages))
        else:
            words.append(type(step).__name__)
    return words


def _sent(send: OutgoingMessage) -> str:
    queue = send.queue if send.due is None else to_first_hop(send.message, send.due - NOW, send.rounding)[0]
    assert queue in QUEUES, queue
    assert len(send.message.message_id.encode()) <= 255
    if send.queue == "dead":
        _letter(send)
    return str(queue)


def _letter(send: OutgoingMessage) -> None:
    sent = send.message
    came = Message(
        lane=Lane.RETRIES, body=sent.body, tag=None, kind=Kind(sent.kind), message_id=sent.message_id,
        headers=sent.headers,
    )  # fmt: skip
    letter = load_dead_letter(came)
    assert "reading it failed" not in letter.text
    assert letter.reason.value == sent.headers["reason"]
    assert dump_dead_letter(letter) == sent
    json.dumps(document_of(letter))
    if letter.mistakes:
        fit(letter.mistakes)
    assert len(letter.text.encode()) <= 512
    assert letter.text.isprintable()
    for name, value in sent.headers.items():
        assert value.isprintable()
        assert len(value.encode()) <= (4096 if name == "letter" or name.startswith("cloudEvents:") else 255)
