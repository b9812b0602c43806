"""Addresses that the policy forbids are not connected to, whatever name leads there."""

import pytest

from notifier.model.client import EgressPolicy
from notifier.model.outcome import Answer, Break, Reason
from notifier.network.http.transport import HttpTransport
from tests.network.http.http_requests import ScriptedResolver, broken, opened, request
from tests.support.receivers import deaf_port, scripted


@pytest.mark.parametrize("uri", ["http://127.0.0.1:{port}/", "https://2130706433:{port}/", "ftp://127.0.0.1:{port}/"])
async def test_what_is_not_allowed_is_not_connected_to(transport: HttpTransport, uri: str) -> None:
    """By default: https only, public addresses only. `egress_cases` has the coats that they wear."""
    async with scripted() as receiver:
        wire = await transport.post(request(uri.format(port=receiver.port), egress=EgressPolicy()))
        assert receiver.connections == 0
    assert broken(wire) == (Reason.EGRESS_DENIED, False)


@pytest.mark.parametrize("name", ["rebound.example", "metadata.example", "six.example"])
async def test_the_address_really_connected_to_is_judged(named: HttpTransport, name: str) -> None:
    """A name may mean anything: what it means now is what counts, and the text names the setting."""
    wire = await named.post(request(f"http://{name}:9/"))
    assert isinstance(wire, Break)
    assert (wire.reason, wire.ambiguous) == (Reason.EGRESS_DENIED, False)
    assert "egress.allow" in wire.text


async def test_of_several_addresses_the_allowed_ones_are_used(named: HttpTransport) -> None:
    """One denied address does not forbid the others; and when those fail, it is they that failed."""
    async with scripted(host="two.example") as receiver:
        assert await named.post(request(receiver.url)) == Answer(status=200)
        assert receiver.connections == 1
    async with deaf_port() as port:
        wire = await named.post(request(f"http://two.example:{port}/"))
    assert broken(wire) == (Reason.CONNECT, False)


async def test_of_very_many_addresses_a_few_are_tried() -> None:
    """Trying thousands costs by their square: a client's name server would have the whole loop to the deadline."""
    names = {"many.example": [f"127.1.{number >> 8}.{number & 255}" for number in range(2000)]}
    names["six.example"] = [*(f"fd00::{number:x}" for number in range(2000)), "127.0.0.1"]
    async with opened(ScriptedResolver(names)) as transport, deaf_port() as port:
        wire = await transport.post(request(f"http://many.example:{port}/", within=5.0))
        assert isinstance(wire, Break)
        assert wire.reason is Reason.CONNECT
        async with scripted(host="six.example") as receiver:
            assert await transport.post(request(receiver.url)) == Answer(status=200)
