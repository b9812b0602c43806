"""A dead letter as a whole, for people and scripts: the document that the queue holds, whoever put it there."""

from pydantic_core import from_json

from notifier.domain.dead_letter import dump_dead_letter, load_dead_letter
from notifier.domain.dead_letter_rows import read_row
from notifier.domain.errors import UnknownVersion
from notifier.domain.message import Message


def exported(message: Message) -> dict[str, object]:
    """The document; of one that a later release wrote, what can be told of it."""
    try:
        document = from_json(dump_dead_letter(load_dead_letter(message)).body)
    except UnknownVersion:
        return {**read_row(message).document(), "body": message.body.decode(errors="replace")}
    assert isinstance(document, dict)
    return document
