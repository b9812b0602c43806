"""Dead letters of other releases: they are kept for long, and an operator reads and replays them with any of them."""

from dataclasses import replace

import pytest

from notifier.domain.dead_letter import dump_dead_letter, load_dead_letter
from notifier.domain.errors import UnknownVersion
from notifier.domain.message import Kind, Lane, Message, Outgoing
from notifier.domain.outcome import DeadReason
from notifier.operations.dead_letter_listing import document_of
from tests.recorded.story import Recorded, kept


def message_of(sent: Outgoing) -> Message:
    return Message(lane=Lane.RETRIES, body=sent.body, tag=None, kind=Kind(sent.kind), headers=sent.headers)


LETTERS = {name: message for name, message in kept("v1").items() if message.queue == "dead"}


@pytest.mark.parametrize(
    ("name", "reason"), [("refused", DeadReason.REFUSED), ("malformed", DeadReason.MALFORMED_EVENT)]
)
def test_a_recorded_dead_letter_is_read(name: str, reason: DeadReason) -> None:
    """Whole: what scripts get of it is what was recorded, and it is the same once this release has written it."""
    recorded = LETTERS[f"dead-letter-{name}"]
    letter = load_dead_letter(recorded.message())
    assert letter.reason is reason
    assert document_of(letter) == recorded.body
    again = dump_dead_letter(letter)
    assert load_dead_letter(message_of(again)) == letter
    assert {name: again.headers[name] for name in recorded.headers} == recorded.headers


@pytest.mark.parametrize("recorded", LETTERS.values())
def test_members_of_a_later_release_are_ignored(recorded: Recorded) -> None:
    """They tell more of what is known already."""
    later = replace(recorded, body={**recorded.body, "added_later": 1})
    assert load_dead_letter(later.message()) == load_dead_letter(recorded.message())


@pytest.mark.parametrize("recorded", LETTERS.values())
def test_a_later_version_is_left_alone(recorded: Recorded) -> None:
    """Shown as something else it could be replayed as something else."""
    with pytest.raises(UnknownVersion):
        load_dead_letter(replace(recorded, body={**recorded.body, "v": 3}).message())
