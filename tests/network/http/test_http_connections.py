"""Test connections on real sockets: kept, stale, broken, and without an answer until the deadline."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from notifier.model.client import TlsFiles
from notifier.model.outcome import HttpResponse, Reason, StaleConnection, TransportFailure
from notifier.network.http.transport import HttpTransport
from tests.network.http.http_requests import LOOPBACK, PLENTY, SIGNATURE, broken, opened, request
from tests.support import behaviours as do
from tests.support.certificates import authority
from tests.support.receivers import deaf_port, scripted

# ── no answer ─────────────────────────────────────────────────────────────────────────────────────────────────────────


FINE = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "behaviour",
    [
        pytest.param(do.reset(), id="resets"),
        pytest.param(do.close(), id="closes"),
        pytest.param(do.raw(b"HTTP/1.1 200 O", close=True), id="breaks off in the status line"),
        pytest.param(do.raw(FINE + b"X: y\r\n", close=True), id="breaks off in the headers"),
        pytest.param(do.raw(b"SSH-2.0-OpenSSH_9.2\r\n"), id="not a web server"),
    ],
)
async def test_incomplete_answer_is_ambiguous(transport: HttpTransport, behaviour: do.Behaviour) -> None:
    """R3: the request was written, so the client may have acted on it."""
    async with scripted(behaviour) as receiver:
        wire = await transport.post(request(receiver.url))
        await receiver.until(lambda receiver: receiver.open == 0)
    assert broken(wire) == (Reason.DISCONNECTED, True)


async def test_a_refused_connection_is_not_ambiguous(transport: HttpTransport) -> None:
    """Nothing was written."""
    async with deaf_port() as port:
        wire = await transport.post(request(f"http://127.0.0.1:{port}/"))
    assert wire == TransportFailure(reason=Reason.CONNECT, ambiguous=False, text="Connection refused")


async def test_unknown_name_is_dns(named: HttpTransport) -> None:
    """`dns`, and the text contains the name."""
    wire = await named.post(request("http://nowhere.example/"))
    assert wire == TransportFailure(reason=Reason.DNS, ambiguous=False, text="nowhere.example: Domain name not found")


# ── connections kept alive ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("behaviour", [do.close(), do.reset()], ids=["closed", "reset"])
async def test_kept_connection_closed_before_any_byte_is_stale(
    transport: HttpTransport, behaviour: do.Behaviour
) -> None:
    """No attempt: one retry on a new connection, whose result is final."""
    async with scripted(do.answer(200), behaviour) as receiver:
        assert await transport.post(request(receiver.url)) == HttpResponse(status=200)
        assert await transport.post(request(receiver.url)) == StaleConnection()
        wire = await transport.post(request(receiver.url, new_connection=True))
    assert broken(wire) == (Reason.DISCONNECTED, True)
    assert [received.connection for received in receiver.requests] == [1, 1, 2]


async def test_a_connection_closed_while_idle_is_not_used(transport: HttpTransport) -> None:
    """A server that closes after each answer causes no stale connection once the close has arrived."""
    async with scripted(do.answer(200, close=True)) as receiver:
        for _ in range(3):
            assert await transport.post(request(receiver.url)) == HttpResponse(status=200)
            await receiver.until(lambda receiver: receiver.open == 0)
            await _until(lambda: transport.open_connections == 0)
    assert receiver.connections == 3


async def test_kept_connection_closed_within_the_answer_is_not_stale(transport: HttpTransport) -> None:
    """Bytes came: the client may have acted."""
    async with scripted(do.answer(200), do.raw(b"HTTP/1.1 2", close=True)) as receiver:
        await transport.post(request(receiver.url))
        wire = await transport.post(request(receiver.url))
    assert broken(wire) == (Reason.DISCONNECTED, True)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 500 Extra\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nabc",
    ],
    ids=["two answers", "close", "switch", "upgrade"],
)
async def test_connection_with_unread_bytes_is_not_used_again(transport: HttpTransport, data: bytes) -> None:
    """Unrequested bytes must not be used as the answer to the next request."""
    async with scripted(do.raw(data), do.answer(204)) as receiver:
        wire = await transport.post(request(receiver.url))
        assert isinstance(wire, HttpResponse)
        assert wire.status in (101, 200)
        assert await transport.post(request(receiver.url)) == HttpResponse(status=204)
    assert [received.connection for received in receiver.requests] == [1, 2]


async def test_unrequested_answer_is_discarded(transport: HttpTransport) -> None:
    """A server that sends 408 on an idle connection has not answered the next token."""
    idle = asyncio.Event()

    async def answer_twice(peer: do.Peer) -> None:
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await idle.wait()
        await peer.send(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        await peer.gone()

    async with scripted(do.Behaviour(run=answer_twice), do.answer(204)) as receiver:
        assert await transport.post(request(receiver.url)) == HttpResponse(status=200)
        idle.set()
        [[(kept, _)]] = transport._pools[LOOPBACK].session.connector._conns.values()  # type: ignore[union-attr]
        await _until(lambda: kept.should_close)
        assert await transport.post(request(receiver.url)) == HttpResponse(status=204)


async def test_new_connection_can_be_requested(transport: HttpTransport) -> None:
    """It is new although another is kept, and is kept too."""
    async with scripted() as receiver:
        await transport.post(request(receiver.url))
        await transport.post(request(receiver.url, new_connection=True))
        await transport.post(request(receiver.url))
    assert [received.connection for received in receiver.requests] == [1, 2, 2]


async def test_unresponsive_clients_do_not_delay_others(transport: HttpTransport) -> None:
    """More than aiohttp's own pool of 100 would hold."""
    async with scripted(do.hang()) as hung, scripted() as well:
        tasks = [asyncio.create_task(transport.post(request(hung.url))) for _ in range(150)]
        await hung.until(lambda receiver: len(receiver.requests) == 150)
        assert await transport.post(request(well.url)) == HttpResponse(status=200)
        connector = transport._pools[LOOPBACK].session.connector
        assert connector is not None
        assert (connector.limit, connector.limit_per_host) == (0, 0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_cancelled_request_leaves_no_connection(transport: HttpTransport) -> None:
    """A drain that runs out of time cancels."""
    async with scripted(do.hang()) as receiver:
        task = asyncio.create_task(transport.post(request(receiver.url)))
        await receiver.until(lambda receiver: len(receiver.requests) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await receiver.until(lambda receiver: receiver.open == 0)


async def test_idle_connections_are_closed(tmp_path: Path) -> None:
    """By us, over TLS too, whether or not another request is sent."""
    ca = authority(tmp_path / "ca")
    async with opened(kept_for=0.1) as transport, scripted() as plain, scripted(tls=ca.server()) as secured:
        for receiver in (plain, secured):
            wire = await transport.post(request(receiver.url, tls=TlsFiles(ca_file=ca.ca_file)))
            assert wire == HttpResponse(status=200)
            await receiver.until(lambda receiver: receiver.open == 0)
        await _until(lambda: transport.open_connections == 0)


# ── housekeeping ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_closing_leaves_no_connection() -> None:
    """Neither idle nor used ones; the request in flight ends as disconnected."""
    transport = HttpTransport()
    await transport.open()
    async with scripted(do.answer(200), do.hang()) as receiver:
        await transport.post(request(receiver.url))
        task = asyncio.create_task(transport.post(request(receiver.url)))
        await receiver.until(lambda receiver: len(receiver.requests) == 2)
        await transport.close()
        await task
        await receiver.until(lambda receiver: receiver.open == 0)
    assert transport.open_connections == 0


async def test_texts_hold_no_secret(transport: HttpTransport) -> None:
    """An error contains neither the token nor the headers."""
    secret = (("Authorization", "Bearer hush-hush"),)
    async with deaf_port() as port, scripted(do.reset()) as receiver:
        for uri in (f"http://127.0.0.1:{port}/", receiver.url, "http://192.0.2.1/", "http://x y/"):
            wire = await transport.post(request(uri, headers=secret))
            assert isinstance(wire, TransportFailure)
            assert "hush" not in repr(wire)
            assert SIGNATURE not in repr(wire)
            assert len(wire.text) <= 300


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PLENTY):
        while not condition():  # noqa: ASYNC110  one round of the event loop; there is no event for it
            await asyncio.sleep(0)
