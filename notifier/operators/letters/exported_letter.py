"""Shows a whole dead letter as JSON, for scripts and people."""

from contextlib import suppress
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter

from notifier.model.documents.dead_letter import DeadLetter, load_dead_letter
from notifier.model.documents.unreadable import Raw, shown
from notifier.model.errors import UnknownVersion
from notifier.model.message import Message
from notifier.model.moment import render_moment
from notifier.operators.letters.letter_filter import read_summary

_LETTER, _RAW = TypeAdapter(DeadLetter), TypeAdapter(Raw)


def exported(message: Message) -> dict[str, object]:
    """Return the whole letter. For a letter that a later release wrote: its summary and its body."""
    try:
        return document_of(load_dead_letter(message))
    except UnknownVersion:
        return {**read_summary(message).document(), "body": message.body.decode(errors="replace")}


def without_subject(message: Message) -> dict[str, object]:
    """Return what the attempts of the letter met, beside its summary: nothing that says whose it is."""
    outcomes: list[dict[str, Any]] = []
    with suppress(UnknownVersion):
        outcomes = _outcomes(load_dead_letter(message))
    return {**read_summary(message).document(), "outcomes": outcomes}


def document_of(letter: DeadLetter) -> dict[str, Any]:
    """Return the whole letter. The list `outcomes` says what its attempts met."""
    content = _LETTER.dump_python(replace(letter, raw=None), mode="json", exclude_defaults=True)
    if letter.raw is not None:
        rest = _RAW.dump_python(replace(letter.raw, body=b""), mode="json", exclude_defaults=True)
        content["raw"] = {**shown(letter.raw), **rest}
    return {"v": 1, **content, "outcomes": _outcomes(letter)}


def _outcomes(letter: DeadLetter) -> list[dict[str, Any]]:
    return [
        {"at": render_moment(past.at), "reason": past.reason, "status": past.status, "text": past.text}
        for past in letter.outcomes
    ]
