"""The publisher for threads, in a process that forks and in a process that ends."""

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from logout_notifier_publisher import BlockingPublisher, SessionEnded, SettingsError

from publishers.tests.python.harness import ISSUER, PATIENCE, Queue, files, settings

SCRIPT = """
import logging, os, sys
from logout_notifier_publisher import BlockingPublisher, PublisherSettings, SessionEnded

logging.basicConfig(level=logging.INFO)
url, outbox, prefix = sys.argv[1:]
own = PublisherSettings(url=url, outbox=outbox, exchange=f"{prefix}.events", bulk_exchange=f"{prefix}.bulk")
publisher = BlockingPublisher(own, alive=lambda session: True)

def sign_out(sid):
    ended = SessionEnded(iss="https://id.example.com", sub="u", sid=sid, clients="*")
    with publisher.publishing(ended, session=sid):
        pass

sign_out("parent")
child = os.fork()
sign_out("child" if child == 0 else "parent again")
if child:
    assert os.waitpid(child, 0)[1] == 0
"""


async def test_a_fork_and_the_interpreters_end(amqp_url: str, queue: Queue, tmp_path: Path) -> None:
    """The child has its own thread and folder. Either publishes its events before it ends, without log lines."""
    done = subprocess.run(  # noqa: ASYNC221  nothing else happens meanwhile
        [sys.executable, "-c", SCRIPT, amqp_url, str(tmp_path), queue.prefix],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, "Traceback" in done.stderr, "ERROR" in done.stderr) == (0, False, False), done.stderr
    await queue.until(3)
    assert {event["sid"] for event in queue.events} == {"parent", "parent again", "child"}
    assert {folder.name for folder in tmp_path.iterdir()} == {"0", "1"}  # noqa: ASYNC240  a test's folder
    assert not files(tmp_path)


def test_its_methods(tmp_path: Path) -> None:
    """As those of the other, for threads: what is discarded is gone, what raises is raised."""
    own = settings("amqp://guest:guest@127.0.0.1:1", tmp_path, drain_limit=0.01)
    ended = SessionEnded(iss=ISSUER, sub="u", clients="*")
    with BlockingPublisher(own) as publisher:
        publisher.prepare(ended, session="a").discard()
        with pytest.raises(KeyError), publisher.publishing(ended, session="b"):
            raise KeyError
        assert publisher.publish(ended, bulk=True)
        with publisher.publishing(SessionEnded(iss="", clients=[])) as invalid:
            assert invalid.id is None
        with pytest.raises(ValueError, match=r"iss: must not be empty.*clients.*sub"):
            publisher.publish(SessionEnded(iss="", clients=[]))
        state = publisher.state
        assert (state.written, state.waiting, state.lost) == (3, 1, 1)
    assert len(files(tmp_path, "-bulk.json")) == 1
    assert publisher.state.written == 0
    with pytest.raises(SettingsError):
        BlockingPublisher(settings("redis://x", tmp_path))


async def test_a_starved_thread_delays_no_sign_out(
    amqp_url: str, queue: Queue, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """After a second more than the limit it goes on, and not when the thread does. The event follows, if it is gone."""
    alive = {"lives"}
    own = settings(amqp_url, tmp_path, queue.prefix, sign_out_limit=0.1)
    with BlockingPublisher(own, alive=lambda session: session in alive) as publisher:
        publisher.start()
        running: Any = publisher._running
        for session in ("gone", "lives"):
            goes_on = threading.Event()
            running._loop.call_soon_threadsafe(goes_on.wait, PATIENCE)
            before = time.monotonic()
            with publisher.publishing(SessionEnded(iss=ISSUER, sub="u", sid=session, clients="*"), session=session):
                assert 1 < time.monotonic() - before < PATIENCE
                goes_on.set()
        await queue.until(1)
    assert [event["sid"] for event in queue.events] == ["gone"]
    assert len(files(tmp_path, ".pending")) == 1
    assert "uWSGI needs enable-threads" in caplog.text
