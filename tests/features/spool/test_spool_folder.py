"""The files of the spool: who has them, what a crash leaves, and what is wrong with them."""

import base64
import errno
import os
import resource
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

import pytest
from pydantic_core import from_json

from notifier.features.spool import spool_folder
from notifier.features.spool.spool_entries import HEADING, DoneNote, Place, _to_line, dump_done
from notifier.features.spool.spool_file import SpoolFile
from notifier.features.spool.spool_folder import SpoolFolder
from notifier.features.spool.spool_state import SpoolState
from notifier.model.errors import describe_error
from notifier.model.message import Lane
from notifier.settings.file_owners import UnusableFileError
from tests.features.spool.sign_outs import NOW, appended, batch, draft, entry, line, looked, opened, tidied
from tests.support.small_disk import filled, small_disk


def files(root: Path, suffix: str = ".spool") -> list[Path]:
    """The files of this kind."""
    return sorted(root.glob(f"*{suffix}"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder that does not exist yet."""
    return tmp_path / "spool"


def refuse_to_write(_folder: SpoolFolder, name: str, _flags: int) -> NoReturn:
    """Open no file, as on a read-only disk."""
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), name)


def left(root: Path, *ids: str) -> Path:
    """Return the file that a worker left behind when it ended."""
    before = set(files(root))
    folder = opened(root)
    folder.append([line(entry_id) for entry_id in ids])
    folder.close()
    return next(iter(set(files(root)) - before))


def test_only_the_user_reads_the_folder_and_its_files(root: Path) -> None:
    """Folder 0700, file 0600, of a name that nobody can guess. The next worker removes an empty file."""
    folder = opened(root)
    [file] = files(root)
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(file.stem) == 16
    folder.close()
    again, state = opened(root), SpoolState()
    looked(again, state)
    tidied(again, state)
    assert file not in files(root)


def test_a_folder_that_others_may_write_to_gets_a_subfolder(root: Path) -> None:
    """As a Kubernetes `emptyDir` has mode 0777. A subfolder of another user is refused."""
    root.mkdir()
    root.chmod(0o777)
    folder = opened(root)
    assert files(root / "notifier")
    folder.close()
    (root / "notifier").chmod(0o777)
    with pytest.raises(UnusableFileError, match="may be written to by others"):
        opened(root)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("what", ["folder", "file"])
def test_what_belongs_to_another_user_is_not_read(root: Path, what: str) -> None:
    """It could end sessions."""
    file = left(root, "e1")
    if what == "folder":
        os.chown(root, 12345, 12345)
        (root / "notifier").mkdir()
        os.chown(root / "notifier", 12345, 12345)
        with pytest.raises(UnusableFileError, match="belongs to another user"):
            opened(root)
        return
    os.chown(file, 12345, 12345)
    state, folder = SpoolState(), opened(root)
    [fault] = looked(folder, state)
    assert ("belongs to another user" in fault, batch(state)) == (True, [])


@pytest.mark.parametrize("what", ["link", "second name", "pipe"])
def test_only_a_regular_file_with_one_name_is_read(root: Path, tmp_path: Path, what: str) -> None:
    """Neither a link, which may lead elsewhere, nor a pipe, which would hang."""
    file = left(root, "e1")
    if what == "second name":
        os.link(file, tmp_path / "other")
    elif what == "link":
        file.rename(tmp_path / "other")
        file.symlink_to(tmp_path / "other")
    else:
        file.unlink()
        os.mkfifo(file)
    state, folder = SpoolState(), opened(root)
    assert (len(looked(folder, state)), batch(state)) == (1, [])


def test_a_living_worker_keeps_its_file_and_another_recognises_its_entries(root: Path) -> None:
    """Its copies are not written a second time, and it publishes them itself."""
    mine, others = opened(root), opened(root)
    state = SpoolState()
    others.append([line("e1")])
    looked(mine, state)
    assert (batch(state), state.is_known("e1", NOW)) == ([], True)
    others.append([line("e2")])
    others.note([(files_of(others), DoneNote(id="e1", at=NOW))])
    looked(mine, state, take_over=False)
    assert (state.is_known("e2", NOW), state.is_known("e1", NOW + 601)) == (True, False)
    others.close()
    looked(mine, state)
    assert batch(state) == ["e2"]


@pytest.mark.parametrize("is_alive", [True, False])
def test_entries_of_another_worker_are_durable_before_copies_are_recognised(
    root: Path, monkeypatch: pytest.MonkeyPatch, is_alive: bool
) -> None:
    """A copy is answered 200, perhaps before the other worker has made the entry durable, or when it has ended."""
    mine, others = opened(root), opened(root)
    name, _ = others.append([line("e1")])
    inode = (root / name).stat().st_ino
    if not is_alive:
        others.close()
    synced = list[int]()
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    state = SpoolState()
    looked(mine, state, take_over=not is_alive)
    assert (state.is_known("e1", NOW), synced) == (True, [inode])
    looked(mine, state, take_over=False)
    assert synced == [inode]  # once


def files_of(folder: SpoolFolder) -> str:
    """The name of the file that the folder's worker has."""
    name, _ = folder.append([])
    return name


def test_a_file_that_a_worker_left_is_taken_over_once(root: Path) -> None:
    """With what it had published noted; the second worker gets nothing."""
    file = left(root, "e1", "e2", "e3")
    with file.open("ab") as spool:
        spool.write(dump_done("e2", NOW))
    first, second = opened(root), opened(root)
    mine, theirs = SpoolState(), SpoolState()
    looked(first, mine)
    looked(second, theirs)
    assert (batch(mine), batch(theirs)) == (["e1", "e3"], [])
    assert mine.is_known("e2", NOW)
    assert [entry(first.read(place)).id for place in mine.next_batch(9, NOW)] == ["e1", "e3"]


def test_a_file_that_another_worker_locks_first_gets_no_entries(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other worker looks between the creation of the file and its lock, and removes the file, since it is empty."""
    other, state = opened(root), SpoolState()

    def lock_late(file: SpoolFile) -> bool:
        monkeypatch.undo()
        looked(other, state)
        return file.lock()

    monkeypatch.setattr(SpoolFile, "lock", lock_late)
    folder = SpoolFolder(root)
    folder.append([line("a")])
    tidied(other, state)
    folder.close()
    looked(other, state)
    assert batch(state) == ["a"]


def test_a_file_without_entries_keeps_its_notes_and_goes(root: Path) -> None:
    """So copies are recognised for ten minutes, also after a restart; then nothing is left of it."""
    file = left(root, *(f"e{nth}" for nth in range(100)))
    size = file.stat().st_size
    folder, state = opened(root), SpoolState()
    looked(folder, state)
    for entry_id in batch(state):
        state.on_done(entry_id, NOW)
    tidied(folder, state)
    assert file.stat().st_size < size / 3
    folder.close()
    again, state = opened(root), SpoolState()
    looked(again, state)
    assert (state.is_known("e9", NOW + 599), state.is_known("e9", NOW + 601), batch(state)) == (True, False, [])
    tidied(again, state, NOW + 599)
    assert file in files(root)
    tidied(again, state, NOW + 601)
    assert file not in files(root)


@pytest.mark.parametrize("torn", [b"", line("e2")[:-9], b"\0" * 5000, HEADING[:4]])
def test_a_torn_end_is_normal(root: Path, torn: bytes) -> None:
    """A crash interrupted the write, and its sender got no 200. The next line begins after the last whole one."""
    file = left(root, "e1")
    if torn == HEADING[:4]:
        file.write_bytes(torn)
    else:
        with file.open("ab") as spool:
            spool.write(torn)
    folder, state = opened(root), SpoolState()
    assert looked(folder, state) == ()
    ids = batch(state)
    assert ids == ([] if torn == HEADING[:4] else ["e1"])
    folder.note((file.name, DoneNote(id=entry_id, at=NOW)) for entry_id in ids)
    folder.close()
    again = SpoolState()
    assert looked(opened(root), again) == ()
    assert batch(again) == []


def test_a_damaged_file_is_kept_and_its_other_entries_are_published(root: Path) -> None:
    """Under the name `*.corrupt`, for the operator, and named until it is removed."""
    file = left(root, "e1", "e2", "e3")
    content = file.read_bytes()
    file.write_bytes(content.replace(b'"sender":"op"', b'"sender":"oq"', 1) + dump_done("e3", NOW))
    folder, state = opened(root), SpoolState()
    faults = looked(folder, state)
    [kept] = files(root, ".corrupt")
    assert (kept.stem, batch(state)) == (file.stem, ["e2"])
    assert b'"sender":"oq"' in kept.read_bytes()
    assert [fault.partition(" is kept")[0] for fault in faults] == [kept.name]
    assert looked(opened(root), SpoolState()) == faults
    kept.unlink()
    assert looked(folder, state) == ()


@pytest.mark.parametrize("fault", ["no room for a copy", "unreadable", "no descriptor"])
def test_a_file_that_cannot_be_taken_over_yet_stays(root: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """It has no known entries, but is not empty. It is taken over at a later look."""
    file = left(root, "e1", "e2")
    file.write_bytes(file.read_bytes().replace(b'"sender":"op"', b'"sender":"oq"', fault == "no room for a copy"))
    folder, state = opened(root), SpoolState()

    def fail(*_: object) -> NoReturn:
        raise OSError(errno.EMFILE, "failed")

    with monkeypatch.context() as patch:
        if fault == "no room for a copy":
            patch.setattr(spool_folder, "MAX_FOLDER_BYTES", 1)
        else:
            patch.setattr(os, "pread" if fault == "unreadable" else "listdir", fail)
        with suppress(OSError):
            assert any(fault.startswith(file.name) for fault in looked(folder, state))
            tidied(folder, state)
        assert (file.exists(), batch(state)) == (True, [])
    looked(folder, state)
    tidied(folder, state)
    assert batch(state)[-1:] == ["e2"]


def test_the_entries_of_a_file_with_a_damaged_heading_are_published(root: Path) -> None:
    """As those of a file with a damaged line."""
    file = left(root, "e1", "e2")
    file.write_bytes(b"X" + file.read_bytes()[1:])
    folder, state = opened(root), SpoolState()
    assert len(looked(folder, state)) == 1
    assert (batch(state), len(files(root, ".corrupt"))) == (["e1", "e2"], 1)


def test_all_files_of_the_folder_count(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also unread files: a volume with a limit ends the pod that exceeds it."""
    file = left(root, "e1")
    (root / "a.corrupt").write_bytes(b"x" * 5000)
    (root / "b.spool").write_bytes(b"notifier-spool 2\n" + b"x" * 5000)
    folder = opened(root)
    looked(folder, SpoolState())
    assert folder.used == sum(each.stat().st_size for each in root.iterdir()) > 10_000 + file.stat().st_size
    monkeypatch.setattr(spool_folder, "MAX_FOLDER_BYTES", folder.used + 100)
    with pytest.raises(OSError, match="with unread ones"):
        folder.append([line("e2")])


def test_a_damaged_line_behind_the_end_loses_no_entry(root: Path) -> None:
    """Such as the rest of a write that a failing disk has not taken back: entries before it are published."""
    folder, state = opened(root), SpoolState()
    name, _ = appended(folder, state, "e1")
    with (root / name).open("ab") as spool:
        spool.write(b"rest of a line\n")
    assert len(looked(folder, state)) == len(files(root, ".corrupt")) == 1
    assert batch(state) == ["e1"]


def test_a_damaged_line_of_a_living_worker_is_not_read_again_and_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each sign-out looks into the folder."""
    mine, others, state = opened(root), opened(root), SpoolState()
    name, [_, offset, _] = others.append([line("e1"), line("e2"), line("e3")])
    with (root / name).open("r+b") as spool:
        spool.seek(offset + 3)
        spool.write(b"?")
    looked(mine, state)
    assert [state.is_known(each, NOW) for each in ("e1", "e2", "e3")] == [True, False, True]
    read, bytes_read = os.pread, list[int]()

    def count(*where: int) -> bytes:
        data = read(*where)
        bytes_read.append(len(data))
        return data

    monkeypatch.setattr(os, "pread", count)
    looked(mine, state, take_over=False)
    assert sum(bytes_read) == 0


def test_a_line_that_is_damaged_while_the_worker_lives_is_found(root: Path) -> None:
    """`on_damage` moves the other entries to another file. An entry with an invalid event stays in the damaged one."""
    folder, state = opened(root), SpoolState()
    name, _ = appended(folder, state, "e1", "e2", "e3")
    body = base64.b64encode(draft("e2").body)
    forged = _to_line(from_json(line("e2").partition(b" ")[2].replace(body, body[::-1])))
    lines = (root / name).read_bytes()
    (root / name).write_bytes(lines.replace(line("e1"), b"?" + line("e1")[1:]).replace(line("e2"), forged))
    folder.on_damage(name)
    assert len(looked(folder, state)) == len(files(root, ".corrupt")) == 1
    assert batch(state) == ["e3"]
    assert looked(opened(root), again := SpoolState()) != ()
    assert again.is_known("e3", NOW)


def test_a_file_of_a_newer_release_is_left_alone_and_named(root: Path) -> None:
    """So a rollback loses nothing."""
    file = left(root, "e1")
    content = file.read_bytes().replace(b"notifier-spool 1\n", b"notifier-spool 2\n")
    file.write_bytes(content)
    folder, state = opened(root), SpoolState()
    [fault] = looked(folder, state)
    assert fault.startswith(f"{file.name} was written by a newer release")
    assert (batch(state), file.read_bytes()) == ([], content)
    assert looked(opened(root), SpoolState()) == (fault,)  # it was not locked


def test_a_full_disk_refuses_an_entry_and_leaves_the_file_whole(tmp_path: Path) -> None:
    """ENOSPC: later entries are kept again once there is room."""
    with small_disk(tmp_path / "disk", 1) as root:
        folder = opened(root)
        folder.append([line("e1")])
        with filled(root), pytest.raises(OSError, match="No space left") as full:
            folder.append([line(f"x{nth}") for nth in range(5000)])
        assert full.value.errno == errno.ENOSPC
        with filled(root), pytest.raises(OSError, match="No space left"):
            folder.check_room()  # so the problem lasts until there is room, without sign-outs too
        folder.append([line("e2")])
        folder.close()
        state = SpoolState()
        assert looked(opened(root), state) == ()
        assert batch(state) == ["e1", "e2"]


def test_a_disk_that_the_spool_has_filled_is_freed_once_its_entries_are_published(tmp_path: Path) -> None:
    """Also by a worker that starts on the full disk. Copies stay known."""
    with small_disk(tmp_path / "disk", 2) as root:
        folder, state = opened(root), SpoolState()
        with suppress(OSError):
            while True:
                folder.append([line(f"e{nth}") for nth in range(20)])
        folder.close()
        folder = SpoolFolder(root)
        with filled(root):
            looked(folder, state)
            assert len(batch(state)) == 20  # all others are copies
            for entry_id in batch(state):
                state.on_done(entry_id, NOW)
            tidied(folder, state)
            assert sum(file.stat().st_size for file in files(root)) < 100_000
        tidied(folder, state)
        folder.append([line("e99")])
        looked(opened(root), again := SpoolState())
        assert again.is_known("e19", NOW)


def test_a_large_file_gets_no_more_entries(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So it is removed once its entries are published, although new ones always arrive."""
    monkeypatch.setattr(spool_folder, "MAX_FILE_BYTES", 1000)
    folder, state = opened(root), SpoolState()
    for nth in range(100):
        name, [offset] = folder.append([line(f"e{nth}")])
        place = Place(id=f"e{nth}", sender="op", at=NOW, lane=Lane.EVENTS, file=name, offset=offset, size=500)
        state.add(place, NOW, NOW, is_ours=True)
        if nth:
            state.on_done(f"e{nth - 1}", NOW + 100 * nth)  # the next is always there before
        tidied(folder, state, NOW + 100 * nth)
    assert len(files(root)) <= 4
    assert sum(file.stat().st_size for file in files(root)) < 4000
    assert batch(state) == ["e99"]


@pytest.mark.parametrize("is_open", [False, True])
def test_a_file_that_its_worker_removes_meanwhile_is_no_fault(
    root: Path, monkeypatch: pytest.MonkeyPatch, is_open: bool
) -> None:
    """Its entries are published. It is removed after the folder was listed, before or after it is opened."""
    file = left(root, "e1")
    folder, state = opened(root), SpoolState()
    open_file = folder._open_file

    def open_removed(name: str) -> int:
        descriptor = open_file(name) if is_open else 0
        (root / name).unlink()
        return descriptor or open_file(name)

    with monkeypatch.context() as patch:
        patch.setattr(folder, "_open_file", open_removed)
        assert looked(folder, state) == ()
    assert (batch(state), looked(folder, state), file in files(root)) == ([], (), False)


@contextmanager
def limited_file_size(size: int) -> Iterator[None]:
    """Make writes beyond this size fail."""
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, former[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_write_that_fails_midway_leaves_no_part(root: Path) -> None:
    """Of a batch that does not fit, nothing stays."""
    folder = opened(root)
    name, _ = folder.append([line("e1")])
    size = (root / name).stat().st_size
    with limited_file_size(size + 100), pytest.raises(OSError, match="File too large"):
        folder.append([line("e2"), line("e3")])
    assert (root / name).stat().st_size == size
    folder.append([line("e4")])
    folder.close()
    state = SpoolState()
    looked(opened(root), state)
    assert batch(state) == ["e1", "e4"]


@pytest.mark.parametrize("what", ["file", "folder", "file, and another of its name is made"])
def test_entries_of_a_file_that_somebody_removes_are_moved(root: Path, what: str) -> None:
    """They were answered with 200. Only those that are not published: into a file that another worker can take over."""
    folder, state = opened(root), SpoolState()
    name, _ = appended(folder, state, "e1", "e2", "e3")
    folder.note([(name, DoneNote(id="e2", at=NOW))])
    state.on_done("e2", NOW)
    (root / name).unlink()
    if what == "folder":
        root.rmdir()
    elif what != "file":
        (root / name).touch(0o600)
    [fault] = looked(folder, state)
    assert fault.startswith(f"{name} was removed while this worker used it: its 2 sign-outs are in ")
    assert batch(state) == ["e1", "e3"]
    assert [entry(folder.read(place)).id for place in state.next_batch(9, NOW)] == ["e1", "e3"]
    assert looked(folder, state) == ()
    folder.append([line("e4")])
    folder.close()
    state = SpoolState()
    looked(opened(root), state)
    assert batch(state) == ["e1", "e3", "e4"]


def test_entries_of_a_removed_file_wait_for_a_disk_that_can_be_written(root: Path) -> None:
    """The file that somebody removed has them until then."""
    folder, state = opened(root), SpoolState()
    name, _ = appended(folder, state, "e1")
    (root / name).unlink()
    root.rmdir()
    root.touch()
    with pytest.raises(UnusableFileError):
        looked(folder, state)
    root.unlink()
    looked(folder, state)
    assert batch(state) == ["e1"]
    assert len(files(root)) == 1


def test_a_fault_has_the_same_text_at_each_try(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the random name of the file that was to be made, since each new text is logged."""
    folder = opened(root)
    folder.close()
    texts = set[str]()
    monkeypatch.setattr(SpoolFolder, "_open_file", refuse_to_write)
    for _ in range(2):
        with pytest.raises(OSError, match="Read-only file system") as caught:
            folder.append([line("e1")])
        texts.add(describe_error(caught.value))
    assert len(texts) == 1
