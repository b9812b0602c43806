"""Test proxies of a client's route on real sockets. Errors before the client is reached are `proxy` errors."""

import base64
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from notifier.model.client import EgressPolicy, Route, TlsFiles
from notifier.model.outcome import HttpResponse, Reason, StaleConnection, TransportFailure
from notifier.network.http.probe import Probe, ReachedAddress, ReachFailure
from notifier.network.http.transport import HttpTransport
from tests.network.http.http_requests import SHORT, ScriptedResolver, broken, opened, request
from tests.support import behaviours as do
from tests.support.certificates import Authority, authority
from tests.support.receivers import deaf_port, scripted


async def test_proxy_receives_the_whole_uri_and_its_password(transport: HttpTransport) -> None:
    """http through a proxy: the absolute URI in the request line; the user name and password in their header."""
    async with scripted() as proxy:
        route: dict[str, Any] = {
            "proxy": proxy.origin.replace("//", "//user:p%40ss@"),
            "egress": EgressPolicy(allow_http=True),
        }
        wire = await transport.post(request("http://shop.example/logout?a=%2f", **route))
    assert wire == HttpResponse(status=200)
    [received] = proxy.requests
    assert received.target == "http://shop.example/logout?a=%2f"
    assert received.header("proxy-authorization") == ["Basic " + base64.b64encode(b"user:p@ss").decode()]
    assert received.header("host") == ["shop.example"]


async def test_a_get_through_a_proxy_has_no_type(transport: HttpTransport) -> None:
    """A form has its own, once, unless the route has another. A request without a body has none."""
    own = (("content-type", "text/x-own"), ("X-Own", "1"))
    async with scripted() as proxy:
        route: dict[str, Any] = {"proxy": proxy.origin, "egress": EgressPolicy(allow_http=True)}
        for sent in (request("http://shop.example/", **route), request("http://shop.example/", **route, headers=own)):
            assert await transport.post(sent) == HttpResponse(status=200)
            assert await transport.post(replace(sent, body=None)) == HttpResponse(status=200)
    form, get, other, get_of_other = proxy.requests
    assert form.header("content-type") == ["application/x-www-form-urlencoded"]
    assert other.header("content-type") == ["text/x-own"]
    assert (get.method, get.header("content-type"), get_of_other.header("content-type")) == ("GET", [], [])
    assert get_of_other.header("x-own") == ["1"]


async def test_a_tunnel_leads_to_the_client(transport: HttpTransport, ca: Authority, trusted: TlsFiles) -> None:
    """https through a proxy: CONNECT by name, TLS with the client itself; the token is not shown to the proxy."""
    async with (
        scripted(tls=ca.server("shop.example")) as receiver,
        scripted(do.tunnel("127.0.0.1", receiver.port)) as proxy,
    ):
        route: dict[str, Any] = {
            "proxy": proxy.origin.replace("//", "//user:secret@"),
            "tls": trusted,
            "egress": EgressPolicy(),
        }
        for _ in range(2):
            assert await transport.post(request("https://shop.example/logout", **route)) == HttpResponse(status=200)
    [connect] = proxy.requests
    assert (connect.method, connect.target) == ("CONNECT", "shop.example:443")
    assert connect.header("proxy-authorization")
    assert len(receiver.tokens) == 2
    assert not receiver.requests[0].header("proxy-authorization")


async def test_no_certificate_has_the_dot_of_the_root(
    transport: HttpTransport, ca: Authority, trusted: TlsFiles
) -> None:
    """`shop.example.` is `shop.example`, with and without a proxy."""
    async with (
        scripted(tls=ca.server("shop.example")) as receiver,
        scripted(do.tunnel("127.0.0.1", receiver.port)) as proxy,
    ):
        wire = await transport.post(request("https://shop.example./", proxy=proxy.origin, tls=trusted))
    assert wire == HttpResponse(status=200)


async def test_a_bad_certificate_behind_a_proxy_is_the_clients(transport: HttpTransport, ca: Authority) -> None:
    """The tunnel was established: it is `tls`, not `proxy`."""
    async with (
        scripted(tls=ca.server("shop.example")) as receiver,
        scripted(do.tunnel("127.0.0.1", receiver.port)) as proxy,
    ):
        wire = await transport.post(request("https://shop.example/", proxy=proxy.origin))
    assert broken(wire) == (Reason.TLS, False)


@pytest.mark.parametrize("uri", ["https://shop.example/", "http://shop.example/"])
async def test_proxy_authentication_failure_is_internal(transport: HttpTransport, uri: str) -> None:
    """407, with and without a tunnel: `proxy`, without the password in its text."""
    async with scripted(do.answer(407, b"who are you?")) as proxy:
        wire = await transport.post(request(uri, proxy=proxy.origin.replace("//", "//user:secret@")))
    assert wire == TransportFailure(
        reason=Reason.PROXY, ambiguous=False, text=f"proxy 127.0.0.1:{proxy.port}: answered 407"
    )


@pytest.mark.parametrize(
    "behaviour",
    [do.answer(403), do.answer(500), do.close(), do.reset(), do.reset(reads=False), do.raw(b"nonsense\r\n\r\n")],
    ids=["forbids", "fails", "closes", "resets", "resets at once", "not a proxy"],
)
async def test_tunnel_failure_is_a_proxy_error(transport: HttpTransport, behaviour: do.Behaviour) -> None:
    """For any error before the tunnel is established."""
    async with scripted(behaviour) as proxy:
        wire = await transport.post(request("https://shop.example/", proxy=proxy.origin))
    assert broken(wire) == (Reason.PROXY, False)


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_client_unreachable_for_the_proxy_is_an_attempt(transport: HttpTransport, status: int) -> None:
    """With these statuses the proxy reports the client as down: an attempt with its age limit and its circuit."""
    async with scripted(do.answer(status)) as proxy:
        wire = await transport.post(request("https://shop.example/", proxy=proxy.origin))
    text = f"proxy 127.0.0.1:{proxy.port}: answered {status}"
    assert wire == TransportFailure(reason=Reason.CONNECT, ambiguous=False, text=text)


