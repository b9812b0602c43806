"""The document of pauses: what each change leaves, and what cannot be read."""

import json

import pytest

from notifier.model.client import Client, RetryPolicy
from notifier.model.errors import ChangeRefused, QueueError, UnknownVersion
from notifier.model.pauses import (
    MAX_ENDED_PAUSES,
    MAX_PAUSES,
    MAX_VERSION,
    NO_PAUSES,
    Pause,
    PauseDocument,
    read_pauses,
    write_pauses,
)
from notifier.model.record import copy_record
from notifier.model.registry import Registry

ISS = "https://op.example"
SHOP = (ISS, "shop")


def pause(client_id: str = "shop", *, id_: str = "a", since: float = 100.0, until: float = 200.0) -> Pause:
    """A pause by alice."""
    return Pause(id=id_, iss=ISS, client_id=client_id, who="alice", reason="deploy", since=since, until=until)


def paused(*pauses: Pause) -> PauseDocument:
    """A document with these pauses."""
    return NO_PAUSES.pause_clients(pauses, 100.0)


def test_document_survives_its_json() -> None:
    """With pauses in force, with ended ones, and without any."""
    ended = paused(pause(), pause("crm", id_="b")).resume_clients([SHOP], "bob", 150.0)
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
    """Not as malformed, even if it could be read: this release must not replace it."""
    for text in (b'{"v": 2, "other": []}', b'{"v": 2, "version": 1, "pauses": []}'):
        with pytest.raises(UnknownVersion, match=r"a later release wrote the pauses \(version 2 .*; update this one"):
            read_pauses(text)


def test_pause_is_in_force_until_its_end() -> None:
    """By itself, and without a change of the document."""
    document = paused(pause())
    assert [[*document.in_force(now)] for now in (100.0, 199.9, 200.0)] == [[SHOP], [SHOP], []]


def test_later_pause_replaces_the_former_one() -> None:
    """The history names who replaced it."""
    later = copy_record(pause(id_="b", since=150.0, until=900.0), who="bob")
    document = paused(pause()).pause_clients([later], 150.0)
    [first, former] = document.pauses
    assert (first, former.ended_at, former.ended_by, document.version) == (later, 150.0, "bob", 2)


def test_resume_ends_only_the_pause_of_its_client() -> None:
    """And a client without a pause in force leaves the document as it is."""
    document = paused(pause(), pause("crm", id_="b"))
    resumed = document.resume_clients([SHOP], "bob", 150.0)
    assert ([*resumed.in_force(150.0)], resumed.resume_clients([SHOP], "bob", 160.0)) == ([(ISS, "crm")], resumed)


def test_expired_pause_is_shown_as_ended() -> None:
    """By nobody. One that was resumed ended then."""
    resumed = paused(pause(), pause("crm", id_="b")).resume_clients([(ISS, "crm")], "bob", 150.0)
    shown = {each.client_id: (each.ended_at, each.ended_by) for each in resumed.list_present_and_ended(1000.0)}
    assert shown == {"shop": (200.0, None), "crm": (150.0, "bob")}


def test_pause_is_shown_no_longer_than_its_client_permits() -> None:
    """A forged `until`, also with a forged `since`. Of a client that is not registered the limit is unknown."""
    policy = RetryPolicy(max_paused=60.0)
    shop = Client(iss=ISS, client_id="shop", backchannel_logout_uri="https://shop.example/out", retry=policy)
    document = paused(pause(until=1e10), pause("crm", id_="b", until=1e10))
    for each in (document, copy_record(document, pauses=(copy_record(pause(until=1e10), since=1e9),))):
        limited = each.limit_ends(Registry(clients={ISS: {"shop": shop}}), 100.0)
        assert {pause.client_id: pause.until for pause in limited.pauses}["shop"] == 160.0
    assert document.limit_ends(Registry(), 100.0) == document


