"""`notifier status` where there is nothing to ask."""

import socket
import time
from pathlib import Path

from tests.cli.in_process import notifier


def test_without_a_file_there_is_nothing_to_show(tmp_path: Path) -> None:
    """Looking makes none."""
    done = notifier("status", cwd=tmp_path, settings={"NOTIFIER_QUEUE__URL": "sqlite:q.db"})
    assert done.returncode == 1
    assert "there is no queue file" in done.stderr
    assert not list(tmp_path.iterdir())


def test_without_a_configuration_it_says_how_to_name_one(tmp_path: Path) -> None:
    """And which file it looked for."""
    done = notifier("status", cwd=tmp_path)
    assert done.returncode == 2
    assert all(word in done.stderr for word in (str(tmp_path / "notifier.db"), "-c FILE", "NOTIFIER_CONFIG"))
    assert not list(tmp_path.iterdir())


def test_a_broker_that_is_away_is_told(tmp_path: Path) -> None:
    """Exit 1, with what to do, within 2 s; also by a broker that is silent."""
    done = notifier("status", cwd=tmp_path, settings={"NOTIFIER_QUEUE__URL": "amqp://127.0.0.1:1/"})
    assert done.returncode == 1
    assert done.stderr.startswith("notifier: 127.0.0.1:1")
    assert "notifier explain NotifierQueueDisconnected" in done.stderr
    assert "GET /v1/status" in done.stderr


def test_a_broker_that_is_silent_is_told_within_two_seconds(tmp_path: Path) -> None:
    """It takes the connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"amqp://127.0.0.1:{silent.getsockname()[1]}/"
        began = time.monotonic()
        done = notifier("status", cwd=tmp_path, settings={"NOTIFIER_QUEUE__URL": url})
        assert time.monotonic() - began < 2
    assert done.returncode == 1
    assert "did not answer within 1.2 s" in done.stderr
