"""Test the transport on uvloop, with a real name server, under its own limits, and with aiohttp's internals."""

import asyncio
import socket
import struct
from dataclasses import replace
from typing import cast

import uvloop

from notifier.model.client import EgressPolicy
from notifier.model.outcome import HttpResponse, Reason, StaleConnection, TransportFailure, TransportResult
from tests.network.http.http_requests import LOOPBACK, PLENTY, SHORT, asking, broken, opened, request
from tests.support import behaviours as do
from tests.support.receivers import deaf_port, scripted


def test_everything_holds_on_uvloop() -> None:
    """The worker's loop: answers, breaks, stale connections, denials and names are reported as on asyncio.

    Deadlines are in `test_deadlines`.
    """

    async def story() -> list[TransportResult]:
        async with (
            opened() as http,
            deaf_port() as port,
            scripted(do.answer(200), do.close(), do.reset(), do.flood_headers(503)) as receiver,
            scripted(host="localhost") as other,
        ):
            return [
                await http.post(request(receiver.url)),
                await http.post(request(receiver.url)),
                await http.post(request(receiver.url, new_connection=True)),
                await http.post(request(receiver.url)),
                await http.post(request(f"http://127.0.0.1:{port}/")),
                await http.post(request(other.url)),
                await http.post(request(other.url, egress=EgressPolicy(allow_http=True))),
            ]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        first, stale, reset, flood, refused, named, denied = runner.run(story())
    assert first == HttpResponse(status=200)
    assert stale == StaleConnection()
    assert broken(reset) == (Reason.DISCONNECTED, True)
    assert flood == HttpResponse(status=503)
    assert broken(refused) == (Reason.CONNECT, False)
    assert named == HttpResponse(status=200)
    assert broken(denied) == (Reason.EGRESS_DENIED, False)


# ── names ───────────────────────────────────────────────────────────────────────────────────────────────────────


class _NameServer(asyncio.DatagramProtocol):
    """HttpResponse queries for an A record of `here.test.` by 127.0.0.1, none of `silent.test.`, else NXDOMAIN."""

    transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)  # asyncio's transport is not a subclass

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        end = data.index(b"\0", 12) + 1
        name, question, kind = data[12:end], data[12 : end + 4], struct.unpack("!H", data[end : end + 2])[0]
        if name == b"\6silent\4test\0":
            return
        here = name == b"\4here\4test\0"
        record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 1, 4) + socket.inet_aton("127.0.0.1")
        answers = record if here and kind == 1 else b""
        flags = 0x8180 if here else 0x8183
        head = data[:2] + struct.pack("!HHHHH", flags, 1, 1 if answers else 0, 0, 0)
        self.transport.sendto(head + question + answers, addr)


async def test_names_are_looked_up_by_aiodns() -> None:
    """Found, not found, and not answered: the last takes the deadline and no thread."""
    async with (
        asking(_NameServer, timeout=PLENTY) as names,
        opened(names) as http,
        scripted(host="here.test") as receiver,
    ):
        assert await http.post(request(receiver.url)) == HttpResponse(status=200)
        missing = await http.post(request("http://gone.test/"))
        assert broken(missing) == (Reason.DNS, False)
        assert isinstance(missing, TransportFailure)
        assert missing.text.startswith("gone.test: ")
        assert broken(await http.post(request("http://silent.test/", within=SHORT))) == (Reason.TIMEOUT, False)


# ── limits ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_beyond_the_limit_no_connection_is_kept() -> None:
    """A mass logout to very many clients does not leave a socket open for each of them."""
    async with opened(keep=2) as http, scripted() as one, scripted() as two, scripted() as three, scripted() as four:
        for receiver in (one, two, three, four):
            assert await http.post(request(receiver.url)) == HttpResponse(status=200)
        await three.until(lambda receiver: receiver.open == 0)
        await four.until(lambda receiver: receiver.open == 0)
        assert http.open_connections == 2
        assert (one.open, two.open) == (1, 1)


async def test_sessions_of_policies_no_longer_used_are_closed() -> None:
    """A reload that changes the policy closes the old sessions after the requests in flight."""
    other, third = replace(LOOPBACK, deny=LOOPBACK.allow[1:]), replace(LOOPBACK, allow_http=False)
    async with opened(session_idle=-1.0) as http, scripted() as idle, scripted(do.hang()) as busy:
        assert await http.post(request(idle.url)) == HttpResponse(status=200)
        task = asyncio.create_task(http.post(request(busy.url, egress=other)))
        await busy.until(lambda receiver: len(receiver.requests) == 1)
        await idle.until(lambda receiver: receiver.open == 0)
        await http.post(request("https://127.0.0.1:9/", egress=third))
        assert busy.open == 1
        assert not task.done()
        task.cancel()
        await asyncio.wait([task])
