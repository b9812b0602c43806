"""Test the clients of a front-channel page, and their addresses."""

from dataclasses import replace
from types import MappingProxyType
from urllib.parse import parse_qsl, urlsplit

import pytest

from notifier.model.client import Client, FrontChannelClient, FrontChannelWay
from notifier.model.front_channel import (
    AskedClient,
    FrontChannelContext,
    UnaskedClient,
    create_page_context,
    find_front_channel_error,
    plan_page,
    uri_of,
)
from notifier.model.origins import origin_of
from notifier.model.registry import Issuer, Registry
from notifier.model.session_ended import ClientEntry, SessionEnded

ISS = "https://login.example.com"
CONTEXT = FrontChannelContext(iss=ISS, sid="5F2A", clients=(("billing", None), ("shop", "own")))


def _client(client_id: str, uri: str | None, *, required: bool = False, way: FrontChannelWay | None = None) -> Client:
    front = None
    if uri is not None:
        front = FrontChannelClient(
            frontchannel_logout_uri=uri,
            frontchannel_logout_session_required=required,
            way=way or FrontChannelWay.BROWSER,
        )
    return Client(iss=ISS, client_id=client_id, backchannel_logout_uri=None, front_channel=front)


def _registry(*clients: Client) -> Registry:
    mapping = MappingProxyType({client.client_id: client for client in clients})
    return Registry(issuers={ISS: Issuer(iss=ISS)}, clients={ISS: mapping})


REGISTRY = _registry(
    _client("billing", "https://billing.example.net/signout?tenant=a%2Fb"),
    replace(_client("shop", "https://shop.example.org/out", required=True), client_name="The shop"),
    _client("worker", "https://worker.example.org/out", way=FrontChannelWay.SERVER),
    _client("plain", None),
)


def _event(*clients: str | ClientEntry, sid: str | None = "5F2A") -> SessionEnded:
    return SessionEnded(id="e1", id_given=True, iss=ISS, sub="u1", sid=sid, clients=clients or "*")


@pytest.mark.parametrize(
    ("uri", "origin"),
    [
        ("https://rp.example.com/cb?x=1", "https://rp.example.com"),
        ("https://RP.example.com:443/", "https://rp.example.com"),
        ("http://[::1]:8080/cb", "http://[::1]:8080"),
        ("com.example.app:/cb", None),
        ("https://rp.example.com:x/", None),
    ],
)
def test_an_origin_is_written_as_browsers_write_it(uri: str, origin: str | None) -> None:
    """Default ports are omitted, names are in lower case, and custom schemes have none."""
    assert origin_of(uri) == origin


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("javascript:alert(1)", "absolute URI"),
        ("https://rp.example.com/out#x", "fragment"),
        ("http://rp.example.com/out", "allow_http"),
        ("https://other.example.com/out", "redirect_uris"),
        ("https://rp.example.com:8443/out", "redirect_uris"),
    ],
)
def test_front_channel_uri_that_pages_may_not_load_is_reported(uri: str, text: str) -> None:
    """A script would run in the issuer's origin; another origin than the client's own is refused (F1)."""
    mistake = find_front_channel_error(uri, ("https://rp.example.com",), allow_http=False)
    assert mistake is not None
    assert text in mistake


def test_front_channel_uri_of_the_clients_origin_is_accepted() -> None:
    """Also http, if allowed, and any origin if no redirect URI is known."""
    assert (
        find_front_channel_error("https://rp.example.com/o?a=1", ("https://rp.example.com",), allow_http=False) is None
    )
    assert find_front_channel_error("http://rp.example.com/o", ("http://rp.example.com",), allow_http=True) is None
    assert find_front_channel_error("https://rp.example.com/o", (), allow_http=False) is None


def test_iss_and_sid_are_added_together_and_the_query_stays() -> None:
    """F4, and Front-Channel Logout 1.0 §2."""
    client = REGISTRY.clients_of(ISS)["billing"]
    uri = uri_of(client, ISS, "a&b=c")
    assert uri is not None
    assert uri.startswith("https://billing.example.net/signout?tenant=a%2Fb&iss=")
    assert parse_qsl(urlsplit(uri).query) == [("tenant", "a/b"), ("iss", ISS), ("sid", "a&b=c")]
    assert uri_of(client, ISS, None) == "https://billing.example.net/signout?tenant=a%2Fb"
    assert uri_of(REGISTRY.clients_of(ISS)["shop"], ISS, None) is None


def test_page_contains_the_clients_that_browsers_call() -> None:
    """Without clients that the worker calls, clients without a URI, and unknown clients."""
    context = create_page_context(
        _event("billing", ClientEntry(client_id="shop", sid="own"), "worker", "plain", "x"), REGISTRY
    )
    assert context == CONTEXT
    assert create_page_context(_event("worker", "plain"), REGISTRY) is None
    everyone = create_page_context(_event(), REGISTRY)
    assert everyone is not None
    assert [client_id for client_id, _ in everyone.clients] == ["billing", "shop"]


def test_page_is_planned_by_the_current_registry() -> None:
    """Unregistered clients are omitted; a client that requires a missing sid is reported."""
    plan = plan_page(CONTEXT, REGISTRY)
    assert plan.asked[1] == AskedClient(
        client_id="shop",
        name="The shop",
        uri=f"https://shop.example.org/out?iss={'https%3A%2F%2Flogin.example.com'}&sid=own",
    )
    without = FrontChannelContext(iss=ISS, sid=None, clients=(("billing", None), ("shop", None), ("gone", None)))
    plan = plan_page(without, REGISTRY)
    assert [each.client_id for each in plan.asked] == ["billing"]
    assert plan.unasked == (UnaskedClient(client_id="shop", name="The shop"),)


def test_client_with_name_and_alias_is_called_once() -> None:
    """By its first name: an identity server that seals a context itself may use several names of a client."""
    registry = replace(REGISTRY, aliases={ISS: {"shop-alias": "shop"}})
    context = replace(CONTEXT, clients=(("shop-alias", "own"), ("shop", None), ("billing", None)))
    plan = plan_page(context, registry)
    assert [each.client_id for each in plan.asked] == ["shop", "billing"]
    assert plan.asked[0].uri.endswith("&sid=own")
