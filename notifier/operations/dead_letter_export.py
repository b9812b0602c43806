"""A dead letter as a whole, for people and scripts: whoever put it among the dead."""

from notifier.domain.dead_letter import document_of, load_dead_letter
from notifier.domain.dead_letter_rows import read_row
from notifier.domain.errors import UnknownVersion
from notifier.domain.message import Message


def exported(message: Message) -> dict[str, object]:
    """The document; of one that a later release wrote, what can be told of it."""
    try:
        return document_of(load_dead_letter(message))
    except UnknownVersion:
        return {**read_row(message).document(), "body": message.body.decode(errors="replace")}
