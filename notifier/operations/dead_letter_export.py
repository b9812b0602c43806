"""A dead letter as a whole, for people and scripts: whoever put it among the dead."""

from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter

from notifier.domain.dead_letter import DeadLetter, load_dead_letter
from notifier.domain.errors import UnknownVersion
from notifier.domain.letter_filter import read_summary
from notifier.domain.message import Message
from notifier.domain.moment import render_moment
from notifier.domain.unreadable import Raw, shown

_LETTER, _RAW = TypeAdapter(DeadLetter), TypeAdapter(Raw)


def exported(message: Message) -> dict[str, object]:
    """The document; of one that a later release wrote, what can be told of it."""
    try:
        return document_of(load_dead_letter(message))
    except UnknownVersion:
        return {**read_summary(message).document(), "body": message.body.decode(errors="replace")}


def document_of(letter: DeadLetter) -> dict[str, Any]:
    """The whole letter in JSON, for people and scripts: its outcomes stand in a list of their own."""
    content = _LETTER.dump_python(replace(letter, raw=None), mode="json", exclude_defaults=True)
    if letter.raw is not None:
        rest = _RAW.dump_python(replace(letter.raw, body=b""), mode="json", exclude_defaults=True)
        content["raw"] = {**shown(letter.raw), **rest}
    outcomes = [
        {"at": render_moment(past.at), "reason": past.reason, "status": past.status, "text": past.text}
        for past in letter.outcomes
    ]
    return {"v": 1, **content, "outcomes": outcomes}
