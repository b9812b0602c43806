"""The lines of the spool: what they hold, and what they refuse."""

import base64
from dataclasses import replace
from typing import Any

import pytest

from notifier.features.spool import spool_entries
from notifier.features.spool.spool_entries import (
    HEADING,
    DoneNote,
    Place,
    dump_done,
    judge_heading,
    load_entry,
    scan,
    to_outgoing,
)
from notifier.messages.replacements import to_event_message
from notifier.model.client import RetryPolicy
from notifier.model.documents.dead_letter import load_dead_letter
from notifier.model.documents.documents import load_event
from notifier.model.documents.sourced import to_received
from notifier.model.message import DEAD, Kind, Lane, Message, MessageDraft
from notifier.model.record import copy_record
from notifier.model.session_ended import ClientEntry
from tests.features.spool.sign_outs import NOW, draft, dumped, entry, event, line, sourced

POLICY = RetryPolicy(max_age=3600.0, sub_only_max_age=600.0)


def received(message: MessageDraft) -> Message:
    """The message as a worker takes it."""
    return Message(
        lane=Lane.EVENTS, body=message.body, tag=None, kind=message.kind, content_type=message.content_type,
        headers=message.headers,
    )  # fmt: skip


def test_an_event_comes_back_with_the_time_of_its_receipt() -> None:
    """From which its ages count. All else is as it was."""
    published = entry(line()).to_draft()
    assert (published.kind, published.message_id) == (Kind.EVENT, "e1")
    assert load_event(published.body).event == copy_record(load_event(draft().body).event, received_at=NOW)


def test_a_message_of_a_source_comes_back_whole() -> None:
    """Byte for byte, with its source, publisher and headers."""
    sent = sourced(bytes(range(256)), "shop")
    published = entry(dumped(sent, sender="source/shop")).to_draft()
    assert published.message_id == sent.message_id
    assert to_received(received(published)) == copy_record(to_received(received(sent)), received_at=NOW)


def scanned(data: bytes, offset: int = 0) -> tuple[tuple[Place | DoneNote, ...], int, bool]:
    """The lines of a file that has this data at an offset, their end, and whether one is damaged."""
    return scan("own", lambda at: data[at - offset :], offset)


MESSAGE = {
    "type": "notifier.event", "id": "e1", "body": base64.b64encode(draft().body).decode(),
    "content_type": "application/json", "headers": {},
}  # fmt: skip


def written(**members: Any) -> bytes:
    """The line of an entry with these members, as another user might write it."""
    document = {"id": "e1", "sender": "op", "at": NOW, "lane": "events", "message": MESSAGE, **members}
    return spool_entries._to_line(document)


@pytest.mark.parametrize(
    "member",
    [
        {"clients": (ClientEntry(client_id="shop", backchannel_logout_uri="https://evil.example"),)},
        {"clients": (ClientEntry(client_id="shop", frontchannel_logout_uri="https://evil.example"),)},
        {"email": "a@example.com"},
        {"vouched": True},
        {"source": "urn:x"},
    ],
)
def test_an_event_with_members_beyond_the_schema_is_not_kept(member: dict[str, Any]) -> None:
    """Above all no address. Nor is it read."""
    message = to_event_message(copy_record(event(), **member))
    assert dumped(message) is None
    assert load_entry(written(message={**MESSAGE, "body": base64.b64encode(message.body).decode()})) is None


@pytest.mark.parametrize("content_type", ["\udcff", "é" * 200, "a/b;c=" + 250 * "d"])
def test_a_message_that_the_queue_would_never_take_is_not_kept(content_type: str) -> None:
    """Its sender gets 503 instead: the queue takes 255 bytes of text."""
    message = replace(sourced(source="shop"), content_type=content_type)
    assert dumped(message, sender="source/shop") is None


@pytest.mark.parametrize(
    "change",
    [
        {"backchannel_logout_uri": "https://evil.example"},
        {"message": {}},
        {"message": {**MESSAGE, "backchannel_logout_uri": "https://evil.example"}},
        {"message": {**MESSAGE, "type": "notifier.delivery"}},
        {"done": "e2"},
        {"id": "x" * 256},
        {"id": "\u00e9"},
        {"at": "now"},
        {"lane": "dead"},
    ],
)
def test_a_line_with_other_members_is_damaged(change: dict[str, Any]) -> None:
    """Even with a valid checksum: the schema is closed."""
    changed = written(**change)
    assert (load_entry(changed), scanned(changed)[2]) == (None, True)


@pytest.mark.parametrize("message", [{"body": "?"}, {"body": base64.b64encode(draft("e2").body).decode()}])
def test_a_line_with_another_body_is_no_entry(message: dict[str, Any]) -> None:
    """It cannot be decoded, or is the event of another id."""
    assert load_entry(written()) == entry(line())
    assert load_entry(written(message={**MESSAGE, **message})) is None


def test_each_changed_byte_is_found() -> None:
    """By the checksum."""
    whole = line()
    for place in range(len(whole) - 1):
        changed = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        items, _, is_damaged = scanned(changed)
        assert is_damaged or not items, place


def test_a_scan_ends_behind_the_last_whole_line() -> None:
    """What follows is written later, or torn."""
    lines = [line("e1"), dump_done("e1", NOW), line("e2")]
    data = b"".join(lines)
    (first, note), end, is_damaged = scanned(data[:-1], 100)
    assert not isinstance(first, DoneNote)
    assert (first.id, first.offset, first.size, note) == ("e1", 100, len(lines[0]), DoneNote(id="e1", at=NOW))
    assert (end, is_damaged) == (100 + len(lines[0]) + len(lines[1]), False)


@pytest.mark.parametrize(
    ("heading", "judged"),
    [
        (HEADING, None),
        (b"", None),
        (HEADING[:5], None),
        (b"\0" * 64, None),
        (b"notifier-spool 2\nx", "newer"),
        (b"notifier-spool 0\n", "damaged"),
        (b"else\n", "damaged"),
    ],
)
def test_the_heading_names_the_format(heading: bytes, judged: str | None) -> None:
    """An empty or torn one is that of a worker that was killed at its start."""
    assert judge_heading(heading) == judged


@pytest.mark.parametrize(
    ("sid", "age", "named"),
    [
        ("s1", 3599.0, None),
        ("s1", 3601.0, "max_age (1h)"),
        (None, 599.0, None),
        (None, 601.0, "sub_only_max_age (10m)"),
    ],
)
def test_an_old_entry_becomes_a_dead_letter_that_names_the_cause(
    sid: str | None, age: float, named: str | None
) -> None:
    """`sub_only_max_age` for a token without `sid`, which would end newer sessions."""
    kept = entry(line(sid=sid))
    outgoing = to_outgoing(kept, POLICY, NOW + age)
    if named is None:
        assert (outgoing.queue, outgoing.message) == (Lane.EVENTS, kept.to_draft())
        return
    assert outgoing.queue == DEAD
    letter = load_dead_letter(received(outgoing.message))
    assert (letter.reason, letter.event) == ("expired", copy_record(event(sid=sid), received_at=NOW))
    assert letter.text == f"kept in the spool for {age:.0f} s, since the queue was unreachable: older than {named}"
