"""How the queue stands, of a real broker and of real files: nothing is changed by looking."""

from pathlib import Path

import pytest
from yarl import URL

from notifier.model.errors import QueueError
from notifier.queues.rabbitmq.examination import examine_broker
from notifier.queues.sqlite import SqliteOptions, SqliteQueue
from notifier.queues.sqlite.file import examine_file
from tests.support.rabbit_options import rabbit_options


async def test_refusing_or_unreachable_broker_is_reported(amqp_url: str) -> None:
    """In words, without the password."""
    refused = rabbit_options(str(URL(amqp_url).with_user("nobody").with_password("s3cret-9")))
    with pytest.raises(QueueError) as error:
        await examine_broker(refused)
    assert "s3cret" not in str(error.value)
    with pytest.raises(QueueError):
        await examine_broker(rabbit_options("amqp://127.0.0.1:1/"))


async def test_the_embedded_queue(tmp_path: Path) -> None:
    """Not there, there and in use, another program's, damaged, or in a folder that is missing."""
    path = tmp_path / "q.db"
    assert examine_file(path).size is None
    assert not path.exists()
    queue = SqliteQueue(SqliteOptions(path=path))
    await queue.open()
    await queue.wait_until_ready()
    state = examine_file(path)
    assert (state.fault, state.size is not None) == (None, True)
    await queue.close()
    assert not examine_file(path).worker
    path.write_bytes(b"something else" * 100)
    assert "not a SQLite file" in (examine_file(path).fault or "")
    assert "missing" in (examine_file(tmp_path / "no" / "q.db").fault or "")
