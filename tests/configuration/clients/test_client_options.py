"""Test what each option of a client changes in the resulting client."""

from collections.abc import Mapping

import pytest

from notifier.configuration.clients.client_building import build_client, build_unregistered_client
from notifier.configuration.clients.route_grants import route_grants_of
from notifier.model.client import Client
from notifier.settings.clients import ClientMetadata, ClientOptions, TokenOptions

ISS = "https://id.example.com"
ORIGIN = "https://shop.example.com"
TEMPLATE = Client(iss="", client_id="", backchannel_logout_uri=None)
VALUES: dict[str, object] = {
    "preset": "rauthy",
    "typ": "JWT",
    "subject": "sid",
    "audience": "list",
    "lifetime": "60s",
    "claims": {"tenant": "a"},
    "reason_claim": "why",
    "timeout": "4s",
    "max_concurrent": 3,
    "per_second": 7.0,
    "paused": True,
    "max_age": "1h",
    "sub_only_max_age": "1m",
    "retry": {"base": "7s"},
    "egress": {"allow_http": True},
    "tls": {"ca_file": __file__},
    "proxy": "http://proxy.example.com:3128",
    "headers": {"X-Key": "a"},
    "success_statuses": [404],
    "retry_statuses": [404],
    "front_channel": "off",
    "follows": "shop-eu",
}


def built(options: Mapping[str, object], list_only: tuple[str, ...] = ()) -> Client:
    metadata = ClientMetadata(
        client_id="shop",
        backchannel_logout_uri=f"{ORIGIN}/hook",
        frontchannel_logout_uri=f"{ORIGIN}/out",
        redirect_uris=(f"{ORIGIN}/in",),
        notifier=ClientOptions.model_validate(options),
    )
    assert metadata.notifier is not None
    grants = route_grants_of(ISS, metadata, metadata.notifier, TEMPLATE.route, defaults=None, list_only=list_only)
    return build_client(ISS, metadata, metadata.notifier, grants, TEMPLATE, {})


@pytest.mark.parametrize("option", sorted(ClientOptions.model_fields.keys() - {"origins"}))
def test_each_option_alone_changes_the_client(option: str) -> None:
    """An option that is accepted but not applied would be ignored without an error."""
    assert built({option: VALUES[option]}) != built({})


def test_options_of_tokens_are_declared_as_such() -> None:
    """A further address of a client takes them from it, and a client with a channel has none."""
    changing = {name for name in VALUES if built({name: VALUES[name]}).token != built({}).token}
    assert changing == TokenOptions.model_fields.keys()


def test_client_of_an_event_has_these_defaults_of_its_issuer() -> None:
    """The publisher chooses its address: it gets times, limits and CAs, but no credentials or wider egress."""
    options = {name: ClientOptions.model_validate({name: VALUES[name]}) for name in VALUES}
    applied = {name for name, option in options.items() if build_unregistered_client(TEMPLATE, option) != TEMPLATE}
    assert VALUES.keys() - applied - TokenOptions.model_fields.keys() == {
        "preset", "paused", "egress", "proxy", "headers", "success_statuses", "retry_statuses", "front_channel",
        "follows",
    }  # fmt: skip


def test_origins_change_the_route_of_a_client_of_a_list() -> None:
    """They permit credentials at an address that no file contains."""
    secret = {"headers": {"X-Key": "a"}}
    listed = ("backchannel_logout_uri", "frontchannel_logout_uri")
    assert built(secret, listed).route.withheld is not None
    assert built({**secret, "origins": [ORIGIN]}, listed) == built(secret)
