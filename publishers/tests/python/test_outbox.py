"""Events in edge cases: left over, too many, too large, cancelled, on a disk that fails or hangs."""

import asyncio
import logging
import shutil
import threading
import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import logout_notifier_publisher
import pytest
from logout_notifier_publisher import (
    BlockingPublisher,
    Client,
    EventMistake,
    PreparedEvent,
    Publisher,
    SettingsError,
    outbox_files,
    pending_events,
    prepared_events,
)
from logout_notifier_publisher import event_publisher as of_publisher
from logout_notifier_publisher.lane import Lane
from logout_notifier_publisher.session_ended import build_events

from publishers.tests.python.harness import Queue, ended, files, settings, until

AWAY = "amqp://guest:guest@127.0.0.1:1"


async def left(outbox: Path, prefix: str, *sessions: object) -> list[str | None]:
    """Have a process die amid the sign-outs of these sessions; the ids of their events."""
    publisher = Publisher(settings(AWAY, outbox, prefix, drain_limit=0.01))
    async with publisher:
        made = [await publisher.prepare(ended(str(session)), session=session) for session in sessions]
    assert len(files(outbox, ".pending")) == len(sessions)
    return [each.id for each in made]


async def test_events_of_a_dead_process_are_published_if_the_session_is_gone(
    amqp_url: str, queue: Queue, tmp_path: Path
) -> None:
    """It is dropped if the session lives, by two queries: a deletion may be in progress. An error repeats the query;
    without a store the event is published."""
    ids = await left(tmp_path, queue.prefix, "gone", "lives", "away", None, "going")
    asked: list[object] = []

    async def alive(session: object) -> bool:
        asked.append(session)
        if session == "away" and asked.count("away") < 3:
            raise ConnectionError("the store is unavailable")
        return session == "lives" or (session == "going" and asked.count("going") == 1)

    async with Publisher(settings(amqp_url, tmp_path, queue.prefix), alive=alive) as publisher:
        await queue.until(4)
        await until(lambda: not files(tmp_path), lambda: files(tmp_path))
        assert publisher.state.waiting == 0
    assert set(queue.ids) == {*ids} - {ids[1]}
    assert (asked.count("away"), asked.count("lives")) == (3, 2)


