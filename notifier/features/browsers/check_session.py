"""Defines the page by which a client asks whether its session has changed (Session Management 1.0 §3.2).

The page compares the `session_state` that a client was given with the browser-state cookie of the identity server, by
that server's formula. Only Keycloak's formula binds neither client nor origin: there the registry says who may ask.
"""

from collections.abc import Mapping
from enum import StrEnum

from notifier.model.frozen import frozen
from notifier.model.registry import Registry


class SessionFormula(StrEnum):
    """How an identity server makes `session_state` from its browser-state cookie."""

    SPECIFICATION = "specification"
    DUENDE = "duende"
    WSO2 = "wso2"
    KEYCLOAK = "keycloak"


STATE_COOKIES: Mapping[SessionFormula, str] = {
    SessionFormula.DUENDE: "idsrv.session",
    SessionFormula.WSO2: "opbs",
    SessionFormula.KEYCLOAK: "KEYCLOAK_SESSION",
}
"""What each product calls its cookie. A server that makes `session_state` as the specification does names its own."""


@frozen
class CheckSession:
    """One page: the issuer of the sessions, the formula, and the name of the browser-state cookie."""

    issuer: str
    formula: SessionFormula
    cookie: str

    @property
    def binds_origin(self) -> bool:
        """True if a `session_state` is of one client at one origin, so that no other client can use it."""
        return self.formula is not SessionFormula.KEYCLOAK


def may_ask(page: CheckSession, registry: Registry, client_id: str, origin: str) -> bool:
    """True if the client is registered with a redirect URI of this origin (as browsers write it)."""
    client = registry.clients_of(page.issuer).get(client_id)
    return client is not None and origin in client.redirect_origins
