"""`notifier collect` where it can take nothing."""

import sqlite3
from contextlib import closing
from pathlib import Path

from tests.cli.in_process import notifier


def test_the_embedded_queue_needs_none(tmp_path: Path) -> None:
    """That is said."""
    done = notifier("collect", cwd=tmp_path, settings={"NOTIFIER_QUEUE__URL": "sqlite:q.db"})
    assert done.returncode == 2
    assert "run notifier report" in done.stderr


def test_a_file_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    """Another program's, or that of an embedded queue."""
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE theirs (a)")
    before = path.read_bytes()
    done = notifier("collect", "--file", path, cwd=tmp_path, settings={"NOTIFIER_QUEUE__URL": "amqp://127.0.0.1:1/"})
    assert done.returncode == 1
    assert "not a file of outcomes" in done.stderr
    assert path.read_bytes() == before
