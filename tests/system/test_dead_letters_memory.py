"""Looking at dead letters holds no more of them than is asked, however large they are."""

import subprocess
import sys
from pathlib import Path

import pytest

from notifier.model.documents.dead_letter import bury_raw, dump_dead_letter
from notifier.model.documents.unreadable import RAW_BYTES
from notifier.model.message import DEAD, Lane, Message, Outgoing
from notifier.queues.rabbitmq.queue import RabbitQueue
from notifier.queues.sqlite import SqliteOptions, SqliteQueue
from tests.support.rabbit_options import rabbit_options
from tests.system.command import PATIENCE, command, environment

pytestmark = pytest.mark.full
LETTERS, SIZE = 150, RAW_BYTES
MOST = 150  # MiB of the process; its code alone takes 60
# The memory of a child is that of its parent, until it runs its own program: so there is a small one in between.
MEASURED = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
"""


def letter(number: int) -> Outgoing:
    """Of a message that nobody can read."""
    message = Message(lane=Lane.EVENTS, body=b"x" * SIZE, tag=None, message_id=f"l{number}")
    return dump_dead_letter(bury_raw(message, (), 0.0))


def measured(url: str, prefix: str, *arguments: str) -> tuple[int, int]:
    """Its exit code, and the MiB that it took at most."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *command(["dead-letters", *arguments])],
        env=environment({"NOTIFIER_QUEUE__URL": url, "NOTIFIER_QUEUE__PREFIX": prefix}),
        capture_output=True, timeout=PATIENCE, check=True,
    )  # fmt: skip
    code, size = map(int, done.stdout.split())
    return code, size


@pytest.mark.timeout(300)
async def test_150_letters_of_1_mib_take_little_memory(place: tuple[str, str], tmp_path: Path) -> None:
    """To count them, and to export all."""
    queue: RabbitQueue | SqliteQueue
    url, prefix = place
    if url.startswith("sqlite:"):
        queue = SqliteQueue(SqliteOptions(path=Path(url.removeprefix("sqlite:"))))
    else:
        queue = RabbitQueue(rabbit_options(url, prefix))
    await queue.open()
    await queue.ready()
    for number in range(LETTERS):
        await queue.publish(DEAD, letter(number))
    await queue.close()
    took = {
        "list": measured(url, prefix, "list"),
        "export": measured(url, prefix, "export", str(tmp_path / "bad.jsonl")),
    }
    assert {name: code for name, (code, _) in took.items()} == dict.fromkeys(took, 0)
    assert {name: size for name, (_, size) in took.items() if size >= MOST} == {}
    assert len((tmp_path / "bad.jsonl").read_bytes().splitlines()) == LETTERS
