"""Requests, names and transports that the tests of the HTTP transport share."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_network
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from cryptography import x509

from notifier.model.client import EgressPolicy, ResponsePolicy, Route
from notifier.model.outcome import Outcome, Reason, StaleConnection, TransportFailure, TransportResult, to_outcome
from notifier.model.request import Request
from notifier.network.http.transport import HttpTransport
from tests.support.certificates import Authority

LOOPBACK = EgressPolicy(allow=(ip_network("127.0.0.0/8"), ip_network("::1/128")), allow_http=True)
HEADER = "eyJhbGciOiJSUzI1NiIsInR5cCI6ImxvZ291dCtqd3QiLCJraWQiOiJhYmMifQ"
PAYLOAD = "eyJpc3MiOiJodHRwczovL2lkLmV4YW1wbGUiLCJzdWIiOiJhbGljZSJ9"
SIGNATURE = "c2lnbmF0dXJlLXRoYXQtaXMtYXMtbG9uZy1hcy1hLXJlYWwtb25l-_abcdefgh"
TOKEN = f"{HEADER}.{PAYLOAD}.{SIGNATURE}"
PLENTY = 30.0  # seconds: no request of a test takes that long
SHORT = 0.3  # seconds, where nothing but the deadline can end a request
WRITTEN = 2.0  # seconds, where the deadline is to be met by a request that was written: time enough to write it
NOW = 1_000_000_000.0


def request(uri: str, *, within: float = PLENTY, new_connection: bool = False, **route: Any) -> Request:
    """Return a request whose route allows loopback by default."""
    return Request(
        uri=uri,
        body=f"logout_token={TOKEN}".encode(),
        secret=TOKEN,
        timeout=within,
        route=Route(**{"egress": LOOPBACK, **route}),
        new_connection=new_connection,
    )


class ScriptedResolver(AbstractResolver):
    """Resolve scripted names. Other names are not found, and `silent.example` is never answered."""

    def __init__(self, names: dict[str, list[str]]) -> None:
        self._names = names

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        """Implement aiohttp's interface."""
        if host == "silent.example":
            await asyncio.Event().wait()
        if host not in self._names:
            raise OSError(None, "Domain name not found")
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)
            for address in self._names[host]
        ]

    async def close(self) -> None:
        """Do nothing."""


@contextlib.asynccontextmanager
async def opened(resolver: AbstractResolver | None = None, **limits: Any) -> AsyncIterator[HttpTransport]:
    """Open a transport, and check on exit that no connection is left."""
    transport = HttpTransport(resolver, **limits)
    await transport.open()
    try:
        yield transport
    finally:
        await transport.close()
    assert transport.open_connections == 0


@contextlib.asynccontextmanager
async def asking(
    name_server: Callable[[], asyncio.DatagramProtocol], **options: Any
) -> AsyncIterator[aiohttp.AsyncResolver]:
    """Return a resolver that uses only this server."""
    server, _ = await asyncio.get_running_loop().create_datagram_endpoint(name_server, local_addr=("127.0.0.1", 0))
    nameservers = [f"127.0.0.1:{server.get_extra_info('sockname')[1]}"]
    resolver = aiohttp.AsyncResolver(nameservers=nameservers, **options)
    try:
        yield resolver
    finally:
        await resolver.close()
        server.close()


def ended(ca: Authority) -> str:
    """Return the expiry date of an expired certificate."""
    [file] = ca.ca_file.parent.glob("*-expired.pem")
    return f"{x509.load_pem_x509_certificate(file.read_bytes()).not_valid_after_utc:%Y-%m-%d}"


def outcome(wire: TransportResult) -> Outcome:
    """Return the outcome that the pipeline derives."""
    assert not isinstance(wire, StaleConnection)
    return to_outcome(wire, ResponsePolicy(), NOW)


def broken(wire: TransportResult) -> tuple[Reason, bool]:
    """Return reason and ambiguity of a TransportFailure."""
    assert isinstance(wire, TransportFailure), wire
    assert wire.text
    assert len(wire.text) <= 300
    return wire.reason, wire.ambiguous