async def test_the_log_names_no_file_of_the_session_store(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whose name may be the key of a session."""

    def alive(session: object) -> bool:
        return (tmp_path / f"sess_{session}").stat().st_size > 0

    async with Publisher(settings(AWAY, tmp_path / "outbox", "any", drain_limit=0.01), alive=alive) as publisher:
        (await publisher.prepare(ended("alice"), session="KEY")).publish_or_discard()
        await until(lambda: "does not answer whether" in caplog.text, lambda: caplog.text)
    assert "exists (No such file or directory)" in caplog.text
    assert "KEY" not in caplog.text


@pytest.mark.full
async def test_a_failing_block_queries_the_store(amqp_url: str, queue: Queue, tmp_path: Path) -> None:
    """A deletion that raised or was cancelled may have happened."""
    gone = {"deleted"}

    async def alive(session: object) -> bool:
        return session not in gone

    async def sign_out(session: str, error: BaseException) -> None:
        async with publisher.publishing(ended(session), session=session):
            raise error

    async with Publisher(settings(amqp_url, tmp_path, queue.prefix), alive=alive) as publisher:
        for session in ("deleted", "lives"):
            for error in (ConnectionError(), asyncio.CancelledError()):
                with pytest.raises(type(error)):
                    await sign_out(session, error)
        await queue.until(1)
        await until(lambda: not files(tmp_path))
        assert {event["sid"] for event in queue.events} == {"deleted"}
    async with Publisher(settings(amqp_url, tmp_path, queue.prefix)) as publisher:
        with pytest.raises(asyncio.CancelledError):
            await sign_out("nobody knows", asyncio.CancelledError())
        await queue.until(2)


async def test_a_late_answer_does_not_count_as_the_second(tmp_path: Path, queue: Queue) -> None:
    """It has the state of the store at the time of the query: a deletion in progress would be lost."""
    asked: list[object] = []

    async def slow(session: object) -> bool:
        asked.append(session)
        if len(asked) == 1:
            await asyncio.sleep(0.3)  # longer than the patience of the lookup
        return len(asked) == 1

    async with Publisher(settings(AWAY, tmp_path, queue.prefix, drain_limit=0.01), alive=slow) as publisher:
        prepared = await publisher.prepare(ended("going"), session="going")
        prepared.publish_or_discard(patience=0.2)
        await until(lambda: len(asked) == 2 or not files(tmp_path))
        await until(lambda: not files(tmp_path, ".pending"))
        assert len(files(tmp_path)) == 1


async def test_a_caller_that_is_cancelled_loses_nothing(amqp_url: str, queue: Queue, tmp_path: Path) -> None:
    """The event of a session that has ended is kept. Before a deletion, which does not come, it is discarded."""
    async with Publisher(settings(amqp_url, tmp_path, queue.prefix)) as publisher:
        publishing = asyncio.create_task(publisher.publish(ended("published")))
        preparing = asyncio.create_task(publisher.prepare(ended("discarded"), session="x"))
        await asyncio.sleep(0)
        for task in (publishing, preparing):
            task.cancel()
        await asyncio.wait({publishing, preparing})
        assert publishing.cancelled()
        await queue.until(1)
        await until(lambda: not files(tmp_path))
    assert [event["sid"] for event in queue.events] == ["published"]


async def test_a_large_event_becomes_several(amqp_url: str, queue: Queue, tmp_path: Path) -> None:
    """Each of at most 128 KiB, with its own id and a part of the clients. They are one session end."""
    clients = [Client(f"client-{n}", f"https://client-{n}.example.com/logout") for n in range(4000)]
    async with Publisher(settings(amqp_url, tmp_path, queue.prefix)) as publisher:
        async with publisher.publishing(ended(clients=clients), session="key"):
            parts = len(files(tmp_path, ".pending"))
        await queue.until(parts)
    assert parts == 3
    assert len(set(queue.ids)) == parts
    assert max(message.size for message in queue.came.seen) <= 128 * 1024
    named = [client["client_id"] for event in queue.events for client in event["clients"]]
    assert sorted(named) == sorted(client.client_id for client in clients)


def test_a_double_click_is_one_session_end() -> None:
    """Two processes derive one id, of the session and its clients; where no store is asked, within ten seconds."""

    def event_id(now: float, session: str = "key", *, looked_up: bool = True, **more: Any) -> str:
        return build_events(ended(**more), now=now, session=session, looked_up=looked_up)[0].id

    assert event_id(1000.0) == event_id(1500.0)
    assert len({event_id(1000.0), event_id(1000.0, "other"), event_id(1000.0, clients=["mail"])}) == 3
    assert event_id(1000.0, looked_up=False) == event_id(1009.0, looked_up=False)
    assert event_id(1000.0, looked_up=False) != event_id(1010.0, looked_up=False)
    assert event_id(1000.0, id="mine") == "mine"
    assert build_events(ended(), now=1.0)[0].id != build_events(ended(), now=1.0)[0].id


async def test_full_outbox_then_full_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond its limit events are in memory; beyond a limit there they are lost. No sign-out fails; each is logged."""
    assert pending_events.MAX_IN_MEMORY == 10_000
    monkeypatch.setattr(pending_events, "MAX_IN_MEMORY", 500)
    async with Publisher(settings(AWAY, tmp_path, outbox_max_events=2, drain_limit=0.01)) as publisher:
        for number in range(510):
            async with publisher.publishing(ended(f"secret-{number}")):
                pass
        state = publisher.state
        assert (state.waiting, state.waiting_in_memory, state.lost) == (502, 500, 8)
        assert await publisher.publish(ended("lost", id="its id")) == "its id"
        assert publisher.state.lost == 9
        assert len(files(tmp_path)) == 2
    lines = [record.getMessage() for record in caplog.records]
    assert any("is only in memory" in line and "it is full" in line for line in lines)
    assert any(" is LOST: " in line for line in lines)
    assert any("500 events are LOST" in line for line in lines)
    assert not [line for line in lines if "secret-" in line]
    assert len(lines) < 20


async def test_a_deleted_folder_is_made_again(
    amqp_url: str, queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events go to memory and are published from there; a new folder is made at the next look."""
    monkeypatch.setattr(of_publisher, "MAINTENANCE_INTERVAL_SECONDS", 0.05)
    outbox = tmp_path / "outbox"
    async with Publisher(settings(amqp_url, outbox, queue.prefix)) as publisher:
        shutil.rmtree(outbox)
        await publisher.publish(ended("a"))
        await queue.until(1)
        await until((outbox / "0" / "lock").exists)
        while publisher.state.written == 0:
            await publisher.publish(ended("b"))
        await queue.until(2)


async def test_a_folder_opened_to_the_pods_group_is_taken_over(amqp_url: str, queue: Queue, tmp_path: Path) -> None:
    """With `fsGroup` it does so at each start."""
    events = await left(tmp_path, queue.prefix, None)
    (tmp_path / "0").chmod(0o2770)
    async with Publisher(settings(amqp_url, tmp_path, queue.prefix)):
        await queue.until(1)
    assert queue.ids == events


async def test_a_hanging_disk_delays_no_sign_out(
    amqp_url: str, queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the limit it goes on, and the event is published from memory; its file goes once the disk answers."""
    goes_on, write = threading.Event(), outbox_files.write

    def hangs(*arguments: Any) -> Path:
        goes_on.wait(20)
        return write(*arguments)

    monkeypatch.setattr(outbox_files, "write", hangs)
    async with Publisher(settings(amqp_url, tmp_path, queue.prefix, sign_out_limit=0.3)) as publisher:
        before = time.monotonic()
        async with publisher.publishing(ended("a"), session="a"):
            assert time.monotonic() - before < 15  # the disk hangs for 20
        await queue.until(1)
        async with publisher.publishing(ended("b"), session="b") as prepared:
            prepared.discard()
        goes_on.set()
        await until(lambda: publisher.state.waiting == 0 and not files(tmp_path), lambda: files(tmp_path))
    assert [event["sid"] for event in queue.events] == ["a"]


def test_the_last_moment_there_is() -> None:
    """In UTC it can be written, to the microsecond; in New York it is of the year 10,000."""
    last = datetime.max.replace(tzinfo=UTC)
    (part,) = build_events(ended(not_after=last), now=1.0)
    assert part.event["not_after"] == "9999-12-31T23:59:59.999999Z"
    with pytest.raises(EventMistake, match="must be of the years 1 to 9999"):
        build_events(ended(not_after=last.replace(tzinfo=timezone(timedelta(hours=-5)))), now=1.0)


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        ({"clients": [Client("")]}, "clients[0]"),
        ({"clients": 7}, "clients"),
        ({"sub": 7}, "sub"),
        ({"ended_at": "yesterday"}, "ended_at"),
        ({"clients": [{"client_id": object()}]}, "cannot be written"),
        ({"clients": [Client("shop", "ftp://x")]}, "clients[0].backchannel_logout_uri"),
        ({"id": "x" * 256}, "id"),
        ({"sid": "\ud800"}, "cannot be written"),
    ],
)
def test_mistakes_name_their_place(wrong: dict[str, Any], place: str) -> None:
    """At once, and not at the worker."""
    with pytest.raises(EventMistake) as caught:
        build_events(ended(**wrong), now=time.time())
    assert any(mistake.startswith(place) for mistake in caught.value.mistakes), caught.value.mistakes


