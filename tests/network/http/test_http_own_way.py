"""The transport where aiohttp is inside another than the one tried: by its session, on connections that are not kept.

What holds is what holds otherwise; the facts that are told again here stand in the tests whose names they bear.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from notifier.model.outcome import Answer, Reason
from notifier.network.http import aiohttp_hooks
from notifier.network.http.transport import HttpTransport
from tests.network.http import (
    test_http_egress,
    test_http_proxy,
    test_http_tls,
    test_http_transport,
    test_issuer_documents,
)
from tests.network.http.http_requests import SHORT, WRITTEN, ScriptedResolver, broken, opened, request
from tests.support import behaviours as do
from tests.support.receivers import deaf_port, scripted

test_form = test_http_transport.test_a_post_is_one_form_field_and_nothing_else
test_headers = test_http_transport.test_the_clients_own_headers_are_sent_along
test_cookies = test_http_transport.test_cookies_are_not_kept
test_environment = test_http_transport.test_proxies_of_the_environment_are_not_used
test_status = test_http_transport.test_the_status_decides
test_redirect = test_http_transport.test_a_redirect_is_never_followed
test_retry_after = test_http_transport.test_retry_after_is_handed_on
test_body = test_http_transport.test_a_body_is_read_up_to_16_kib
test_bomb = test_http_transport.test_a_bomb_is_not_decompressed
test_denied = test_http_egress.test_what_is_not_allowed_is_not_connected_to
test_rebound = test_http_egress.test_the_address_really_connected_to_is_judged
test_several = test_http_egress.test_of_several_addresses_the_allowed_ones_are_used
test_authority = test_http_tls.test_an_unknown_authority_is_named_as_such
test_name = test_http_tls.test_a_certificate_of_another_name_is_named_as_such
test_expired = test_http_tls.test_of_a_certificate_that_has_expired_the_day_is_told
test_certificate = test_http_tls.test_a_client_certificate_is_shown
test_proxied = test_http_proxy.test_a_proxy_is_told_the_whole_uri_and_its_password
test_proxy_refuses = test_http_proxy.test_a_proxy_that_refuses_us_is_a_fault_of_ours
test_document = test_issuer_documents.test_the_document_and_the_servers_clock
test_private = test_issuer_documents.test_private_addresses_are_allowed_and_clear_text_and_metadata_are_not


@pytest.fixture(autouse=True)
async def another_inside(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """A connector that is asked in another way: found so, told once, and not leant on."""
    original = aiohttp.BaseConnector.connect

    async def connect(self: aiohttp.BaseConnector, *words: Any, **more: Any) -> Any:
        return await original(self, *words, **more)

    monkeypatch.setattr(aiohttp.BaseConnector, "connect", connect)
    aiohttp_hooks.usable.cache_clear()
    with capture_logs() as log:
        assert [aiohttp_hooks.usable(), aiohttp_hooks.usable()] == [False, False]
    [told] = log
    assert (told["event"], told["hook"], told["library"]) == ("library_hook_off", "connections", "aiohttp")
    assert told["version"] == aiohttp.__version__
    yield
    monkeypatch.undo()
    aiohttp_hooks.usable.cache_clear()


async def test_no_connection_is_kept(transport: HttpTransport) -> None:
    """So none is met that its server has closed, and nothing that came while it idled."""
    async with scripted() as receiver:
        for _ in range(3):
            assert await transport.post(request(receiver.url)) == Answer(status=200)
        assert receiver.connections == 3
        await receiver.until(lambda receiver: receiver.open == 0)


async def test_what_may_have_arrived_is_ambiguous_and_what_has_not_is_not(transport: HttpTransport) -> None:
    """A retry is due in each case; a client's 400 to it counts only where the token cannot have come before."""
    async with scripted(do.close(), do.reset()) as receiver, deaf_port() as port:
        assert broken(await transport.post(request(receiver.url))) == (Reason.DISCONNECTED, True)
        assert broken(await transport.post(request(receiver.url))) == (Reason.DISCONNECTED, True)
        assert broken(await transport.post(request(f"http://127.0.0.1:{port}/"))) == (Reason.CONNECT, False)


async def test_a_name_that_is_not_found_or_not_answered() -> None:
    """Nothing was written."""
    async with opened(ScriptedResolver({})) as http:
        assert broken(await http.post(request("http://gone.example/"))) == (Reason.DNS, False)
        assert broken(await http.post(request("http://silent.example/", within=SHORT))) == (Reason.TIMEOUT, False)


async def test_the_deadline_ends_a_silence_and_a_flood(transport: HttpTransport) -> None:
    """Both may have been read by the client. Neither keeps anybody else waiting."""
    async with (
        scripted(do.flood_headers(), do.answer(200)) as receiver,
        scripted(do.hang()) as mute,
        scripted() as other,
    ):
        flood, silence, healthy = await asyncio.gather(
            transport.post(request(receiver.url, within=WRITTEN)),
            transport.post(request(mute.url, within=WRITTEN)),
            transport.post(request(other.url)),
        )
        assert healthy == Answer(status=200)
        assert broken(silence) == (Reason.TIMEOUT, True)
        assert broken(flood)[1]
        assert await transport.post(request(receiver.url)) == Answer(status=200)
