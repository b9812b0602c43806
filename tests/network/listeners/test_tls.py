"""TLS of the API's listener: certificates renewed under it, and clients that must show one."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop
from aiohttp import web
from cryptography import x509

from notifier.model.errors import ConfigurationError
from notifier.network.listeners.listener import CONNECTIONS, HANDSHAKE_TIMEOUT, Listener, listen
from notifier.network.listeners.listener_context import ListenerContext
from notifier.settings.policies import ListenerTls
from tests.support.certificates import Authority, authority

PATIENCE = 30.0


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    return authority(tmp_path / "ca")


@asynccontextmanager
async def served(files: ListenerTls, connections: int = CONNECTIONS) -> AsyncIterator[Listener]:
    async def well(_request: web.Request) -> web.Response:
        return web.Response(text="well")

    app = web.Application()
    app.add_routes([web.get("/", well)])
    context = ListenerContext(files, "api").context
    listener = await listen(app, "127.0.0.1", 0, key="api.listen", tls=context, grace=1, connections=connections)
    yield listener
    await listener.close()


async def ask(listener: Listener, ca: Authority, shown: Path | None = None) -> int:
    """GET it; the serial number of the certificate that it showed."""
    context = ssl.create_default_context(cafile=ca.ca_file)
    if shown is not None:
        context.load_cert_chain(shown)
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port, ssl=context)
        try:
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert (await reader.read()).endswith(b"well")
            certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        finally:
            writer.close()
    return x509.load_der_x509_certificate(certificate).serial_number


async def test_a_renewed_certificate_serves_the_next_connection(ca: Authority) -> None:
    """Without a restart; one that cannot be used, or is half written, leaves the old."""
    file = ca.issue("127.0.0.1")
    async with served(ListenerTls(cert_file=file, key_file=file)) as listener:
        first = await ask(listener, ca)
        assert await ask(listener, ca) == first
        ca.issue("127.0.0.1")  # the same file
        second = await ask(listener, ca)
        assert second != first
        good = file.read_bytes()
        file.write_bytes(good[: len(good) // 2])
        assert await ask(listener, ca) == second
        file.write_bytes(good)
        assert await ask(listener, ca) == second


async def test_only_clients_of_the_authority_are_let_in(ca: Authority, tmp_path: Path) -> None:
    """`client_ca_file`: without a certificate, or with another authority's, no request is read; it may change, too."""
    other = authority(tmp_path / "other", "Other CA")
    file, trusted = ca.issue("127.0.0.1"), tmp_path / "clients.pem"
    trusted.write_bytes(ca.ca_file.read_bytes())
    ours, theirs = ca.issue("idp"), other.issue("stranger")
    async with served(ListenerTls(cert_file=file, key_file=file, client_ca_file=trusted)) as listener:
        assert await ask(listener, ca, ours)
        for shown in (None, theirs):
            with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
                await ask(listener, ca, shown)
        trusted.write_bytes(other.ca_file.read_bytes() + b"\n")
        assert await ask(listener, ca, theirs)
        with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
            await ask(listener, ca, ours)


def test_what_cannot_be_used_is_told_at_the_start(tmp_path: Path) -> None:
    """By the setting and the files."""
    file = tmp_path / "no.pem"
    file.write_text("nothing")
    with pytest.raises(ConfigurationError) as error:
        ListenerContext(ListenerTls(cert_file=file, key_file=file), "api")
    assert "api.tls" in str(error.value)
    assert "no.pem" in str(error.value)


async def test_silent_connections_are_limited_before_their_handshake(ca: Authority) -> None:
    """The oldest are closed, and a newcomer is served."""
    file = ca.issue("127.0.0.1")
    async with served(ListenerTls(cert_file=file, key_file=file), connections=3) as listener:
        silent = [await asyncio.open_connection("127.0.0.1", listener.port) for _ in range(6)]
        assert await ask(listener, ca)
        for reader, _ in silent[:3]:
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.wait_for(reader.read(), HANDSHAKE_TIMEOUT / 2) == b""
        for _, writer in silent:
            writer.close()


def test_silent_connections_are_limited_on_uvloop(ca: Authority) -> None:
    """The worker's loop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test_silent_connections_are_limited_before_their_handshake(ca))
