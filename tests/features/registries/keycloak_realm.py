"""A realm for tests: clients of each kind, and service accounts with and without the role that the registry needs."""

from typing import Any

REALM = "demo"
SECRET = "s3cret-of-service-accounts"
MANY = 90  # with the others more than one page
_URL = "backchannel.logout.url"
_REQUIRED = "backchannel.logout.session.required"
_OWN_REQUIRED = "notifier.backchannel_logout_session_required"
_ALGORITHM = "id.token.signed.response.alg"


def _client(name: str, attributes: dict[str, str], **more: Any) -> dict[str, Any]:
    return {"clientId": name, "secret": f"secret-of-{name}", "attributes": attributes, **more}


def _service(name: str, **more: Any) -> dict[str, Any]:
    attributes = more.pop("attributes", {})
    return {
        "clientId": name,
        "secret": SECRET,
        "serviceAccountsEnabled": True,
        "standardFlowEnabled": False,
        "attributes": attributes,
        **more,
    }


_PAIRWISE = {
    "name": "pairwise",
    "protocol": "openid-connect",
    "protocolMapper": "oidc-sha256-pairwise-sub-mapper",
    "config": {"pairwiseSubAlgorithmSalt": "salt"},
}
ROLES = {"reader": "view-clients", "short": "view-clients", "querier": "query-clients", "seer": "view-realm"}


def realm() -> dict[str, Any]:
    """Return the realm to import."""
    clients = [
        _client("abs", {_URL: "https://abs.example.com/logout", _REQUIRED: "true", _ALGORITHM: "ES256"}),
        _client("rel", {_URL: "/logout"}, rootUrl="https://rel.example.com/app", publicClient=True),
        _client("own", {_URL: "/own"}, rootUrl="${authBaseUrl}"),
        _client("rootless", {_URL: "/rootless"}),
        _client("fragment", {_URL: "https://fragment.example.com/logout#here"}),
        _client(
            "both",
            {_URL: "https://both.example.com/bc", "frontchannel.logout.url": "https://both.example.com/fc"},
            frontchannelLogout=True,
        ),
        _client(
            "pairwise",
            {_URL: "https://pw.example.com/bc"},
            protocolMappers=[_PAIRWISE],
            redirectUris=["https://pw.example.com/*"],  # Keycloak takes the sector from it
        ),
        _client("disabled", {_URL: "https://disabled.example.com/bc"}, enabled=False),
        _client("bearer", {}, bearerOnly=True),
        _client("saml", {_URL: "https://saml.example.com/bc"}, protocol="saml"),
        _client("slow", {_URL: "https://slow.example.com/bc", "notifier.timeout": "20s"}),
        _client(
            "encrypted",
            {
                _URL: "https://enc.example.com/bc",
                "id.token.encrypted.response.alg": "RSA-OAEP",
                "id.token.encrypted.response.enc": "A256GCM",
                "use.jwks.url": "true",
                "jwks.url": "https://enc.example.com/jwks",
            },
        ),
        _service("reader"),
        _service("short", attributes={"access.token.lifespan": "1"}),
        _service("querier"),
        _service("seer"),
        _service("nobody"),
        _client("no-account", {}, secret=SECRET),
        _service("off", enabled=False),
        _client("public", {}, publicClient=True),
        *(_client(f"z-{nth:03}", {_URL: f"https://app{nth}.example.com/bc"}) for nth in range(MANY)),
    ]
    accounts = [
        {
            "username": f"service-account-{name}",
            "enabled": True,
            "serviceAccountClientId": name,
            "clientRoles": {"realm-management": [role]},
        }
        for name, role in ROLES.items()
    ]
    return {"realm": REALM, "enabled": True, "sslRequired": "none", "clients": clients, "users": accounts}


def shop_realm(silent: str, loud: str) -> dict[str, Any]:
    """Return a realm with two clients: only notifier has the address of one; Keycloak notifies the other too."""
    more = {"publicClient": True, "redirectUris": ["http://127.0.0.1/*"]}
    reader = _service("reader")
    account = {
        "username": "service-account-reader",
        "enabled": True,
        "serviceAccountClientId": "reader",
        "clientRoles": {"realm-management": ["view-clients"]},
    }
    clients = [
        reader,
        _client("silent", {"notifier.backchannel_logout_uri": silent, _OWN_REQUIRED: "true"}, **more),
        _client("loud", {_URL: loud, _REQUIRED: "false"}, **more),
    ]
    return {
        "realm": "shop", "enabled": True, "sslRequired": "none", "eventsEnabled": True, "adminEventsEnabled": True,
        "attributes": {"ssf.transmitterEnabled": "true"},
        "clients": clients,
        "users": [account],
    }  # fmt: skip


def shop_user(name: str, password: str) -> dict[str, Any]:
    """A user who has nothing left to do before a first sign-in."""
    credentials = [{"type": "password", "value": password, "temporary": False}]
    person = {"firstName": name, "lastName": name, "email": f"{name}@example.com", "emailVerified": True}
    return {"username": name, "enabled": True, "credentials": credentials, **person}


def transmitter(endpoint: str, audience: str) -> dict[str, Any]:
    """Return the client to which the realm pushes Security Event Tokens."""
    attributes = {
        "ssf.enabled": "true",
        "ssf.defaultSubjects": "ALL",
        "ssf.streamAudience": audience,
        "ssf.validPushUrls": endpoint,
    }
    return {**_service("events", attributes=attributes), "optionalClientScopes": ["ssf.manage"]}


def published_key(realm_id: str, pem: str, kid: str) -> dict[str, Any]:
    """Return notifier's key as a component of the realm: it is in the JWK Set, but Keycloak never signs with it."""
    config = {
        "privateKey": pem,
        "kid": kid,
        "algorithm": "RS256",
        "active": "false",
        "enabled": "true",
        "priority": "0",
    }
    return {
        "name": "notifier", "providerId": "rsa", "providerType": "org.keycloak.keys.KeyProvider", "parentId": realm_id,
        "config": {name: [value] for name, value in config.items()},
    }  # fmt: skip
