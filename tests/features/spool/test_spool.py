"""The spool at a queue that takes messages, refuses some, or does not answer."""

import asyncio
import errno
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from notifier.features.spool import spool as spool_module
from notifier.features.spool.spool import MAX_BATCH, Spool
from notifier.features.spool.spool_entries import HEADING
from notifier.features.spool.spool_state import MAX_REFUSALS, rest_seconds
from notifier.model.client import RetryPolicy
from notifier.model.errors import ConfigurationError, MessageRefused, QueueUnavailable
from notifier.model.message import DEAD, Lane, MessageDraft, QueueStatus
from notifier.model.trouble import TroubleKind
from notifier.publishing.route_steps import MAX_PUBLISHED_AT_ONCE
from tests.features.spool.sign_outs import draft, sourced


async def holds(is_so: Callable[[], bool]) -> None:
    """Wait until it is so, for 10 s at most."""
    async with asyncio.timeout(10.0):
        while not is_so():  # noqa: ASYNC110  what has no event is looked at
            await asyncio.sleep(0.01)


class Queue:
    """A queue in memory. `answers`: it confirms; otherwise publishes hang. `up`: it is connected."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, MessageDraft]] = []
        self.up = True
        self.blocked = False
        self.answering = asyncio.Event()
        self.answering.set()
        self.refused: set[str] = set()
        self.refusal: type[QueueUnavailable] = MessageRefused
        self.silent: set[str] = set()
        self.broken: set[str] = set()
        self.pause_count = 0
        self.publish_count = 0

    def status(self) -> QueueStatus:
        return QueueStatus(connected=self.up, consuming=self.up, blocked=self.blocked)

    async def publish(self, queue: str, message: MessageDraft) -> None:
        self.publish_count += 1
        if not self.up or self.blocked:
            raise QueueUnavailable("not connected, or an alarm")
        if message.message_id in self.broken:
            raise ValueError("a mistake of notifier's own")
        if queue in self.silent:
            await asyncio.sleep(0.2)
            raise QueueUnavailable("no confirm in time")
        await self.answering.wait()
        if not self.up:
            raise QueueUnavailable("connection lost before the confirm")
        if message.message_id in self.refused:
            raise self.refusal("the broker closed the channel")
        self.taken.append((queue, message))

    async def wait_until_available(self) -> None:
        self.pause_count += 1
        await asyncio.sleep(0.01)
        while not self.up:  # noqa: ASYNC110  as the real one
            await asyncio.sleep(0.01)

    @property
    def ids(self) -> list[str]:
        return [message.message_id for _, message in self.taken]


@pytest.fixture
def queue() -> Queue:
    return Queue()


def names(root: Path, suffix: str = ".spool") -> list[str]:
    """The names of the files of this kind."""
    return sorted(path.name for path in root.iterdir() if path.suffix == suffix)


def refuse_lock(_file: int, _how: int) -> None:
    """Lock a file of a file system that has no locks."""
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


class Clocks:
    """The time of day, which may be set, and a clock that never jumps."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.moment = 5000.0


class Rig:
    """A running spool. Its clocks are the system's unless some are given."""

    def __init__(self, root: Path, queue: Queue, policy: RetryPolicy, clocks: Clocks | None) -> None:
        self.spool = Spool(root, queue, lambda: policy)
        if clocks is not None:
            self.spool = Spool(
                root, queue, lambda: policy, clock=lambda: clocks.now, monotonic=lambda: clocks.moment
            )  # fmt: skip
        self.spool.add_senders(lambda: ["op", "other"])
        self.draining = asyncio.Event()

    async def send(self, *ids: str, sender: str = "op", within: float = 4.5, lane: Lane = Lane.EVENTS) -> list[bool]:
        """Send sign-outs together. Return which were accepted."""

        async def publish(event_id: str) -> bool:
            deadline = asyncio.get_running_loop().time() + within
            try:
                async with asyncio.timeout_at(deadline):
                    await self.spool.publish(sender, event_id, lane, draft(event_id, sender), deadline)
            except (QueueUnavailable, TimeoutError):
                return False
            return True

        return await asyncio.gather(*map(publish, ids))

    def counts(self) -> dict[str, float]:
        """The counters by result, without those at zero."""
        samples = next(family for family in self.spool.families() if family.name.endswith("spool_events")).samples
        return {each.labels["result"]: each.value for each in samples if each.value and "result" in each.labels}

    def metric(self, name: str) -> float:
        """The value of a metric without labels."""
        [sample] = next(family for family in self.spool.families() if family.name.endswith(name)).samples
        return sample.value

    def troubles(self) -> list[str]:
        return [trouble.kind for trouble in self.spool.troubles()]


