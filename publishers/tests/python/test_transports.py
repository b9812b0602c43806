"""A publisher's log and behaviour while a broker or the API does not accept its events."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from logout_notifier_publisher import Publisher, PublisherSettings

from publishers.conformance.api import PROBLEM_TYPE, Answer, api, problem
from publishers.tests.python.harness import ended, files, settings, until


async def warning_of(publisher: Publisher, caplog: pytest.LogCaptureFixture, reason: str) -> str:
    """The warning, once it is there."""
    await until(lambda: publisher.state.failures[reason] >= 1, lambda: caplog.text)
    (line,) = [text for record in caplog.records if f", {reason})" in (text := record.getMessage())]
    return line


@pytest.mark.parametrize(
    ("change", "reason", "way_out"),
    [
        (("guest:guest@", "guest:hush-word@"), "denied", "refused the user 'guest' or its password"),
        (("/", "/nobody-s"), "denied", "virtual host 'nobody-s' does not exist"),
        (("", ""), "unroutable", "there is no exchange"),
        (("guest:guest@", "guest:guest@127.0.0.1:1,"), "unroutable", "there is no exchange"),
    ],
)
async def test_the_log_has_the_remedy(
    amqp_url: str, bare_prefix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    change: tuple[str, str], reason: str, way_out: str,
) -> None:  # fmt: skip
    """Once a minute for each cause, and never with a password. If a host is unavailable, the next is tried."""
    head, _, tail = amqp_url.rpartition(change[0]) if change[0] else (amqp_url, "", "")
    tail = "" if change[0] == "/" else tail  # the virtual host that is this process's own
    own = settings(head + change[1] + tail, tmp_path, bare_prefix, drain_limit=0.01)
    async with Publisher(own) as publisher:
        await publisher.publish(ended())
        assert way_out in await warning_of(publisher, caplog, reason)
        await until(lambda: publisher.state.failures[reason] >= 2)
        await warning_of(publisher, caplog, reason)
        assert len(files(tmp_path, ".json")) == 1
    assert not [word for word in ("hush", "secret-user") if word in caplog.text]


async def test_a_queue_that_is_full_keeps_the_event(
    amqp_url: str, bare_prefix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A nack: the event stays, and comes once there is room. Those behind it are not held up in the same go."""
    import aiormq  # noqa: PLC0415  here alone

    connection = await aiormq.connect(amqp_url)
    channel = await connection.channel()
    name = f"{bare_prefix}.events"
    await channel.exchange_declare(name, exchange_type="topic")
    await channel.queue_declare(name, arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    await channel.queue_bind(name, name, "#")
    try:
        async with Publisher(settings(amqp_url, tmp_path, bare_prefix)) as publisher:
            for number in range(3):
                await publisher.publish(ended(f"s{number}"))
            assert "check its length limits" in await warning_of(publisher, caplog, "rejected")
            came: list[str] = []
            while len(came) < 3:
                message = await channel.basic_get(name, no_ack=True)
                if message.body:
                    came.append(json.loads(message.body)["sid"])
                await asyncio.sleep(0.02)
            await until(lambda: not files(tmp_path))
        assert sorted(came) == ["s0", "s1", "s2"]
    finally:
        await channel.queue_delete(name)
        await channel.exchange_delete(name)
        await connection.close()


async def test_a_refused_event_is_logged_without_the_user(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A 401 of notifier holds the lane. The text of a 400 is logged without the user and the session."""
    async with api(tmp_path) as played:
        title = "no: secret-user, hush-b, line\nbreak"
        refusal = replace(problem(400), text=json.dumps({"type": PROBLEM_TYPE, "title": title}))
        played.script.extend([problem(401), Answer(), refusal])
        outbox = PublisherSettings(url=f"{played.url}/notifier", outbox=tmp_path / "outbox")
        away = PublisherSettings(url="http://127.0.0.1:1", outbox=tmp_path / "outbox", drain_limit=0.01)
        async with Publisher(away) as publisher:
            for sid in ("hush-a", "hush-b", "hush-c"):
                await publisher.publish(ended(sid), bulk=True)
        async with Publisher(outbox) as publisher:
            await until(lambda: publisher.state.published == 2, lambda: played.asked)
            assert (publisher.state.refused, publisher.state.failures["denied"]) == (1, 1)
    assert [asked.event["sid"] for asked in played.asked] == ["hush-a", "hush-a", "hush-b", "hush-c"]
    assert {(asked.path, asked.lane) for asked in played.asked} == {("/notifier/v1/events", "bulk")}
    assert "answered 400: " in caplog.text
    assert "no: <sub>, <sid>, line" in caplog.text
    assert not [word for word in ("hush", "secret-user") if word in caplog.text]


async def test_an_event_that_is_not_permitted_delays_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A 403 of notifier may concern its issuer alone. It is logged once a minute, and the event stays pending."""
    async with api(tmp_path) as played:
        played.script.extend([problem(403), problem(403)])
        outbox = PublisherSettings(url=f"{played.url}/notifier", outbox=tmp_path / "outbox", drain_limit=0.01)
        async with Publisher(outbox) as publisher:
            for sid in ("s-1", "s-2", "s-3"):
                await publisher.publish(ended(sid))
            await until(lambda: publisher.state.published == 1, lambda: played.asked)
            assert [asked.event["sid"] for asked in played.asked] == ["s-1", "s-2", "s-3"]
            assert (publisher.state.refused, publisher.state.failures["denied"]) == (0, 2)
            assert publisher.state.waiting == 2
    assert caplog.text.count("check the token's scope `publish`, its `issuers`, and the issuer's `publishers`") == 1


@pytest.mark.parametrize("ends", [True, False])
async def test_a_body_that_stalls_is_judged_by_its_status(tmp_path: Path, *, ends: bool) -> None:
    """A firewall that never ends its page, or ends the connection amid it, must not hold the lane as an outage does."""

    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 403 Forbidden\r\nServer: wall\r\nContent-Length: 100\r\n\r\n<p>Blocked")
        await writer.drain()
        if not ends:
            await asyncio.sleep(5)
        writer.close()

    server = await asyncio.start_server(stall, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        own = PublisherSettings(url=f"http://127.0.0.1:{port}", outbox=tmp_path, publish_limit=0.5, drain_limit=0.01)
        async with Publisher(own) as publisher:
            await publisher.publish(ended())
            await until(lambda: publisher.state.failures["intercepted"] >= 1, lambda: publisher.state)
            assert publisher.state.failures["timed_out"] == 0
