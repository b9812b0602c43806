"""`notifier topology` on a real broker: it shows, declares what is missing, and deletes only what it may."""

import asyncio
import json
from pathlib import Path

import aio_pika

from tests.cli.in_process import notifier
from tests.support.rabbit_options import BUCKETS

EVENT = json.dumps({"iss": "https://id.example.com", "sub": "alice", "clients": ["shop"]})


def test_what_is_declared_is_shown_and_goes(amqp_url: str, bare_prefix: str, tmp_path: Path) -> None:
    """Missing, then standing, then deleted; deleting asks, and where nobody can be asked it wants `--yes`."""
    prefix = bare_prefix
    settings = {"NOTIFIER_QUEUE__URL": amqp_url, "NOTIFIER_QUEUE__PREFIX": prefix}

    def states() -> set[str]:
        shown = json.loads(notifier("topology", "show", "--json", cwd=tmp_path, settings=settings).stdout)
        assert len(shown) == 24 + BUCKETS
        return {each["state"] for each in shown}

    assert states() == {"missing"}
    declared = notifier("topology", "declare", cwd=tmp_path, settings=settings)
    assert (declared.returncode, declared.stdout) == (0, f"all queues and exchanges under {prefix} are declared\n")
    assert (
        declared.stderr
        == f"{21 + BUCKETS} new queues: waiting 2 s until RabbitMQ has written their names to its disk\n"
    )
    assert states() == {"ok"}
    assert notifier("topology", "declare", cwd=tmp_path, settings=settings).stderr == ""
    table = notifier("topology", "show", cwd=tmp_path, settings=settings).stdout
    assert f"{prefix}.delay.65536s" in table
    assert f"{prefix}.parked-00.delay.1024s … ({BUCKETS} buckets)" in table
    assert f"{prefix}.parked-01" not in table
    assert "x-message-ttl=65536000" in table
    assert notifier("topology", "delete", cwd=tmp_path, settings=settings).returncode == 2
    deleted = notifier("topology", "delete", "--yes", cwd=tmp_path, settings=settings)
    assert (deleted.returncode, deleted.stdout) == (0, f"deleted {24 + BUCKETS} queues and exchanges under {prefix}\n")
    assert states() == {"missing"}


def test_messages_go_only_by_name(amqp_url: str, prefix: str, tmp_path: Path) -> None:
    """A queue that holds a message is named and kept, until `--force` names the prefix."""
    settings = {"NOTIFIER_QUEUE__URL": amqp_url, "NOTIFIER_QUEUE__PREFIX": prefix}
    assert notifier("publish", cwd=tmp_path, stdin=EVENT, settings=settings).returncode == 0
    refused = notifier("topology", "delete", "--yes", cwd=tmp_path, settings=settings)
    assert refused.returncode == 1
    assert f"{prefix}.events holds 1 message\n" in refused.stderr
    words = ("topology", "delete", "--yes", "--force")
    assert notifier(*words, "another", cwd=tmp_path, settings=settings).returncode == 2
    deleted = notifier(*words, prefix, cwd=tmp_path, settings=settings)
    assert deleted.returncode == 0
    assert "and 1 message with them" in deleted.stdout


async def _declare_otherwise(url: str, name: str) -> None:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        await channel.queue_delete(name)
        await channel.declare_queue(name, durable=True, arguments={"x-queue-type": "quorum", "x-delivery-limit": 7})


def test_another_queue_of_the_name_is_told(amqp_url: str, prefix: str, tmp_path: Path) -> None:
    """`show` says what differs, `declare` fails by it, both with the two values."""
    settings = {"NOTIFIER_QUEUE__URL": amqp_url, "NOTIFIER_QUEUE__PREFIX": prefix}
    asyncio.run(_declare_otherwise(amqp_url, f"{prefix}.dead"))
    shown = json.loads(notifier("topology", "show", "--json", cwd=tmp_path, settings=settings).stdout)
    (different,) = [each for each in shown if each["state"] == "different"]
    assert different["name"] == f"{prefix}.dead"
    declared = notifier("topology", "declare", cwd=tmp_path, settings=settings)
    assert declared.returncode == 1
    for text in (different["difference"], declared.stderr):
        assert "'7'" in text
        assert "'2147483647'" in text


def test_the_embedded_queue_has_no_topology(tmp_path: Path) -> None:
    """That is said, and nothing is done."""
    for words in (("show",), ("declare",), ("delete", "--yes")):
        done = notifier("topology", *words, cwd=tmp_path, settings={"NOTIFIER_QUEUE__URL": "sqlite:q.db"})
        assert done.returncode == 0
        assert "it has no topology" in done.stderr
    assert not list(tmp_path.iterdir())
