"""What a client of Keycloak, as its Admin API shows it, means to notifier."""

from typing import Any

import pytest

from notifier.configuration.clients.authority import REDACTED, ListBounds, limit_row
from notifier.configuration.clients.remote_rows import clean_row
from notifier.features.registries.keycloak_clients import KeycloakRealm
from notifier.model.client import Algorithm
from notifier.model.errors import InputIssue

BASE = "https://id.example.com/auth"
REALM = KeycloakRealm(
    issuer=None, frontend_url=BASE, admin_url="https://internal:8443/auth", default_algorithm=Algorithm.PS256
)
URL = "https://shop.example.com/logout"
NONE: dict[str, Any] = {}


def row_of(attributes: Any, **more: Any) -> Any:
    return REALM.to_row({"clientId": "shop", "attributes": attributes, **more}, "[4]")


def at(url: str, **more: Any) -> Any:
    """The address that a back-channel logout URL becomes."""
    row = row_of({"backchannel.logout.url": url}, **more)
    return row.text if isinstance(row, InputIssue) else row.get("backchannel_logout_uri")


@pytest.mark.parametrize(
    ("url", "root", "address"),
    [
        (URL, "https://other.example.com", URL),
        ("/logout", "https://a.example.com/app", "https://a.example.com/app/logout"),  # appended, not RFC 3986
        ("/logout", "https://a.example.com/app/", "https://a.example.com/app//logout"),
        ("/logout", "${authBaseUrl}", f"{BASE}/logout"),
        ("/logout", "${authAdminUrl}", "https://internal:8443/auth/logout"),
        ("/logout", None, "https://id.example.com/logout"),
        ("/logout", "", "https://id.example.com/logout"),
        (f"  {URL}\n", None, URL),
        ("   ", None, None),
    ],
)
def test_an_address_is_what_keycloak_would_post_to(url: str, root: str | None, address: str | None) -> None:
    """A path is appended to the root URL as it stands."""
    assert at(url, rootUrl=root) == address


@pytest.mark.parametrize(
    ("url", "root", "words"),
    [
        ("http://a.example.com/x#frag", None, "must not have a fragment"),
        ("${application.session.host}/x", None, "holds ${application.session.host}, which"),
        ("/x", "${appHost", "holds ${appHost"),
        ("/x", "/relative", "must be an absolute URI"),
        ("relative", None, "must be an absolute URI"),
    ],
)
def test_an_address_that_cannot_be_used_is_a_fault_of_its_client(url: str, root: str | None, words: str) -> None:
    """It names the error and the client."""
    fault = REALM.to_row({"clientId": "shop", "rootUrl": root, "attributes": {"backchannel.logout.url": url}}, "[4]")
    assert isinstance(fault, InputIssue)
    assert fault.path == "shop"
    assert f"its back-channel logout URL {words}" in fault.text


PS256 = {"id_token_signed_response_alg": "PS256"}


def back(uri: str, *, session: bool = False) -> dict[str, Any]:
    """What is read of a back-channel address."""
    return {"backchannel_logout_uri": uri, "backchannel_logout_session_required": session}


