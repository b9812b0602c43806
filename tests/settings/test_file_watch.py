"""A change of a watched file is reported once, after the file has been unchanged for a while."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from notifier.model.own_thread import FileTimeoutError, read_in_thread
from notifier.settings.file_watch import FileWatch, Stamp, find_hanging, open_file, read_each, stamps_of
from tests.support.hanging_files import hanging

A, B = Path("a.yaml"), Path("b.pem")


def stamp(version: int) -> Stamp:
    return Stamp(device=1, inode=2, size=3, mtime_ns=version, ctime_ns=version)


ONE, TWO, THREE = stamp(1), stamp(2), stamp(3)


@pytest.mark.parametrize(
    "looks",
    [
        [(0.0, ONE, ONE, False), (9.0, ONE, ONE, False)],
        [(10.0, TWO, ONE, False), (10.9, TWO, ONE, False), (11.0, TWO, ONE, True), (12.0, TWO, ONE, False)],
        [(0.0, TWO, ONE, False), (1.0, THREE, ONE, False), (1.9, THREE, ONE, False), (2.0, THREE, ONE, True)],
        [(0.0, TWO, ONE, False), (1.0, TWO, TWO, False), (1.9, TWO, TWO, False), (2.0, TWO, TWO, True)],
        [(0.0, None, ONE, False), (1.0, None, ONE, True), (2.0, ONE, ONE, False), (3.0, ONE, ONE, True)],
        [(0.0, None, ONE, False), (0.5, ONE, ONE, False), (1.5, ONE, ONE, False), (9.0, ONE, ONE, False)],
        [(0.0, stamp(0), ONE, False), (1.0, stamp(0), ONE, True)],
    ],
    ids=["no change", "one change", "being written", "another file", "goes and comes", "away a moment", "older"],
)
def test_change_is_reported_once_it_has_settled(looks: list[tuple[float, Stamp | None, Stamp | None, bool]]) -> None:
    """When all files are unchanged for `settle` seconds. So is a change from before the first check."""
    watch = FileWatch({A: ONE, B: ONE}, settle=1.0)
    assert [watch.observe({A: a, B: b}, now) for now, a, b, _ in looks] == [reported for *_, reported in looks]


def test_after_a_reload_the_files_it_read_are_watched() -> None:
    """A new baseline may contain other files; they are reported only when they change from it."""
    watch = FileWatch({A: stamp(1)}, settle=1.0)
    watch.rebase({A: stamp(1), B: stamp(7)})
    assert watch.paths == (A, B)
    assert not any(watch.observe({A: stamp(1), B: stamp(7)}, now) for now in (0.0, 1.0, 2.0))
    assert not watch.observe({A: stamp(1), B: stamp(8)}, 3.0)
    assert watch.observe({A: stamp(1), B: stamp(8)}, 4.0)


def test_write_during_a_reload_is_reported_afterwards() -> None:
    """A change between the new baseline and the next check causes one more read."""
    watch = FileWatch({A: stamp(1)}, settle=1.0)
    watch.observe({A: stamp(2)}, 0.0)
    assert watch.observe({A: stamp(2)}, 1.0)
    watch.rebase({A: stamp(2)})
    assert not watch.observe({A: stamp(3)}, 2.0)
    assert watch.observe({A: stamp(3)}, 3.0)


def test_further_files_can_be_watched() -> None:
    """A file of a failed reload is reported once; the previous files are still watched."""
    watch = FileWatch({A: stamp(1)}, settle=1.0)
    watch.add([A, B])
    assert watch.paths == (A, B)
    assert not any(watch.observe({A: stamp(1), B: None}, now) for now in (0.0, 1.0, 2.0))
    assert not watch.observe({A: stamp(1), B: stamp(1)}, 3.0)
    assert [watch.observe({A: stamp(1), B: stamp(1)}, now) for now in (4.0, 5.0)] == [True, False]
    watch.add([B])
    assert not any(watch.observe({A: stamp(1), B: stamp(1)}, now) for now in (6.0, 7.0))
    assert not watch.observe({A: stamp(2), B: stamp(1)}, 8.0)
    assert watch.observe({A: stamp(2), B: stamp(1)}, 9.0)


def rewrite(path: Path) -> None:
    path.write_text("two")
    os.utime(path, (1.0, 1.0))  # the same size and mtime as before


def replace(path: Path) -> None:
    new = path.with_suffix(".new")
    new.write_text("one")
    os.utime(new, (1.0, 1.0))
    new.replace(path)


@pytest.mark.parametrize("change", [rewrite, replace, lambda path: path.chmod(0o400), Path.unlink])
def test_every_way_of_changing_a_file_shows(tmp_path: Path, change: Callable[[Path], None]) -> None:
    """A stamp differs after any change that may affect a reader, also with the same size and mtime."""
    path = tmp_path / "clients.yaml"
    path.write_text("one")
    os.utime(path, (1.0, 1.0))
    before = stamps_of([path])
    deadline = time.monotonic() + 60
    while stamps_of([path]) == before:  # older kernels update the ctime every 4 ms only
        assert time.monotonic() < deadline
        change(path)


def test_a_configmap_swap_shows(tmp_path: Path) -> None:
    """Kubernetes swaps the directory symlink `..data`; the file's own symlink never changes."""
    for version in ("v1", "v2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "clients.yaml").write_text("same")
        os.utime(tmp_path / version / "clients.yaml", (1.0, 1.0))
    (tmp_path / "..data").symlink_to("v1")
    path = tmp_path / "clients.yaml"
    path.symlink_to("..data/clients.yaml")
    before = stamps_of([path])
    (tmp_path / "..data_tmp").symlink_to("v2")
    (tmp_path / "..data_tmp").replace(tmp_path / "..data")
    assert stamps_of([path]) != before


def test_inaccessible_path_is_absent(tmp_path: Path) -> None:
    """A missing file, a file below a file, an impossible name: absent, not an error."""
    (tmp_path / "file").write_text("")
    paths = [tmp_path / "missing", tmp_path / "file" / "below", Path("nul\0")]
    assert stamps_of(paths) == dict.fromkeys(paths)


async def test_files_that_hang_are_left_out(tmp_path: Path) -> None:
    """Each occupies one thread, however often it is asked for. Once it answers, it is examined again."""
    good, bad, worse = tmp_path / "good", tmp_path / "bad", tmp_path / "worse"
    good.touch()
    with hanging(bad, worse):
        for _ in range(3):
            assert await find_hanging([bad, good, worse]) == [bad, worse]
        assert [*await read_each([bad, good], open_file)] == [good]
    assert await find_hanging([bad, good, worse]) == []


def test_a_file_that_hangs_counts_as_unchanged() -> None:
    """Changes of the others are reported."""
    watch = FileWatch({A: stamp(1), B: stamp(1)}, settle=1.0)
    assert not any(watch.observe({A: stamp(1)}, now) for now in (0.0, 1.0))
    assert [watch.observe({A: stamp(2)}, now) for now in (2.0, 3.0)] == [False, True]
    watch.rebase({A: stamp(2), B: stamp(7)})
    assert not any(watch.observe({A: stamp(2)}, now) for now in (4.0, 5.0))


async def test_a_name_occupies_two_threads(tmp_path: Path) -> None:
    """Further callers fail with the file's name, and readers of other files are served."""
    bad, started = tmp_path / "bad", []

    def read() -> bytes:
        started.append(1)
        return bad.read_bytes()

    with hanging(bad):
        reads = [asyncio.create_task(read_in_thread(str(bad), read, within=0.2)) for _ in range(5)]
        assert await read_in_thread("another", lambda: 7) == 7
        for fault in await asyncio.gather(*reads, return_exceptions=True):
            assert isinstance(fault, FileTimeoutError)
            assert str(fault).startswith(f"{bad} was not read within 0.2 s")
        assert len(started) == 2
    bad.write_bytes(b"here")
    assert await read_in_thread(str(bad), read) == b"here"
