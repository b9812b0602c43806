"""Test `notifier publish` into both queues: all events are validated before the first is sent."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from notifier.model.message import Lane, Message
from notifier.queues.sqlite import SqliteOptions
from tests.cli.in_process import notifier
from tests.support import lane_looks
from tests.support.rabbit_options import rabbit_options
from tests.system.site import Site, client

ISS = "https://id.example.com"
EVENT = {"iss": ISS, "sub": "alice", "clients": ["shop"]}


def in_file(path: Path, lane: Lane = Lane.EVENTS) -> Sequence[Message]:
    """Return the messages of the embedded queue."""
    return asyncio.run(lane_looks.in_file(SqliteOptions(path=path), lane))


def in_broker(url: str, prefix: str, lane: Lane = Lane.EVENTS) -> Sequence[Message]:
    """Return the messages in RabbitMQ."""
    return asyncio.run(lane_looks.at_broker(rabbit_options(url, prefix), lane))


def test_event_over_many_lines_arrives_unchanged(tmp_path: Path) -> None:
    """As any publisher's message: without internal headers, and with an id, which is printed, as `message_id`."""
    written = json.dumps(EVENT, indent=2)
    done = notifier("publish", "--url", "sqlite:q.db", cwd=tmp_path, stdin=written + "\n")
    assert (done.returncode, done.stderr) == (0, "")
    (message,) = in_file(tmp_path / "q.db")
    assert message.body.decode() == written
    assert message.kind is None
    assert done.stdout == f"line 1: {message.message_id}\n1 event confirmed by sqlite:{tmp_path}/q.db\n"


def test_json_lines_arrive_in_their_order_on_rabbitmq(amqp_url: str, prefix: str, tmp_path: Path) -> None:
    """Into the given lane; a given id is kept, and CloudEvents are marked as such."""
    cloud = {"specversion": "1.0", "id": "ce-1", "source": "/idp", "type": "logout", "data": EVENT}
    lines = [EVENT, {**EVENT, "id": "given"}, cloud]
    (tmp_path / "events.jsonl").write_text("\n\n".join(map(json.dumps, lines)))
    settings = {"NOTIFIER_QUEUE__URL": amqp_url, "NOTIFIER_QUEUE__PREFIX": prefix}
    words = ("publish", "--lane", "bulk", "--json", "events.jsonl")
    done = notifier(*words, cwd=tmp_path, settings=settings)
    assert (done.returncode, done.stderr) == (0, "")
    confirmed = sorted((json.loads(line) for line in done.stdout.splitlines()), key=lambda each: each["line"])
    messages = in_broker(amqp_url, prefix, Lane.BULK)
    assert [message.message_id for message in messages] == [each["id"] for each in confirmed]
    assert [(each["line"], each["confirmed"]) for each in confirmed] == [(1, True), (3, True), (5, True)]
    assert [each["id"] for each in confirmed[1:]] == ["given", "ce-1"]
    assert [message.content_type for message in messages][1:] == ["application/json", "application/cloudevents+json"]
    assert all(message.timestamp is not None for message in messages)


def test_what_was_perhaps_not_meant_so_is_told(tmp_path: Path) -> None:
    """On stderr, and the event is sent."""
    site = Site(tmp_path, f"sqlite:{tmp_path / 'q.db'}")
    site.write()
    site.write_clients([client("shop", "https://shop.example.com/out")])
    lines = [json.dumps({**EVENT, "reason": 5, "SID": "s"}), json.dumps({**EVENT, "clients": ["shpo", "shop"]})]
    done = notifier("publish", "-c", str(site.file), cwd=tmp_path, stdin="\n".join(lines))
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        "notifier: line 1: SID is unknown and left out, so that all sessions of the user end; did you mean sid?",
        "notifier: line 1: reason cannot be read and is left out; it must be a text",
        "notifier: line 2: the registry has no client shpo; the logout waits for its registration",
    ]
    assert len(in_file(tmp_path / "q.db")) == 2


def test_invalid_event_prevents_sending(tmp_path: Path) -> None:
    """Every error has its line, exit 2, and no queue file is created."""
    lines = [
        json.dumps(EVENT),
        json.dumps({"iss": ISS, "clients": [1, "shop"]}),
        '{"iss": "' + ISS + '", "sub": ',
        json.dumps({**EVENT, "clients": []}),
    ]
    done = notifier("publish", "--url", "sqlite:q.db", cwd=tmp_path, stdin="\n".join(lines))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[0] == "notifier: 4 mistakes in the events; nothing was sent"
    for part in ("line 2: sub:", "line 2: clients[0]:", "line 3: not JSON: EOF", "line 4: clients:"):
        assert part in done.stderr
    assert not (tmp_path / "q.db").exists()


