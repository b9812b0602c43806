"""Reaching a client without sending it anything, on real sockets."""

from ipaddress import ip_network
from pathlib import Path

import pytest

from notifier.model.client import EgressPolicy, Route, TlsFiles
from notifier.model.outcome import Reason
from notifier.network.http.probe import Probe, Reached, Unreached
from tests.network.http.http_requests import ScriptedResolver, ended
from tests.support.certificates import authority
from tests.support.receivers import scripted

LOCAL = EgressPolicy(allow=(ip_network("127.0.0.0/8"),), allow_http=True)


async def reach(uri: str, route: Route | None = None) -> Reached | Unreached:
    probe = Probe()
    await probe.open()
    try:
        return await probe.reach(uri, route or Route(egress=LOCAL), 20)
    finally:
        await probe.close()


async def test_connected_and_nothing_sent(tmp_path: Path) -> None:
    """The end of the certificate is read; the receiver sees a connection and no request."""
    ca = authority(tmp_path)
    async with scripted(tls=ca.server()) as receiver:
        met = await reach(receiver.url, Route(egress=LOCAL, tls=TlsFiles(ca_file=ca.ca_file)))
        assert isinstance(met, Reached)
        assert met.address == "127.0.0.1"
        assert met.expires is not None
        await receiver.until(lambda seen: seen.connections == 1 and seen.open == 0)
        assert not receiver.requests
    async with scripted() as receiver:
        assert await reach(receiver.url) == Reached(address="127.0.0.1")


async def test_no_certificate_has_the_dot_of_the_root(tmp_path: Path) -> None:
    """What a delivery reaches is not called unreachable."""
    ca = authority(tmp_path)
    probe = Probe(ScriptedResolver({"shop.example.": ["127.0.0.1"]}))
    await probe.open()
    async with scripted(tls=ca.server("shop.example"), host="shop.example.") as receiver:
        route = Route(egress=LOCAL, tls=TlsFiles(ca_file=ca.ca_file))
        assert isinstance(await probe.reach(receiver.url, route, 20), Reached)
    await probe.close()


@pytest.mark.parametrize("expired", [True, False])
async def test_a_certificate_that_is_not_good_is_named(tmp_path: Path, expired: bool) -> None:
    """Ended, or of an authority that nobody trusts here."""
    ca = authority(tmp_path)
    async with scripted(tls=ca.server(expired=expired)) as receiver:
        files = TlsFiles(ca_file=ca.ca_file) if expired else TlsFiles()
        met = await reach(receiver.url, Route(egress=LOCAL, tls=files))
    assert isinstance(met, Unreached)
    assert met.reason is Reason.TLS
    assert (f"expired on {ended(ca)}" if expired else "unable to get local issuer certificate") in met.text


async def test_what_a_delivery_may_not_reach_is_not_reached() -> None:
    """Egress first; then the name, then the connection."""
    async with scripted() as receiver:
        for route in (Route(egress=EgressPolicy(allow_http=True)), Route(egress=EgressPolicy())):
            met = await reach(receiver.url, route)
            assert isinstance(met, Unreached)
            assert met.reason is Reason.EGRESS_DENIED
            assert "egress.allow" in met.text
        assert receiver.connections == 0
        port = receiver.port
    met = await reach(f"http://127.0.0.1:{port}/")
    assert isinstance(met, Unreached)
    assert met.reason is Reason.CONNECT


async def test_behind_a_proxy_only_the_proxy_is_tried() -> None:
    """It would have to be asked for the rest."""
    async with scripted() as proxy:
        met = await reach("https://shop.example/out", Route(proxy=proxy.origin))
        assert met == Reached(address="127.0.0.1", proxy=True)
