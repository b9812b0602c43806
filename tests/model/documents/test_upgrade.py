"""Dead letters of other releases: they are kept for long, and an operator reads and replays them with any of them."""

import json

import pytest

from notifier.model.documents.dead_letter import dump_dead_letter, load_dead_letter
from notifier.model.message import Kind, Lane, Message, Outgoing
from notifier.model.outcome import DeadReason
from tests.recorded.story import kept


def message_of(sent: Outgoing) -> Message:
    return Message(lane=Lane.RETRIES, body=sent.body, tag=None, kind=Kind(sent.kind), headers=sent.headers)


LETTERS = {name: message for name, message in kept("written").items() if message.queue == "dead"}


REFUSED = LETTERS["dead-letter-refused"]


@pytest.mark.parametrize(
    ("name", "reason"), [("refused", DeadReason.REFUSED), ("malformed", DeadReason.MALFORMED_EVENT)]
)
def test_a_recorded_dead_letter_is_read(name: str, reason: DeadReason) -> None:
    """Whole: it is the same once this release has written it."""
    recorded = LETTERS[f"dead-letter-{name}"]
    letter = load_dead_letter(recorded.message())
    assert letter.reason is reason
    again = dump_dead_letter(letter)
    assert load_dead_letter(message_of(again)) == letter
    assert json.loads(again.body) == recorded.body
    assert {name: again.headers[name] for name in recorded.headers} == recorded.headers
