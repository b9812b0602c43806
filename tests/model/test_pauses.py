"""The document of pauses: what each change leaves, and what cannot be read."""

import json

import pytest

from notifier.model.errors import QueueError, UnknownVersion
from notifier.model.pauses import (
    MAX_ENDED_PAUSES,
    MAX_PAUSES,
    NO_PAUSES,
    Pause,
    PauseDocument,
    expire,
    in_force,
    merge_documents,
    pause_clients,
    read_pauses,
    resume_client,
    write_pauses,
)
from notifier.model.record import copy_record

ISS = "https://op.example"
SHOP = (ISS, "shop")


def pause(client_id: str = "shop", *, id_: str = "a", since: float = 100.0, until: float = 200.0) -> Pause:
    """A pause by alice."""
    return Pause(id=id_, iss=ISS, client_id=client_id, who="alice", reason="deploy", since=since, until=until)


def paused(*pauses: Pause) -> PauseDocument:
    """A document with these pauses."""
    return pause_clients(NO_PAUSES, pauses, 100.0)


def test_document_survives_its_json() -> None:
    """With pauses in force, with ended ones, and without any."""
    ended = resume_client(paused(pause(), pause("crm", id_="b")), SHOP, "bob", 150.0)
    assert [read_pauses(write_pauses(each)) for each in (NO_PAUSES, paused(pause()), ended)] == [
        NO_PAUSES, paused(pause()), ended,
    ]  # fmt: skip


def test_unknown_members_are_ignored() -> None:
    """A later release may add some without a new version."""
    document = json.loads(write_pauses(paused(pause())))
    document["pauses"][0]["ticket"] = 7
    assert read_pauses(json.dumps({**document, "more": 1}).encode()) == paused(pause())


@pytest.mark.parametrize(
    "text",
    [
        b"", b"nonsense", b"[]", b'{"v": 1}', b'{"v": "x", "version": 1, "pauses": []}',
        b'{"v": 1, "version": -1, "pauses": []}', b'{"v": 1, "version": 1, "pauses": [{}]}',
        (
            b'{"v": 1, "version": 1, "pauses": [{"id": "a", "iss": "i", "client_id": "c", "who": "", "reason": "",'
            b' "since": 1, "until": Infinity}]}'
        ),
        b" " * 9_000_000,
    ],
)  # fmt: skip
def test_malformed_document_is_refused(text: bytes) -> None:
    """The error names the place and the remedy, and no value."""
    with pytest.raises(QueueError, match="NotifierPausesUnread"):
        read_pauses(text)


def test_document_of_a_later_release_is_refused() -> None:
    """Not as malformed: this release must not replace it."""
    with pytest.raises(UnknownVersion, match="v: 2"):
        read_pauses(b'{"v": 2, "other": []}')


def test_pause_is_in_force_until_its_end() -> None:
    """By itself, and without a change of the document."""
    document = paused(pause())
    assert [[*in_force(document, now)] for now in (100.0, 199.9, 200.0)] == [[SHOP], [SHOP], []]


def test_later_pause_replaces_the_former_one() -> None:
    """The history names who replaced it."""
    later = copy_record(pause(id_="b", since=150.0, until=900.0), who="bob")
    document = pause_clients(paused(pause()), [later], 150.0)
    [first, former] = document.pauses
    assert (first, former.ended_at, former.ended_by, document.version) == (later, 150.0, "bob", 2)


def test_resume_ends_only_the_pause_of_its_client() -> None:
    """And a client without a pause in force leaves the document as it is."""
    document = paused(pause(), pause("crm", id_="b"))
    resumed = resume_client(document, SHOP, "bob", 150.0)
    assert ([*in_force(resumed, 150.0)], resume_client(resumed, SHOP, "bob", 160.0)) == ([(ISS, "crm")], resumed)


def test_expired_pause_ended_at_its_end() -> None:
    """By nobody."""
    [ended] = expire(paused(pause()), 1000.0).pauses
    assert (ended.ended_at, ended.ended_by) == (200.0, None)


def test_pauses_in_force_are_bounded() -> None:
    """One more is refused, but a client that is paused already can be paused again."""
    full = paused(*(pause(f"c{number}", id_=str(number)) for number in range(MAX_PAUSES)))
    assert len(pause_clients(full, [pause("c7", id_="again", since=101.0)], 101.0).pauses) == MAX_PAUSES + 1
    with pytest.raises(QueueError, match="resume some of them first"):
        pause_clients(full, [pause()], 101.0)


def test_history_is_bounded() -> None:
    """The last ones are kept."""
    document = NO_PAUSES
    for number in range(MAX_ENDED_PAUSES + 5):
        document = pause_clients(document, [pause(id_=str(number), since=100.0 + number)], 100.0 + number)
    ended = [each.id for each in document.pauses[1:]]
    assert (len(ended), ended[0], ended[-1]) == (MAX_ENDED_PAUSES, str(MAX_ENDED_PAUSES + 3), "4")


def test_newer_document_is_not_merged() -> None:
    """Nor is one of the same version."""
    assert merge_documents(paused(pause()), NO_PAUSES) == paused(pause())
    assert merge_documents(NO_PAUSES, NO_PAUSES) is NO_PAUSES


def test_lost_document_is_restored_with_the_changes_since() -> None:
    """Changes of the empty document after the loss are kept, and the version is the highest."""
    own = resume_client(paused(pause(), pause("crm", id_="b")), (ISS, "crm"), "bob", 150.0)
    stored = paused(pause("wiki", id_="c"))
    merged = merge_documents(stored, own)
    assert ({*in_force(merged, 160.0)}, merged.version) == ({SHOP, (ISS, "wiki")}, 3)


def test_later_pause_after_a_loss_wins() -> None:
    """Of the same client, whichever document has it."""
    own = resume_client(paused(pause(until=900.0), pause("crm", id_="b")), (ISS, "crm"), "bob", 150.0)
    merged = merge_documents(paused(pause(id_="c", since=160.0, until=500.0)), own)
    assert in_force(merged, 170.0)[SHOP].id == "c"
