"""Events of a grammar, in bodies, envelopes and headers: each is an event, or refused with its errors."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given

from notifier.messages.message_planner import MessagePlanner
from notifier.messages.replacements import Replacement
from notifier.model.message import Lane, Message
from tests.fuzz import grammar
from tests.fuzz.conftest import LONG, many
from tests.fuzz.grammar import MOST
from tests.fuzz.promises import NOW, open_fully, read


@pytest.mark.timeout(3000)
def test_every_message_is_an_event_or_refused() -> None:
    """Only MalformedEvent is raised, and its texts are bounded, printable and without the subject.

    Opened by the intake, it becomes deliveries, or messages for existing queues; all of which read back.
    """
    came: Counter[str] = Counter()

    @many(1_000, 100_000)
    @given(grammar.messages())
    def each(message: Message) -> None:
        came["event" if read(message) is not None else "refused"] += 1
        came.update(set(open_fully(message)))

    each()
    tried = came["event"] + came["refused"]
    assert tried >= (100_000 if LONG else 1_000)
    assert min(came["event"], came["refused"]) > tried / 20, came  # otherwise later steps are not tested
    assert {"delivery", "Skipped", "dead", "events"} <= came.keys(), came


@pytest.mark.parametrize("error", [RecursionError, MemoryError, ValueError, AssertionError])
def test_exception_while_reading_is_a_dead_letter(error: type[Exception]) -> None:
    """While the event is read, and while it is planned: the dead letter has the exception and the message."""

    def trips(*_: object) -> Any:
        raise error("made for a test")

    message = Message(
        lane=Lane.EVENTS, body=b'{"iss": "https://id.example", "sub": "s", "clients": ["shop"]}', tag=None
    )
    reader = MessagePlanner(trips, clock=lambda: NOW, monotonic=lambda: NOW, new_id=lambda: "made-up", max_event=MOST)
    for broken in (reader.plan(message), reader.next_step(message, map(trips, "a"))):
        assert isinstance(broken, Replacement)
        [send] = broken.messages
        assert (send.queue, send.message.body) == ("dead", message.body)
        assert f"reading it failed: {error.__name__}" in send.message.headers["letter"]
