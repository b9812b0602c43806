"""Test `notifier status` without a queue, configuration or broker."""

import socket
import time
from pathlib import Path

from tests.cli.in_process import notifier


def test_missing_queue_file_is_reported(tmp_path: Path) -> None:
    """The command creates no file."""
    done = notifier("status", cwd=tmp_path, settings={"NOTIFIER_QUEUE__URL": "sqlite:q.db"})
    assert done.returncode == 1
    assert "there is no queue file" in done.stderr
    assert not list(tmp_path.iterdir())


def test_missing_configuration_names_the_remedy(tmp_path: Path) -> None:
    """It prints the path that it tried."""
    done = notifier("status", cwd=tmp_path)
    assert done.returncode == 2
    assert all(word in done.stderr for word in (str(tmp_path / "notifier.db"), "-c FILE", "NOTIFIER_CONFIG"))
    assert not list(tmp_path.iterdir())


def test_unreachable_broker_is_reported(tmp_path: Path) -> None:
    """Exit 1 with the remedy within 2 s."""
    done = notifier("status", cwd=tmp_path, settings={"NOTIFIER_QUEUE__URL": "amqp://127.0.0.1:1/"})
    assert done.returncode == 1
    assert done.stderr.startswith("notifier: 127.0.0.1:1")
    assert "notifier explain NotifierQueueDisconnected" in done.stderr
    assert "GET /v1/status" in done.stderr


def test_silent_broker_is_reported_within_two_seconds(tmp_path: Path) -> None:
    """It accepts the connection and sends nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"amqp://127.0.0.1:{silent.getsockname()[1]}/"
        began = time.monotonic()
        done = notifier("status", cwd=tmp_path, settings={"NOTIFIER_QUEUE__URL": url})
        assert time.monotonic() - began < 2
    assert done.returncode == 1
    assert "did not answer within 1.2 s" in done.stderr