@asynccontextmanager
async def running(
    root: Path,
    queue: Queue,
    policy: RetryPolicy | None = None,
    clocks: Clocks | None = None,
    grace: float = 0.0,
) -> AsyncIterator[Rig]:
    rig = Rig(root, queue, policy or RetryPolicy(), clocks)
    async with rig.spool.running(rig.draining, grace):
        yield rig


async def test_nothing_is_written_while_the_queue_confirms(tmp_path: Path, queue: Queue) -> None:
    """The file has its heading only."""
    async with running(tmp_path, queue) as rig:
        assert await rig.send("e1", "e2") == [True, True]
        assert (queue.ids, rig.counts(), rig.troubles(), rig.spool.has_room()) == (["e1", "e2"], {}, [], True)
    assert [(tmp_path / name).read_bytes() for name in names(tmp_path)] == [HEADING]


async def test_what_an_absent_queue_does_not_take_is_published_in_order_later(tmp_path: Path, queue: Queue) -> None:
    """Each is accepted at once, and visible meanwhile."""
    ids = [f"e{nth}" for nth in range(100)]
    async with running(tmp_path, queue) as rig:
        queue.up = False
        began_at = time.monotonic()
        for event_id in ids:
            assert await rig.send(event_id) == [True]
        assert time.monotonic() - began_at < 0.9 * len(ids)  # no second for each
        assert rig.troubles() == [TroubleKind.SPOOL_WAITING]
        queue.up = True
        await holds(lambda: len(queue.ids) == 100)
        await holds(lambda: rig.troubles() == [])
        assert (queue.ids, rig.counts()) == (ids, {"written": 100, "published": 100})
        assert all(b'"received_at":' in message.body for _, message in queue.taken)


async def test_a_queue_that_does_not_answer_delays_a_sender_by_a_second(tmp_path: Path, queue: Queue) -> None:
    """And later ones by less, until it confirms again. Late confirms remove the entries: none is published twice."""
    async with running(tmp_path, queue) as rig:
        queue.answering.clear()
        began_at = time.monotonic()
        assert await rig.send(*(f"e{nth}" for nth in range(20))) == [True] * 20
        assert time.monotonic() - began_at >= 1.0
        assert await rig.send("e3") == [True]  # a copy
        began_at = time.monotonic()
        for nth in range(20, 40):
            assert await rig.send(f"e{nth}") == [True]
        assert time.monotonic() - began_at < 15.0  # no second for each
        queue.answering.set()
        await holds(lambda: rig.troubles() == [])
        assert (len(queue.ids), queue.publish_count) == (40, 40)
        assert rig.counts() == {"written": 40, "late_confirm": 40}
        assert await rig.send("e3", "e40") == [True] * 2
        assert (queue.publish_count, rig.counts()) == (41, {"written": 40, "late_confirm": 40})


async def test_a_flood_of_one_sender_keeps_few_publishes_waiting(tmp_path: Path, queue: Queue) -> None:
    """Each is answered in time, also beyond those of a sender that are published at a time, and published once."""
    ids = [f"e{nth}" for nth in range(300)]
    async with running(tmp_path, queue) as rig:
        queue.answering.clear()
        tasks = len(asyncio.all_tasks())
        assert await rig.send(*ids) == [True] * 300
        await asyncio.sleep(0.05)
        assert len(asyncio.all_tasks()) - tasks <= MAX_PUBLISHED_AT_ONCE + MAX_BATCH + 1
        assert await rig.send("other", sender="other") == [True]
        queue.answering.set()
        await holds(lambda: rig.troubles() == [])
        assert sorted(queue.ids) == sorted([*ids, "other"])
        assert rig.counts() == {"written": 301, "late_confirm": 129, "published": 172}


