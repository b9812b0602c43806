"""Realms whose clients differ as clients of Keycloak do, and a user in no time."""

from typing import Any

from tests.features.registries.keycloak_realm import SECRET, shop_user

PASSWORD = "passw0rd-of-everybody"
CALLBACK = "http://127.0.0.1/callback"
SAML = "saml"
GOODBYE = "http://127.0.0.1/bye"
NOTIFIED = ("web", "app", "pair", "both")
"""Clients with an address: the usual, one with ES256 tokens, one with a pairwise `sub`, and one with a
front channel too, which Keycloak itself would never notify by the back channel."""
_URL = "backchannel.logout.url"
_REQUIRED = "backchannel.logout.session.required"
_PAIRWISE = {
    "name": "pairwise",
    "protocol": "openid-connect",
    "protocolMapper": "oidc-sha256-pairwise-sub-mapper",
    "config": {"pairwiseSubAlgorithmSalt": "salt"},
}


def realm(name: str, receivers: str, **more: Any) -> dict[str, Any]:
    """A realm. `receivers`: the URL of the server that plays all clients, each at the path of its name."""
    reader = {
        "clientId": "reader", "secret": SECRET, "serviceAccountsEnabled": True, "standardFlowEnabled": False,
    }  # fmt: skip
    account = {
        "username": "service-account-reader",
        "enabled": True,
        "serviceAccountClientId": "reader",
        "clientRoles": {"realm-management": ["view-clients"]},
    }
    clients = [
        _client("web", receivers),
        _client("app", receivers, {_REQUIRED: "false", "id.token.signed.response.alg": "ES256"}),
        _client("pair", receivers, protocolMappers=[_PAIRWISE]),
        _client("both", receivers, {"frontchannel.logout.url": f"{receivers}/front"}, frontchannelLogout=True),
        _client("asking", receivers, consentRequired=True),
        _client("off", receivers),
        _client("plain", receivers, {_URL: ""}),
        reader,
        {
            "clientId": SAML,
            "protocol": "saml",
            "redirectUris": ["http://127.0.0.1/*"],
            "attributes": {
                "saml_idp_initiated_sso_url_name": SAML,
                "saml_assertion_consumer_url_post": "http://127.0.0.1/saml",
                "saml.client.signature": "false",
                "saml_force_name_id_format": "true",
                "saml_name_id_format": "username",
            },
        },
    ]
    return {
        "realm": name, "enabled": True, "sslRequired": "none", "clients": clients, "users": [account],
        "passwordPolicy": "hashIterations(1)",  # each user's password is hashed twice in a test
        "eventsListeners": ["jboss-logging", "notifier"],  # the plug-in's listener publishes disabled users
        **more,
    }  # fmt: skip


def _client(name: str, receivers: str, attributes: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    return {
        "clientId": name, "publicClient": True, "redirectUris": ["http://127.0.0.1/*"], "fullScopeAllowed": True,
        "attributes": {_URL: f"{receivers}/{name}", _REQUIRED: "true", **(attributes or {})},
        **more,
    }  # fmt: skip


def user(name: str) -> dict[str, Any]:
    """A user, to be made by the Admin API: one of the realm's own list would have no roles."""
    return shop_user(name, PASSWORD)