async def test_an_outbox_of_the_former_names_is_taken_over(
    amqp_url: str, queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`former_outbox` was written before the names of classes and settings changed."""
    monkeypatch.setattr(prepared_events, "DELETION_TIMEOUT_SECONDS", 0.2)
    shutil.copytree(Path(__file__).with_name("former_outbox"), tmp_path / "0")
    (tmp_path / "0").chmod(0o700)

    def alive(session: object) -> bool:
        return session == {"key": "lives"}

    own = settings(amqp_url, tmp_path, queue.prefix, outbox_max_age=1e9)
    async with Publisher(own, alive=alive):
        await queue.until(3)
        await until(lambda: not files(tmp_path), lambda: files(tmp_path))
    assert {each.event["sid"]: each.lane for each in queue.came.seen} == {
        "ended": "events", "mass": "bulk", "gone": "events"
    }  # fmt: skip


async def test_former_names_still_work(tmp_path: Path) -> None:
    """Each with a warning that has the new name."""
    with pytest.warns(DeprecationWarning, match="`PreparedEvent`"):
        assert logout_notifier_publisher.Ending is PreparedEvent
    with pytest.warns(DeprecationWarning, match="`SettingsError`"):
        assert logout_notifier_publisher.SettingsMistake is SettingsError
    configured = settings(AWAY, tmp_path)
    with pytest.warns(DeprecationWarning, match="`outbox_folder`"):
        assert configured.folder == configured.outbox_folder
    with pytest.warns(DeprecationWarning, match="`find_mistakes`"):
        assert configured.mistakes() == []
    with pytest.warns(DeprecationWarning, match="`create_tls_context`"):
        assert configured.tls_context()
    async with Publisher(settings(AWAY, tmp_path, drain_limit=0.01)) as publisher:
        with pytest.warns(DeprecationWarning, match="`publishing`"):
            async with publisher.ending(ended("a")) as prepared:
                assert len(files(tmp_path, ".pending")) == 1
        with pytest.warns(DeprecationWarning, match="`publish`"):
            prepared.settle()
        for former, name in (
            ("ask", "publish_or_discard"),
            ("look_up", "publish_or_discard"),
            ("withdraw", "discard"),
        ):
            other = await publisher.prepare(ended("b"), session=former)
            with pytest.warns(DeprecationWarning, match=f"`{name}`"):
                getattr(other, former)()
        await until(lambda: not files(tmp_path, ".pending"))
        assert len(files(tmp_path, ".json")) == 3
    with BlockingPublisher(settings(AWAY, tmp_path, drain_limit=0.01)) as blocking:
        with pytest.warns(DeprecationWarning, match="`publishing`"), blocking.ending(ended("c")) as third:
            pass
        for former in ("settle", "ask", "look_up", "withdraw"):
            with pytest.warns(DeprecationWarning, match=f"`{former}` is deprecated"):
                getattr(third, former)()


async def test_a_hanging_disk_delays_a_mass_logout_by_one_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not each of its sessions by one. The events are on disk once it answers."""
    goes_on, write = threading.Event(), outbox_files.write

    def hangs(*arguments: Any) -> Path:
        goes_on.wait(60)
        return write(*arguments)

    monkeypatch.setattr(outbox_files, "write", hangs)
    async with Publisher(settings(AWAY, tmp_path, sign_out_limit=0.5, drain_limit=0.01)) as publisher:
        before = time.monotonic()
        for number in range(100):
            async with publisher.publishing(ended(str(number)), session=number, bulk=True):
                pass
        assert time.monotonic() - before < 10  # with a limit for each: 50
        assert publisher.state.waiting_in_memory == 100
        goes_on.set()
        await until(lambda: publisher.state.waiting_in_memory == 0)
        await until(lambda: len(files(tmp_path, "-bulk.json")) == 100)


async def test_an_unreadable_folder_is_read_again(
    amqp_url: str, queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its events are published then, without a restart."""
    ids = await left(tmp_path, queue.prefix, "a", "b")
    monkeypatch.setattr(of_publisher, "MAINTENANCE_INTERVAL_SECONDS", 0.05)
    failures, list_events = iter(range(3)), outbox_files.list_events

    def fails(folder: Path) -> list[outbox_files.EventFile]:
        if next(failures, None) is not None:
            raise PermissionError(13, "Permission denied")
        return list_events(folder)

    monkeypatch.setattr(outbox_files, "list_events", fails)
    async with Publisher(settings(amqp_url, tmp_path, queue.prefix)):
        await queue.until(2)
        await until(lambda: not files(tmp_path))
    assert {*queue.ids} == {*ids}
    assert "cannot be used: Permission denied" in caplog.text


async def test_a_connection_that_cannot_be_closed_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Events that were only in memory are on disk after the stop."""
    monkeypatch.setattr(of_publisher, "TRANSPORT_CLOSE_TIMEOUT_SECONDS", 0.1)
    publisher = Publisher(settings(AWAY, tmp_path, outbox_max_events=1, drain_limit=0.01))
    async with publisher:
        for sid in ("a", "b"):
            await publisher.publish(ended(sid))
        assert publisher.state.waiting_in_memory == 1
        publisher._outbox._pending.max_events = 10

        async def hangs() -> None:
            await asyncio.sleep(3600)

        async def fails() -> None:
            raise ConnectionError

        for transport, closes in zip(publisher._transports.values(), (hangs, fails), strict=True):
            monkeypatch.setattr(transport, "close", closes)
    assert len(files(tmp_path, ".json")) == 2
    assert caplog.text.count("a connection could not be closed") == 2


async def test_a_log_handler_that_raises_ends_no_lane(amqp_url: str, queue: Queue, tmp_path: Path) -> None:
    """Nor does it stop a sign-out."""

    class Raises(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError(record)

    handler = Raises()
    logging.getLogger("notifier.publisher").addHandler(handler)
    try:
        async with Publisher(settings(AWAY, tmp_path, queue.prefix, drain_limit=0.01)) as publisher:
            async with publisher.publishing(ended("a")):
                pass
            await until(lambda: publisher.state.failures["unreachable"] >= 2)
        async with Publisher(settings(amqp_url, tmp_path, queue.prefix)):
            await queue.until(1)
    finally:
        logging.getLogger("notifier.publisher").removeHandler(handler)


async def test_an_event_in_memory_is_written_when_it_is_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As its log line says, although the outbox is full."""
    monkeypatch.setattr(of_publisher, "MAINTENANCE_INTERVAL_SECONDS", 0.05)
    own = settings(AWAY, tmp_path, outbox_max_events=1, outbox_max_age=0.5, drain_limit=0.01)
    async with Publisher(own) as publisher:
        for sid in ("on disk", "in memory"):
            await publisher.publish(ended(sid))
        assert publisher.state.waiting_in_memory == 1
        await until(lambda: len(files(tmp_path, ".expired")) == 2, lambda: files(tmp_path))
        assert (publisher.state.expired, publisher.state.waiting, publisher.state.lost) == (2, 0, 0)
        assert not publisher._outbox.has_ready(Lane.EVENTS)
    found = [outbox_files.decode(path.read_bytes()).event["sid"] for path in files(tmp_path)]
    assert found == ["on disk", "in memory"]


async def test_an_event_is_set_aside_while_its_write_hangs(
    amqp_url: str, queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its file is renamed once the disk responds, and not deleted. If the write fails, the log states it."""
    goes_on, write = threading.Event(), outbox_files.write

    def hangs(folder: Path, name: str, content: bytes, suffix: str) -> Path:
        goes_on.wait(20)
        if b"fails" in content:
            raise OSError(28, "No space left on device")
        return write(folder, name, content, suffix)

    monkeypatch.setattr(outbox_files, "write", hangs)
    async with Publisher(settings(AWAY, tmp_path, queue.prefix, sign_out_limit=0.1, drain_limit=0.01)) as publisher:
        for sid in ("written", "fails"):
            await publisher.publish(ended(sid, id=sid))
        for event in [*publisher._outbox._pending.by_name.values()]:
            publisher._outbox.set_aside(event, outbox_files.REFUSED, "it is invalid")
        goes_on.set()
        await until(lambda: files(tmp_path, ".refused") and "cannot be set aside" in caplog.text, lambda: caplog.text)
        assert (publisher.state.refused, publisher.state.waiting_in_memory) == (2, 0)
    assert len(files(tmp_path)) == 1
    assert "event fails cannot be set aside as" in caplog.text


async def test_an_event_without_its_file_is_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is counted, and logged with its id."""
    async with Publisher(settings(AWAY, tmp_path / "outbox", drain_limit=0.01)) as publisher:
        await publisher.publish(ended("a", id="removed"))
        shutil.rmtree(tmp_path / "outbox")
        await until(lambda: publisher.state.lost, lambda: caplog.text)
        assert (publisher.state.lost, publisher.state.waiting) == (1, 0)
    assert "event removed is LOST: its file " in caplog.text


async def test_an_event_that_is_published_during_a_scan_is_not_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be published again, or count as lost because its file is missing."""
    list_events, loop = outbox_files.list_events, asyncio.get_running_loop()
    async with Publisher(settings(AWAY, tmp_path, drain_limit=0.01)) as publisher:
        await publisher.publish(ended("a"))
        outbox = publisher._outbox
        [event] = outbox._pending.by_name.values()
        removed = threading.Event()

        def remove() -> None:
            outbox.remove(event)
            removed.set()

        def lists(folder: Path) -> list[outbox_files.EventFile]:
            found = list_events(folder)
            loop.call_soon_threadsafe(remove)
            assert removed.wait(20)
            return found

        monkeypatch.setattr(outbox_files, "list_events", lists)
        outbox._disk.needs_scan = True
        await outbox.claim_and_take_over()
        assert removed.is_set()
        assert len(outbox) == 0