@pytest.mark.parametrize("stdin", [b"", b" \n", b"\xff\xfe{", b"[]", b"null"])
def test_input_without_an_event_is_a_usage_error(stdin: bytes, tmp_path: Path) -> None:
    """Empty input, too: a broken pipe."""
    done = notifier("publish", "--url", "sqlite:q.db", cwd=tmp_path, stdin=stdin)
    assert done.returncode == 2
    assert "1 mistake in the events; nothing was sent" in done.stderr


def test_a_publisher_needs_neither_keys_nor_clients(tmp_path: Path) -> None:
    """A configuration without its other files is enough; only its issuers are checked."""
    settings = {
        "queue": {"url": "sqlite:q.db"},
        "issuers": {ISS: {"keys": [{"file": "not-here.pem"}]}},
        "registry": {"file": "not-here.yaml"},
    }
    (tmp_path / "n.yaml").write_text(yaml.safe_dump(settings))
    assert notifier("publish", "-c", "n.yaml", cwd=tmp_path, stdin=json.dumps(EVENT)).returncode == 0
    other = json.dumps({**EVENT, "iss": "https://id.example.org"})
    done = notifier("publish", "-c", "n.yaml", cwd=tmp_path, stdin=other)
    assert done.returncode == 2
    assert "line 1: iss: https://id.example.org is not configured under issuers; did you mean" in done.stderr
    assert len(in_file(tmp_path / "q.db")) == 1


def test_the_queue_must_be_named(tmp_path: Path) -> None:
    """No worker would read a default file."""
    done = notifier("publish", cwd=tmp_path, stdin=json.dumps(EVENT))
    assert done.returncode == 2
    assert "--url" in done.stderr
    assert not list(tmp_path.iterdir())


def test_refused_password_is_reported_but_not_printed(amqp_url: str, tmp_path: Path) -> None:
    """Exit 1, and nothing was sent."""
    url = f"amqp://guest:wr0ng@{amqp_url.rpartition('@')[2]}"
    done = notifier("publish", "--url", url, cwd=tmp_path, stdin=json.dumps(EVENT))
    assert done.returncode == 1
    assert "refused the user name or the password" in done.stderr
    assert "not confirmed: line 1" in done.stderr
    assert "wr0ng" not in done.stdout + done.stderr


def test_without_a_worker_no_reply_arrives(tmp_path: Path) -> None:
    """The event is durable, but its result is not known: exit 3; without --wait 0."""
    done = notifier("publish", "--url", "sqlite:q.db", "--wait", "300ms", cwd=tmp_path, stdin=json.dumps(EVENT))
    assert done.returncode == 3
    assert notifier("publish", "--url", "sqlite:q.db", cwd=tmp_path, stdin=json.dumps(EVENT)).returncode == 0
    assert "no result yet: no worker has received it" in done.stdout


def test_invalid_wait_is_a_usage_error(tmp_path: Path) -> None:
    """Nothing is sent."""
    done = notifier("publish", "--url", "sqlite:q.db", "--wait", "31s", cwd=tmp_path, stdin=json.dumps(EVENT))
    assert done.returncode == 2
    assert "--wait" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("queue", "publishers", "warning"),
    [
        ({"url": "amqp://mq"}, ["guest"], ""),
        ({"url": "amqp://id%70@mq"}, ["idp"], ""),
        ({"url": "amqp://mq", "username": "worker"}, ["idp"], "does not name worker, the user of the queue"),
        ({"url": "sqlite:q.db"}, ["idp"], "no event in the embedded queue has a user_id"),
        ({"url": "sqlite:q.db"}, None, ""),
    ],
)
def test_check_warns_where_publish_is_refused(
    queue: dict[str, str], publishers: list[str] | None, warning: str, tmp_path: Path
) -> None:
    """By the user in the settings of the queue."""
    site = Site(tmp_path, "sqlite:q.db")
    issuer = site.config["issuers"][ISS]
    site.config["queue"] = queue
    site.config["issuers"] = {ISS: issuer if publishers is None else {**issuer, "publishers": publishers}}
    site.write()
    found = json.loads(notifier("check", "-c", str(site.file), "--json", cwd=tmp_path).stdout)["warnings"]
    texts = [each["text"] for each in found if "of `notifier publish`" in each["text"]]
    assert len(texts) == (1 if warning else 0)
    assert warning in "".join(texts)
