"""A realm of Keycloak whose users are operators, set up as in docs/console-sign-in.md."""

from typing import Any

from tests.features.registries.keycloak_realm import shop_user

REALM, CLIENT, AUDIENCE = "staff", "notifier-console", "notifier-api"
PASSWORD, LIFE = "raw-password-77", 120
_ROLES = {"alice": "sre", "bob": "support", "carol": "sales"}


def _audience(name: str) -> dict[str, Any]:
    config = {"included.custom.audience": name, "access.token.claim": "true", "id.token.claim": "false"}
    return {
        "name": "audience", "protocol": "openid-connect", "protocolMapper": "oidc-audience-mapper", "config": config,
    }  # fmt: skip


def _client(name: str, redirect_uri: str, **attributes: str) -> dict[str, Any]:
    """A public client with tokens of type `at+jwt`."""
    plain = {
        "pkce.code.challenge.method": "S256", "access.token.lifespan": str(LIFE),
        "access.token.header.type.rfc9068": "true",
    }  # fmt: skip
    return {
        "clientId": name, "publicClient": True, "standardFlowEnabled": True, "redirectUris": [redirect_uri],
        "attributes": {name.replace("_", "."): value for name, value in (plain | attributes).items()},
        "protocolMappers": [_audience(AUDIENCE)],
    }  # fmt: skip


def staff_realm(logout_url: str, redirect_uri: str) -> dict[str, Any]:
    """The console's client, and users with and without a role of the API."""
    attributes = {"backchannel_logout_url": logout_url, "backchannel_logout_session_required": "true"}
    clients = [_client(CLIENT, redirect_uri, **attributes)]
    roles = {"realm": [{"name": name} for name in _ROLES.values()]}
    users = [{**shop_user(name, PASSWORD), "realmRoles": [role]} for name, role in _ROLES.items()]
    return {
        "realm": REALM, "enabled": True, "sslRequired": "none", "clients": clients, "roles": roles, "users": users,
    }  # fmt: skip


def staff_oidc(url: str, **changes: object) -> dict[str, object]:
    """The section `api.console.oidc` for this realm."""
    return {
        "issuer": f"{url}/realms/{REALM}", "client_id": CLIENT, "audience": AUDIENCE,
        "scopes_claim": ["realm_access", "roles"], "map": {"sre": ["read", "repair"], "support": ["read"]},
        "name_claim": "preferred_username", **changes,
    }  # fmt: skip