async def test_a_burst_of_large_sign_outs_delays_neither_itself_nor_others(
    tmp_path: Path, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some are answered after 2 MiB, and senders take turns. Otherwise all would miss their deadlines together."""
    answered, sizes, write = list[str](), list[int](), os.pwrite

    def count(descriptor: int, data: bytes, offset: int) -> int:
        sizes.append(len(data))
        return write(descriptor, data, offset)

    async with running(tmp_path, queue) as rig:
        queue.up = False

        async def send(event_id: str, sender: str, size: int) -> None:
            message = sourced(b"x" * size, sender)
            await rig.spool.publish(sender, event_id, Lane.EVENTS, message, float("inf"))
            answered.append(event_id)

        monkeypatch.setattr(os, "pwrite", count)
        await asyncio.gather(*(send(f"e{nth}", "op", 120_000) for nth in range(60)), send("small", "other", 10))
        assert answered.index("small") < 10
        assert [each for each in answered if each != "small"] == [f"e{nth}" for nth in range(60)]
        assert max(sizes) < 3 * 1024**2  # in base64


async def test_a_late_confirm_counts_although_the_sender_has_left(
    tmp_path: Path, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the file system hangs: the entry is not published a second time once it is durable."""
    async with running(tmp_path, queue) as rig:
        await holds(lambda: bool(names(tmp_path)))
        await asyncio.sleep(0.1)
        pipe, other_end = os.pipe()
        monkeypatch.setattr(os, "fsync", lambda _file: os.read(pipe, 1))
        queue.answering.clear()
        assert await rig.send("e1", within=1.5) == [False]
        queue.answering.set()
        await holds(lambda: queue.ids == ["e1"])
        monkeypatch.undo()
        os.write(other_end, b"x")
        await holds(lambda: rig.counts() == {"written": 1, "late_confirm": 1})
        assert await rig.send("e2") == [True]
        assert queue.ids == ["e1", "e2"]
        os.close(pipe)
        os.close(other_end)


async def test_copies_that_arrive_together_are_published_once(tmp_path: Path, queue: Queue) -> None:
    """And written once, if the queue does not answer."""
    async with running(tmp_path, queue) as rig:
        assert await rig.send("e1", "e1") == [True] * 2
        queue.answering.clear()
        assert await rig.send("e2", "e2") == [True] * 2
        queue.answering.set()
        await holds(lambda: rig.troubles() == [])
        assert (queue.ids, rig.counts()) == (["e1", "e2"], {"written": 1, "late_confirm": 1})


async def test_a_copy_at_another_worker_is_not_written_again(tmp_path: Path, queue: Queue) -> None:
    """It is accepted, and published by the worker that has the entry."""
    async with running(tmp_path, queue) as first, running(tmp_path, queue) as second:
        await holds(lambda: len(names(tmp_path)) == 2)
        queue.up = False
        assert await first.send("e1") == [True]
        assert await second.send("e1") == [True]
        assert await second.send("e1", "e2", "e2") == [True] * 3
        lines = [line for name in names(tmp_path) for line in (tmp_path / name).read_bytes().splitlines()]
        assert [sum(f'"id":"{each}"'.encode() in line for line in lines) for each in ("e1", "e2")] == [1, 1]
        queue.up = True
        await holds(lambda: sorted(queue.ids) == ["e1", "e2"])


async def test_entries_are_published_without_pauses_while_the_queue_takes_them(tmp_path: Path, queue: Queue) -> None:
    """The wait for a queue always lasts a moment, which would bound the rate."""
    async with running(tmp_path, queue) as rig:
        queue.up = False
        for nth in range(100):
            await rig.send(f"e{nth}")
        queue.up = True
        await holds(lambda: len(queue.ids) == 100)
        assert queue.pause_count <= 2


async def test_an_alarm_of_the_broker_stops_the_draining(tmp_path: Path, queue: Queue) -> None:
    """It takes nothing then, although it is connected. Sign-outs go to the file meanwhile."""
    async with running(tmp_path, queue) as rig:
        queue.up = False
        assert await rig.send("e1", "e2") == [True] * 2
        queue.blocked = queue.up = True
        count = queue.pause_count
        await holds(lambda: queue.pause_count > count + 2)
        assert await rig.send("e3") == [True]
        assert queue.publish_count == 3  # by the senders
        queue.blocked = False
        await holds(lambda: queue.ids == ["e1", "e2", "e3"])


async def test_a_lost_confirm_is_published_again(tmp_path: Path, queue: Queue) -> None:
    """Once the original publish has failed."""
    async with running(tmp_path, queue) as rig:
        queue.answering.clear()
        assert await rig.send("e1") == [True]
        queue.up = False
        queue.answering.set()
        await asyncio.sleep(0)
        queue.up = True
        await holds(lambda: queue.ids == ["e1"])


async def test_entries_outlive_the_worker_and_are_recognised_after_it(tmp_path: Path, queue: Queue) -> None:
    """Also those that it had published already."""
    queue.up = False
    with capture_logs() as logs:
        async with running(tmp_path, queue) as rig:
            await rig.send("e1", "e2")
    assert [line["entries"] for line in logs if line["event"] == "spool_left"] == [2]
    queue.up = True
    async with running(tmp_path, queue) as rig:
        await holds(lambda: len(queue.ids) == 2)
    async with running(tmp_path, queue) as rig:
        await holds(lambda: bool(names(tmp_path)))
        await asyncio.sleep(0.05)  # the first look at what is left
        assert await rig.send("e1", "e2", "e3") == [True] * 3
        assert sorted(queue.ids) == ["e1", "e2", "e3"]


async def test_a_stopping_worker_publishes_what_it_can(tmp_path: Path, queue: Queue) -> None:
    """Within the grace; without a queue it does not wait."""
    queue.up = False
    async with running(tmp_path, queue, grace=20.0) as rig:
        await rig.send(*(f"e{nth}" for nth in range(40)))
        rig.draining.set()
        queue.up = True
    assert len(queue.ids) == 40
    queue.up = False
    began_at = time.monotonic()
    async with running(tmp_path, queue, grace=20.0) as rig:
        await rig.send("e40")
        rig.draining.set()
    assert time.monotonic() - began_at < 5.0


async def test_a_stopping_worker_waits_for_late_confirms(
    tmp_path: Path, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the grace: otherwise the next worker would publish the entries a second time."""
    monkeypatch.setattr(spool_module, "CONFIRM_SECONDS", 0.1)
    async with running(tmp_path, queue, grace=20.0) as rig:
        queue.answering.clear()
        assert await rig.send("e1", "e2") == [True] * 2
        rig.draining.set()
        asyncio.get_running_loop().call_later(0.6, queue.answering.set)
    assert (sorted(queue.ids), rig.counts()) == (["e1", "e2"], {"written": 2, "late_confirm": 2})


async def test_an_entry_that_the_queue_refuses_for_good_becomes_a_dead_letter(
    tmp_path: Path, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others of its sender are published meanwhile."""
    monkeypatch.setattr("notifier.features.spool.spool_state.MAX_REFUSAL_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(spool_module, "MAX_PAUSE_SECONDS", 0.01)
    queue.refused.add("bad")
    async with running(tmp_path, queue) as rig:
        queue.up = False
        await rig.send("bad")
        await rig.send("e1")
        queue.up = True
        await holds(lambda: queue.ids == ["e1"])
        tries, nth = MAX_REFUSALS + 1, 2
        while DEAD not in [name for name, _ in queue.taken]:
            assert nth < 10 * tries
            count = queue.publish_count
            await holds(lambda count=count: queue.publish_count > count)  # type: ignore[misc]
            await rig.send(f"e{nth}")
            nth += 1
        [letter] = [message for name, message in queue.taken if name == DEAD]
        assert letter.headers["reason"] == "queue_refused"
        assert rig.counts()["refused"] == 1
        assert rig.troubles() == []


async def test_an_entry_that_a_full_queue_does_not_take_stays(
    tmp_path: Path, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another message would fare no better, so no number of nacks makes it a dead letter."""
    monkeypatch.setattr("notifier.features.spool.spool_state.MAX_REFUSAL_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(spool_module, "MAX_PAUSE_SECONDS", 0.01)
    queue.refused, queue.refusal = {"e0"}, QueueUnavailable
    async with running(tmp_path, queue) as rig:
        queue.up = False
        await rig.send("e0")
        queue.up = True
        for nth in range(1, 3 * MAX_REFUSALS):
            count = queue.publish_count
            await rig.send(f"e{nth}")
            await holds(lambda count=count: queue.publish_count > count + 1)  # type: ignore[misc]
        queue.refused = set()
        await holds(lambda: "e0" in queue.ids)
        assert rig.counts() == {"written": 1, "published": 1}


async def test_the_entries_of_a_lane_that_takes_nothing_delay_no_others(tmp_path: Path, queue: Queue) -> None:
    """One attempt with it may; the others wait until nothing else is left."""
    async with running(tmp_path, queue) as rig:
        queue.up = False
        for nth in range(60):
            await rig.send(f"b{nth}", sender="other", lane=Lane.BULK)
            await rig.send(f"e{nth}")
        queue.silent = {Lane.BULK}
        queue.up, queue.publish_count = True, 0
        await holds(lambda: len(queue.ids) == 60)
        assert queue.publish_count <= 60 + MAX_BATCH
        queue.silent = set()
        await holds(lambda: len(queue.ids) == 120)
        assert DEAD not in [name for name, _ in queue.taken]


async def test_an_error_of_notifiers_own_does_not_end_the_draining(tmp_path: Path, queue: Queue) -> None:
    """It is a problem until the next try."""
    async with running(tmp_path, queue) as rig:
        queue.up = False
        await rig.send("e1")
        queue.broken = {"e1"}
        queue.up = True
        await holds(lambda: TroubleKind.SPOOL_FAILING in rig.troubles())
        queue.broken = set()
        await holds(lambda: queue.ids == ["e1"])


async def test_an_error_of_notifiers_own_with_one_entry_repeats_no_other(tmp_path: Path, queue: Queue) -> None:
    """Those published together with it are published, and once."""
    async with running(tmp_path, queue) as rig:
        queue.up = False
        ids = [f"e{nth}" for nth in range(40)]
        for event_id in ids:
            await rig.send(event_id)
        queue.broken = {"e1", "e20"}
        queue.up = True
        await holds(lambda: len(set(queue.ids)) == 38)
        queue.broken = set()
        await holds(lambda: rig.counts().get("published") == 40)
        assert sorted(queue.ids) == sorted(ids)


async def test_an_entry_that_cannot_be_read_delays_no_other(
    tmp_path: Path, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EIO of one sector. It is a problem, and the entry is published once the disk returns it."""
    read, bad = os.pread, set[int]()

    def read_or_fail(descriptor: int, size: int, offset: int) -> bytes:
        if offset in bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(descriptor, size, offset)

    async with running(tmp_path, queue) as rig:
        queue.up = False
        bad.add((tmp_path / names(tmp_path)[0]).stat().st_size)
        for event_id in ("e1", "e2", "e3"):
            await rig.send(event_id)
        monkeypatch.setattr(os, "pread", read_or_fail)
        queue.up = True
        await holds(lambda: queue.ids == ["e2", "e3"])
        await holds(lambda: TroubleKind.SPOOL_FAILING in rig.troubles())
        bad.clear()
        await holds(lambda: queue.ids == ["e2", "e3", "e1"])


async def test_a_disk_that_fails_refuses_a_sign_out(
    tmp_path: Path, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EIO of a write or an fsync: 503, a problem, and nothing of it is in the file that is used next."""
    async with running(tmp_path, queue) as rig:
        queue.up = False
        assert await rig.send("e1") == [True]
        for call in ("pwrite", "fsync"):

            def fail(*_: object) -> int:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

            with monkeypatch.context() as disk:
                disk.setattr(os, call, fail)
                assert await rig.send(call) == [False]
                assert TroubleKind.SPOOL_FAILING in rig.troubles()
                assert not rig.spool.has_room()
        assert await rig.send("e2") == [True]
        assert rig.troubles() == [TroubleKind.SPOOL_WAITING]
    queue.up = True
    async with running(tmp_path, queue):
        await holds(lambda: sorted(queue.ids) == ["e1", "e2"])


@pytest.mark.parametrize("set_by", [0.0, -86_400.0])
@pytest.mark.parametrize("is_restarted", [False, True])
async def test_an_old_entry_becomes_a_dead_letter(
    tmp_path: Path, queue: Queue, set_by: float, is_restarted: bool
) -> None:
    """It ends no session. Its age counts although the clock is set back meanwhile, or before the next worker starts."""
    clocks, policy, written = Clocks(), RetryPolicy(max_age=3600.0), {} if is_restarted else {"written": 1}
    async with AsyncExitStack() as stack:
        rig = await stack.enter_async_context(running(tmp_path, queue, policy, clocks))
        queue.up = False
        await rig.send("e1")
        clocks.now += set_by
        if is_restarted:
            await stack.aclose()
            rig = await stack.enter_async_context(running(tmp_path, queue, policy, clocks))
            await holds(lambda: rig.troubles() == [TroubleKind.SPOOL_WAITING])
        clocks.now += 3601
        clocks.moment += 3601
        assert rig.metric("spool_oldest_seconds") == 3601
        queue.up = True
        await holds(lambda: len(queue.taken) == 1)
        [(name, letter)] = queue.taken
        assert (name, letter.headers["reason"], rig.counts()) == (DEAD, "expired", {**written, "expired": 1})


async def test_a_clock_that_is_set_back_sends_no_sign_out_to_the_disk(tmp_path: Path, queue: Queue) -> None:
    """An outage that has ended does not count as present until the clock shows its time again."""
    clocks = Clocks()
    async with running(tmp_path, queue, clocks=clocks) as rig:
        queue.answering.clear()
        assert await rig.send("e1") == [True]
        clocks.now -= 3600.0
        clocks.moment += 2.0
        queue.answering.set()
        await holds(lambda: rig.troubles() == [])
        queue.answering.clear()
        asyncio.get_running_loop().call_later(0.3, queue.answering.set)
        assert await rig.send("e2") == [True]
        assert rig.counts() == {"written": 1, "late_confirm": 1}


async def test_a_full_share_is_refused_while_others_have_theirs(
    tmp_path: Path, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 as without a spool."""
    monkeypatch.setattr("notifier.features.spool.spool_state.MAX_FOLDER_BYTES", 8192)
    async with running(tmp_path, queue) as rig:
        queue.up = False
        assert [await rig.send(each) for each in ("e1", "e2", "e3")] == [[True], [True], [False]]
        assert await rig.send("o1", sender="other") == [True]
        assert rig.counts() == {"written": 3, "full": 1}
        assert rig.spool.has_room()
        assert [trouble.text.partition("; ")[2] for trouble in rig.spool.troubles()] == [
            "no room for further ones of op, which get 503"
        ]
        assert await rig.send("o2", sender="other") == [True]
        assert not rig.spool.has_room()  # another worker may have room


async def test_a_folder_that_cannot_be_written_is_a_problem_and_not_the_end(tmp_path: Path, queue: Queue) -> None:
    """Senders get their 503, and the queue's messages go on; it is used again once it is right."""
    root = tmp_path / "spool"
    async with running(root, queue) as rig:
        for file in root.iterdir():
            file.unlink()
        root.rmdir()
        root.write_text("a file is in the way")
        queue.up = False
        assert await rig.send("e1") == [False]
        assert (rig.troubles(), rig.spool.has_room()) == ([TroubleKind.SPOOL_FAILING], False)
        queue.up = True
        assert await rig.send("e1") == [True]
        queue.up = False
        root.unlink()
        assert await rig.send("e2") == [True]
        assert rig.spool.has_room()


@pytest.mark.parametrize("reason", ["256 MiB together", "has no locks", "belongs to another user"])
async def test_the_reason_of_a_folder_that_cannot_be_used_is_shown(
    tmp_path: Path, queue: Queue, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    """In the problem, and in the log, as the runbook lists it."""
    with capture_logs() as logs:
        async with running(tmp_path, queue) as rig:
            await holds(lambda: bool(names(tmp_path)))
            await asyncio.sleep(0.1)
            queue.up = False
            if reason.startswith("256"):
                with (tmp_path / "large.corrupt").open("w") as file:
                    file.truncate(256 * 1024**2)
            else:
                (tmp_path / names(tmp_path)[0]).unlink()
                if reason.endswith("locks"):
                    monkeypatch.setattr("fcntl.flock", refuse_lock)
                else:
                    monkeypatch.setattr(os, "geteuid", lambda: 12345)
            assert await rig.send("e1") == [False]
            assert reason in next(trouble.text for trouble in rig.spool.troubles())
            monkeypatch.undo()
    assert any(reason in line["reason"] for line in logs if line["event"] == "spool_failing")


async def test_a_file_system_that_hangs_holds_a_sender_until_its_deadline(
    tmp_path: Path, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the event loop, and not those that the queue confirms."""
    monkeypatch.setattr("notifier.features.spool.spool_files.PATIENCE_SECONDS", 0.2)
    async with running(tmp_path, queue) as rig:
        await holds(lambda: bool(names(tmp_path)))
        await asyncio.sleep(0.1)
        pipe, other_end = os.pipe()
        monkeypatch.setattr(os, "fsync", lambda _file: os.read(pipe, 1))
        queue.up = False
        assert await rig.send("e1", "e2", within=1.5) == [False, False]
        assert rig.troubles() == [TroubleKind.SPOOL_FAILING]
        queue.up = True
        assert await rig.send("e3") == [True]
        monkeypatch.undo()
        os.write(other_end, b"xx")
        await holds(lambda: TroubleKind.SPOOL_FAILING not in rig.troubles())
        await holds(lambda: sorted(queue.ids) == ["e1", "e2", "e3"])  # durable after all
        os.close(pipe)
        os.close(other_end)


async def test_a_damaged_line_is_found_when_it_is_published(tmp_path: Path, queue: Queue) -> None:
    """The others are, and the file is kept."""
    async with running(tmp_path, queue) as rig:
        queue.up = False
        await rig.send("e1")
        await rig.send("e2")
        [name] = names(tmp_path)
        file = tmp_path / name
        file.write_bytes(file.read_bytes().replace(b'"id":"e1"', b'"id":"f1"'))
        queue.up = True
        await holds(lambda: queue.ids == ["e2"])
        assert rig.troubles() == [TroubleKind.SPOOL_FAILING]
        assert len(names(tmp_path, ".corrupt")) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders away")
async def test_a_worker_does_not_start_with_the_folder_of_another_user(tmp_path: Path, queue: Queue) -> None:
    """The error names the setting, the owner and the remedy."""
    for folder in (tmp_path / "spool", tmp_path / "spool" / "notifier"):
        folder.mkdir()
        os.chown(folder, 12345, 12345)
    with pytest.raises(ConfigurationError, match=r"spool\.folder: .* belongs to another user \(12345"):
        async with running(tmp_path / "spool", queue):
            pass


@pytest.mark.parametrize("leads_to", ["missing", "spool", "file"])
@pytest.mark.parametrize("in_open_folder", [False, True])
async def test_a_worker_does_not_start_with_a_link_in_place_of_the_folder(
    tmp_path: Path, queue: Queue, leads_to: str, in_open_folder: bool
) -> None:
    """A link that leads to no folder. The error names the setting and the remedy, not "too many levels"."""
    link = root = tmp_path / "spool"
    if in_open_folder:
        root.mkdir()
        root.chmod(0o777)
        link = root / "notifier"
    (tmp_path / "file").touch()
    link.symlink_to(link if leads_to == "spool" else tmp_path / leads_to)
    with pytest.raises(ConfigurationError, match=r"spool\.folder: .* is a .*link.*; name a folder of this user"):
        async with running(root, queue):
            pass


async def test_a_worker_does_not_start_on_a_file_system_without_locks(
    tmp_path: Path, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers would publish the same entries."""
    monkeypatch.setattr("fcntl.flock", refuse_lock)
    with pytest.raises(ConfigurationError, match="its file system has no locks"):
        async with running(tmp_path, queue):
            pass


@pytest.mark.parametrize(("took", "rest"), [(0.0, 0.032), (0.02, 0.012), (0.1, 0.0)])
def test_the_rate_of_publishing_is_bounded(took: float, rest: float) -> None:
    """500 a second, and a slow confirm is not followed by a rest. A batch is smaller than the window of one queue."""
    assert rest_seconds(MAX_BATCH, took) == pytest.approx(rest)
    assert MAX_BATCH < 32
