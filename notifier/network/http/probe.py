"""Tests the route to a client without a request: name, egress, connection, TLS.

It follows the rules of a delivery: `NameResolver` resolves names, each address is checked before the connection, and
the client's own authorities and certificate apply. For a client behind a proxy, it tests the proxy only.
"""

import asyncio
import os
import socket
import ssl
from dataclasses import dataclass
from ipaddress import ip_address

from aiohttp.abc import AbstractResolver
from yarl import URL

from notifier.model.client import EgressPolicy, Route
from notifier.model.egress import check_address, check_uri
from notifier.model.errors import InternalFault
from notifier.model.outcome import Reason
from notifier.network.http.client_contexts import TlsContexts
from notifier.network.http.faults import find_broken_handshake
from notifier.network.http.name_resolver import NameResolver


@dataclass(frozen=True, slots=True, kw_only=True)
class ReachedAddress:
    """The address of a connection that was made. `proxy`: it is the address of the client's proxy.

    `expires`: when the certificate expires (epoch seconds), None without TLS.
    """

    address: str
    proxy: bool = False
    expires: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReachFailure:
    """No connection was made. `text`: the reason."""

    reason: Reason
    text: str


class Probe:
    """Connects to clients. Call `open` first and `close` last. Without a `resolver`, `NameResolver` resolves names."""

    def __init__(self, resolver: AbstractResolver | None = None) -> None:
        self._given_resolver, self._resolver = resolver, resolver
        self._tls = TlsContexts()

    async def open(self) -> None:
        """Prepare the probe. Call it before the first `reach`."""
        self._resolver = self._given_resolver or NameResolver()

    async def close(self) -> None:
        """Release all resources."""
        await self._tls.close()
        if self._resolver is not None and self._given_resolver is None:
            await self._resolver.close()

    async def reach(self, uri: str, route: Route, within: float) -> ReachedAddress | ReachFailure:
        """Connect within `within` seconds, and disconnect. Never raises."""
        denied = check_uri(uri, route.egress)
        if denied is not None:
            return ReachFailure(reason=Reason.EGRESS_DENIED, text=denied)
        try:
            async with asyncio.timeout(within):
                if route.proxy is not None:
                    return await self._reach(URL(route.proxy), route, None)
                return await self._reach(URL(uri, encoded=True), route, route.egress)
        except TimeoutError:
            return ReachFailure(reason=Reason.TIMEOUT, text=f"no connection within {within:g} s")
        except InternalFault as fault:
            return ReachFailure(reason=Reason.TLS, text=str(fault))

    async def _reach(self, url: URL, route: Route, policy: EgressPolicy | None) -> ReachedAddress | ReachFailure:
        """Connect to the first reachable address of the URL's host. `policy`: None if the URL is that of a proxy."""
        host, port = url.raw_host or "", url.port or 443
        try:
            addresses = await self._resolve(host, port)
        except OSError as error:
            return ReachFailure(reason=Reason.DNS, text=f"{host}: {error.args[-1] if error.args else 'not found'}")
        context = await self._tls.context(route.tls) if url.scheme == "https" else None
        allowed = [address for address in addresses if policy is None or check_address(address, policy) is None]
        if policy is not None and addresses and not allowed:
            return ReachFailure(reason=Reason.EGRESS_DENIED, text=check_address(addresses[0], policy) or "")
        result: ReachedAddress | ReachFailure = ReachFailure(reason=Reason.DNS, text=f"{host} has no address")
        for address in allowed:
            result = await _try_connect(address, port, context, host)
            if isinstance(result, ReachedAddress):
                return ReachedAddress(address=result.address, expires=result.expires, proxy=policy is None)
        return result

    async def _resolve(self, host: str, port: int) -> list[str]:
        try:
            return [str(ip_address(host))]
        except ValueError:
            assert self._resolver is not None, "open() comes before reach()"
            return [entry["host"] for entry in await self._resolver.resolve(host, port, socket.AF_UNSPEC)]


async def _try_connect(
    address: str, port: int, context: ssl.SSLContext | None, name: str
) -> ReachedAddress | ReachFailure:
    loop = asyncio.get_running_loop()
    try:
        transport, _ = await loop.create_connection(
            asyncio.Protocol, address, port, ssl=context, server_hostname=None if context is None else name.rstrip(".")
        )
    except ssl.SSLCertVerificationError as error:
        return ReachFailure(reason=Reason.TLS, text=f"certificate: {error.verify_message}")
    except ssl.SSLError as error:
        return ReachFailure(reason=Reason.TLS, text=f"TLS: {error.reason or 'failed'}")
    except OSError as error:
        broken = None if context is None else find_broken_handshake(error)
        if broken is not None:
            return ReachFailure(reason=Reason.TLS, text=broken)
        words = os.strerror(error.errno) if error.errno else str(error)
        return ReachFailure(reason=Reason.CONNECT, text=f"{address} port {port}: {words}")
    try:
        secured = transport.get_extra_info("ssl_object")
        certificate = None if secured is None else secured.getpeercert()
        until = certificate.get("notAfter") if certificate else None
        return ReachedAddress(
            address=address, expires=ssl.cert_time_to_seconds(until) if isinstance(until, str) else None
        )
    finally:
        transport.abort()