def test_change_by_a_fast_clock_ends_no_other_pause() -> None:
    """Its writer's clock is a day ahead, and by it all pauses are over: they stay in force for all others."""
    document = paused(pause())
    ahead = 100.0 + 86_400.0
    document = document.pause_clients([pause("crm", id_="b", since=ahead, until=ahead + 60.0)], ahead)
    document = document.resume_clients([(ISS, "crm")], "bob", ahead + 1.0)
    assert [*document.in_force(150.0)] == [SHOP]


def test_version_stays_at_its_limit() -> None:
    """Anyone who may publish into the queue can set it. The document can be read and changed further."""
    document = copy_record(NO_PAUSES, version=MAX_VERSION).pause_clients([pause()], 100.0)
    assert (read_pauses(write_pauses(document)), document.version) == (document, MAX_VERSION)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"client_id": "c" * 1025}, "pauses.0.client_id"),
        ({"who": "w" * 1025}, "pauses.0.who"),
        ({"client_id": "\udcff"}, "not Unicode"),
    ],
)
def test_document_that_nobody_could_read_is_not_written(changes: dict[str, str], text: str) -> None:
    """The error has no name of it."""
    with pytest.raises(ChangeRefused, match=f"nothing was changed.*{text}"):
        write_pauses(paused(copy_record(pause(), **changes)))


def test_document_that_is_too_large_is_not_written() -> None:
    """A thousand clients with the longest names, each character of four bytes."""
    names = [f"{number:04}" + "\N{PILE OF POO}" * 1020 for number in range(MAX_PAUSES)]
    with pytest.raises(ChangeRefused, match=r"nothing was changed.*more than 8,388,608 bytes"):
        write_pauses(paused(*(copy_record(pause(name, id_=name[:4]), iss=name, who=name) for name in names)))


def test_pauses_in_force_are_bounded() -> None:
    """One more is refused, but a client that is paused already can be paused again."""
    full = paused(*(pause(f"c{number}", id_=str(number)) for number in range(MAX_PAUSES)))
    again = full.pause_clients([pause("c7", id_="again", since=101.0)], 101.0)
    assert (len(again.pauses), again.in_force(101.0)[ISS, "c7"].id) == (MAX_PAUSES, "again")
    with pytest.raises(ChangeRefused, match="resume some of them first"):
        full.pause_clients([pause()], 101.0)


def test_history_is_bounded() -> None:
    """Those that ended last are kept, and all in force. Fewer are shown."""
    document = paused(pause(until=9000.0))
    for number in range(MAX_PAUSES + 5):
        now = 200.0 + number
        document = document.pause_clients([pause("crm", id_=str(number), since=now, until=now + 0.5)], now)
    ids = [each.id for each in document.pauses]
    assert (len(ids), ids[:2], ids[-1]) == (MAX_PAUSES, ["a", str(MAX_PAUSES + 4)], "6")
    assert read_pauses(write_pauses(document)) == document
    assert [each.id for each in document.list_present_and_ended(2000.0)] == ids[: MAX_ENDED_PAUSES + 1]


def test_newer_document_is_not_merged() -> None:
    """Nor is one of the same version."""
    assert paused(pause()).merge(NO_PAUSES) == paused(pause())
    assert NO_PAUSES.merge(NO_PAUSES) is NO_PAUSES


def test_lost_document_is_restored_with_the_changes_since() -> None:
    """Changes of the empty document after the loss are kept, and the version is the highest."""
    own = paused(pause(), pause("crm", id_="b")).resume_clients([(ISS, "crm")], "bob", 150.0)
    stored = paused(pause("wiki", id_="c"))
    merged = stored.merge(own)
    assert ({*merged.in_force(160.0)}, merged.version) == ({SHOP, (ISS, "wiki")}, 3)


def test_later_pause_after_a_loss_wins() -> None:
    """Of the same client, whichever document has it."""
    own = paused(pause(until=900.0), pause("crm", id_="b")).resume_clients([(ISS, "crm")], "bob", 150.0)
    merged = paused(pause(id_="c", since=160.0, until=500.0)).merge(own)
    assert (merged.in_force(170.0)[SHOP].id, merged.in_force(600.0)) == ("c", {})
    assert merged.resume_clients([SHOP], "bob", 170.0).in_force(170.0) == {}
