"""Sign-outs as routes publish them, and the entries of a folder."""

from collections.abc import Sequence
from pathlib import Path

from notifier.features.spool.spool_entries import Place, ReceivedSignOut, SpoolEntry, dump_entry, load_entry
from notifier.features.spool.spool_folder import SpoolFolder
from notifier.features.spool.spool_state import SpoolState
from notifier.messages.replacements import to_event_message
from notifier.model.documents.sourced import to_sourced
from notifier.model.message import Lane, Message, MessageDraft
from notifier.model.session_ended import ClientEntry, SessionEnded

ISS = "https://id.example.com"
NOW = 1_800_000_000.0


def event(event_id: str = "e1", sender: str = "op", sid: str | None = "s1") -> SessionEnded:
    """The event of a relay's token."""
    clients = (ClientEntry(client_id="shop", sub="pairwise-1"),)
    return SessionEnded(
        id=event_id, id_given=True, iss=ISS, sub="alice", sid=sid, clients=clients, ended_at=NOW - 1, publisher=sender
    )


def draft(event_id: str = "e1", sender: str = "op", sid: str | None = "s1") -> MessageDraft:
    """Its message."""
    return to_event_message(event(event_id, sender, sid))


def sourced(body: bytes = b'{"id": "x1", "sid": null}', source: str = "upstream/partner") -> MessageDraft:
    """A message of an upstream that a worker must look up, or of a source."""
    message = Message(
        lane=Lane.EVENTS, body=body, tag=None, content_type="application/json", headers={"x-tenant": "a"},
        timestamp=NOW, user_id=source.rpartition("/")[2], source=source,
    )  # fmt: skip
    return to_sourced(message, "m1")


def dumped(message: MessageDraft, entry_id: str = "e1", sender: str = "op", at: float = NOW) -> bytes | None:
    """The line of a message that a sender sent."""
    sign_out = ReceivedSignOut(
        id=entry_id, sender=sender, at=at, received_at=0.0, lane=Lane.EVENTS, message=message
    )  # fmt: skip
    return dump_entry(sign_out)


def line(entry_id: str = "e1", sender: str = "op", at: float = NOW, sid: str | None = "s1") -> bytes:
    """The line of an event."""
    made = dumped(draft(entry_id, sender, sid), entry_id, sender, at)
    assert made is not None
    return made


def entry(of: bytes | None) -> SpoolEntry:
    """The entry of a line."""
    assert of is not None
    loaded = load_entry(of)
    assert loaded is not None
    return loaded


def opened(root: Path) -> SpoolFolder:
    """A folder as a worker has it."""
    folder = SpoolFolder(root)
    folder.own_file()
    return folder


def looked(folder: SpoolFolder, state: SpoolState, *, take_over: bool = True, moment: float = NOW) -> tuple[str, ...]:
    """Look into the folder, and record it. Both clocks show the same. Return the faults."""
    files, faults = folder.look(take_over=take_over)
    for _ in state.on_look(files, moment, moment):
        pass
    return faults


def appended(folder: SpoolFolder, state: SpoolState, *ids: str) -> tuple[str, Sequence[int]]:
    """Write entries. Return their file, and their offsets."""
    name, offsets = folder.append([line(entry_id) for entry_id in ids])
    for entry_id, offset in zip(ids, offsets, strict=True):
        place = Place(
            id=entry_id, sender="op", at=NOW, lane=Lane.EVENTS, file=name, offset=offset, size=len(line(entry_id))
        )
        state.add(place, NOW, NOW, is_ours=True)
    return name, offsets


def batch(state: SpoolState, most: int = 100, moment: float = NOW) -> list[str]:
    """The ids that are published next."""
    return [place.id for place in state.next_batch(most, moment)]


def tidied(folder: SpoolFolder, state: SpoolState, moment: float = NOW) -> None:
    """Drop what is published."""
    folder.tidy(state.busy_files(), state.notes(moment, moment))