@pytest.mark.parametrize(
    ("attributes", "more", "row"),
    [
        # no address: known, so that an event that names it is explained
        (NONE, {}, PS256),
        (None, {}, PS256),
        ({"id.token.signed.response.alg": "HS256"}, {}, {}),
        ({"id.token.encrypted.response.alg": "RSA-OAEP"}, {}, PS256),
        # Keycloak notifies neither disabled clients nor SAML clients
        ({"backchannel.logout.url": URL}, {"enabled": False}, {}),
        ({"backchannel.logout.url": "${x}"}, {"enabled": False}, {}),
        ({"backchannel.logout.url": URL}, {"protocol": "saml"}, {}),
        # with an address
        (
            {"backchannel.logout.url": URL, "id.token.signed.response.alg": "ES256"},
            {"protocol": "openid-connect", "publicClient": True, "bearerOnly": True},
            {"id_token_signed_response_alg": "ES256", **back(URL)},
        ),
        (
            {"backchannel.logout.url": URL, "backchannel.logout.session.required": "True",
             "id.token.signed.response.alg": "any"},
            {"protocolMappers": [{"protocolMapper": "oidc-sha256-pairwise-sub-mapper"}, {}, None]},
            {**PS256, "subject_type": "pairwise", **back(URL, session=True)},
        ),
        # both channels
        (
            {"backchannel.logout.url": "/bc", "frontchannel.logout.session.required": "false"},
            {"frontchannelLogout": True, "rootUrl": "https://a.example.com", "baseUrl": "/home"},
            {
                **PS256,
                "frontchannel_logout_uri": "https://a.example.com/home",
                "frontchannel_logout_session_required": False,
                **back("https://a.example.com/bc"),
            },
        ),
        ({"frontchannel.logout.url": "${x}/fc"}, {"frontchannelLogout": True}, PS256),
        ({"frontchannel.logout.url": URL}, {"frontchannelLogout": False}, PS256),
        # a name, and redirect URIs: relative ones, those of an app, and `*` at the end of any
        (
            NONE,
            {"name": "Shop", "rootUrl": "https://a.example.com",
             "redirectUris": ["/*", "https://b.example.com*", "https://c.example.com/cb*", "app:/cb", 5]},
            {**PS256, "client_name": "Shop", "redirect_uris": ["https://a.example.com/*", "https://c.example.com/cb*"]},
        ),
        # an address that Keycloak itself does not know, so that it stays silent
        (
            {"notifier.backchannel_logout_uri": "/bc", "notifier.backchannel_logout_session_required": "true",
             "notifier.timeout": "3s"},
            {"rootUrl": "https://a.example.com"},
            {**PS256, **back("https://a.example.com/bc", session=True), "notifier": {"timeout": "3s"}},
        ),
        # notifier's own settings
        (
            {"notifier.timeout": "3s", "notifier.max_concurrent": "5", "notifier.retry.base": "2s",
             "notifier.typ": " "},
            {},
            {**PS256, "notifier": {"timeout": "3s", "max_concurrent": 5, "retry": {"base": "2s"}}},
        ),
    ],
)  # fmt: skip
def test_a_client_becomes_a_row(attributes: Any, more: dict[str, Any], row: dict[str, Any]) -> None:
    """Nothing else of it is kept, its secret least of all."""
    secret = {"secret": "hunter2", "registrationAccessToken": "hunter2", "webOrigins": ["+"]}
    assert row_of(attributes, **secret, **more) == {"client_id": "shop", **row}


def test_an_attribute_makes_no_follower() -> None:
    """Whoever may edit a client of the realm would otherwise receive tokens for another client."""
    row = clean_row(row_of({"notifier.follows": "wiki", "notifier.backchannel_logout_uri": URL}), "[4]")
    assert not isinstance(row, InputIssue)
    assert row["notifier"] == {"follows": REDACTED}
    kept, ignored = limit_row(row, ListBounds(most={}, issuer_hosts=frozenset()))
    assert (kept["notifier"], ignored) == ({}, {"notifier.follows": "only a file may set it; it is ignored"})


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (None, "[4]: has no clientId"),
        ({"clientId": ""}, "[4]: has no clientId"),
        ({"clientId": 7}, "[4]: has no clientId"),
        (
            {
                "clientId": "shop",
                "attributes": {"backchannel.logout.url": URL, "id.token.signed.response.alg": "HS256"},
            },
            "shop: its ID tokens are signed with 'HS256'; choose one of RS256",
        ),
    ],
)
def test_a_client_that_cannot_be_used_is_a_fault(raw: Any, fault: str) -> None:
    """Of that client alone."""
    found = REALM.to_row(raw, "[4]")
    assert isinstance(found, InputIssue)
    assert str(found).startswith(fault)


@pytest.mark.parametrize(
    ("attributes", "more", "members"),
    [
        ({}, {}, {}),
        ({"id.token.encrypted.response.enc": "A256GCM"}, {}, {"id_token_encrypted_response_enc": "A256GCM"}),
        (
            {"use.jwks.url": "true", "jwks.url": "/keys", "jwks.string": "{}"},
            {"rootUrl": "https://shop.example.com"},
            {"jwks_uri": "https://shop.example.com/keys"},
        ),
        ({"use.jwks.url": "false", "jwks.url": "https://x/"}, {}, {}),
        ({"use.jwks.string": "true", "jwks.string": '{"keys": []}'}, {}, {"jwks": {"keys": []}}),
        ({"use.jwks.string": "true", "jwks.string": "{"}, {}, {"jwks": "{"}),
    ],
)
def test_the_encryption_of_its_tokens_is_read(
    attributes: dict[str, str], more: dict[str, Any], members: dict[str, Any]
) -> None:
    """Keycloak encrypts its own logout tokens by the settings for ID tokens, to a key of the client's Keys tab."""
    encrypted = {"backchannel.logout.url": URL, "id.token.encrypted.response.alg": "RSA-OAEP"}
    row = REALM.to_row({"clientId": "shop", "attributes": encrypted | attributes, **more}, "[4]")
    assert not isinstance(row, InputIssue)
    assert {name: value for name, value in row.items() if name.startswith(("id_token_enc", "jwks"))} == {
        "id_token_encrypted_response_alg": "RSA-OAEP",
        **members,
    }