@pytest.mark.parametrize("uri", ["https://shop.example/", "http://shop.example/"])
async def test_unreachable_proxy(transport: HttpTransport, uri: str) -> None:
    """Refused, or its name not found."""
    async with deaf_port() as port:
        wire = await transport.post(request(uri, proxy=f"http://user:secret@127.0.0.1:{port}"))
    assert wire == TransportFailure(
        reason=Reason.PROXY, ambiguous=False, text=f"proxy 127.0.0.1:{port}: Connection refused"
    )
    async with opened(ScriptedResolver({})) as named:
        wire = await named.post(request(uri, proxy="http://proxy.example:3128"))
        assert broken(wire) == (Reason.PROXY, False)
        wire = await named.post(request(uri, proxy="http://silent.example:3128", within=SHORT))
        assert broken(wire) == (Reason.PROXY, False)


async def test_a_stale_connection_to_a_proxy_is_stale(transport: HttpTransport) -> None:
    """Kept connections to a proxy are closed as others are."""
    async with scripted(do.answer(200), do.close(), do.answer(204)) as proxy:
        uri = "http://shop.example/"
        assert await transport.post(request(uri, proxy=proxy.origin)) == HttpResponse(status=200)
        assert await transport.post(request(uri, proxy=proxy.origin)) == StaleConnection()
        assert await transport.post(request(uri, proxy=proxy.origin, new_connection=True)) == HttpResponse(status=204)


# ── Reaching a client without sending a request, on real sockets ─────────────────────────────────────────────────────


LOCAL = EgressPolicy(allow=(ip_network("127.0.0.0/8"),), allow_http=True)


async def reach(uri: str, route: Route | None = None) -> ReachedAddress | ReachFailure:
    probe = Probe()
    await probe.open()
    try:
        return await probe.reach(uri, route or Route(egress=LOCAL), 20)
    finally:
        await probe.close()


async def test_connected_and_nothing_sent(tmp_path: Path) -> None:
    """The expiry date of the certificate is read; the receiver sees a connection and no request."""
    ca = authority(tmp_path)
    async with scripted(tls=ca.server()) as receiver:
        met = await reach(receiver.url, Route(egress=LOCAL, tls=TlsFiles(ca_file=ca.ca_file)))
        assert isinstance(met, ReachedAddress)
        assert met.address == "127.0.0.1"
        assert met.expires is not None
        await receiver.until(lambda seen: seen.connections == 1 and seen.open == 0)
        assert not receiver.requests
    async with scripted() as receiver:
        assert await reach(receiver.url) == ReachedAddress(address="127.0.0.1")


async def test_no_certificate_of_a_probe_has_the_dot_of_the_root(tmp_path: Path) -> None:
    """A host that a delivery can reach is not reported as unreachable."""
    ca = authority(tmp_path)
    probe = Probe(ScriptedResolver({"shop.example.": ["127.0.0.1"]}))
    await probe.open()
    async with scripted(tls=ca.server("shop.example"), host="shop.example.") as receiver:
        route = Route(egress=LOCAL, tls=TlsFiles(ca_file=ca.ca_file))
        assert isinstance(await probe.reach(receiver.url, route, 20), ReachedAddress)
    await probe.close()


async def test_a_server_that_resets_at_the_handshake_is_reported_by_a_probe() -> None:
    """It was reached."""
    async with scripted(do.reset(reads=False)) as receiver:
        met = await reach(receiver.url.replace("http:", "https:"))
    assert met == ReachFailure(reason=Reason.TLS, text="TLS: the server ended the connection in the handshake")


@pytest.mark.parametrize("expired", [True, False])
async def test_invalid_certificate_is_reported(tmp_path: Path, expired: bool) -> None:
    """Expired, or of an untrusted authority."""
    ca = authority(tmp_path)
    async with scripted(tls=ca.server(expired=expired)) as receiver:
        files = TlsFiles(ca_file=ca.ca_file) if expired else TlsFiles()
        met = await reach(receiver.url, Route(egress=LOCAL, tls=files))
    assert isinstance(met, ReachFailure)
    assert met.reason is Reason.TLS
    assert ("certificate has expired" if expired else "unable to get local issuer certificate") in met.text


async def test_probe_obeys_egress() -> None:
    """Egress is checked first; then the name, then the connection."""
    async with scripted() as receiver:
        for route in (Route(egress=EgressPolicy(allow_http=True)), Route(egress=EgressPolicy())):
            met = await reach(receiver.url, route)
            assert isinstance(met, ReachFailure)
            assert met.reason is Reason.EGRESS_DENIED
            assert "egress.allow" in met.text
        assert receiver.connections == 0
        port = receiver.port
    met = await reach(f"http://127.0.0.1:{port}/")
    assert isinstance(met, ReachFailure)
    assert met.reason is Reason.CONNECT


async def test_behind_a_proxy_only_the_proxy_is_tried() -> None:
    """A check of the client would require a request to the proxy."""
    async with scripted() as proxy:
        met = await reach("https://shop.example/out", Route(proxy=proxy.origin))
        assert met == ReachedAddress(address="127.0.0.1", proxy=True)
