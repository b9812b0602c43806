"""What an issuer publishes about itself, as it was read: its metadata (OpenID Connect Discovery 1.0), its JWK Set."""

from dataclasses import dataclass, replace
from ipaddress import ip_network

from notifier.domain.client import EgressPolicy

_ANYWHERE = (ip_network("0.0.0.0/0"), ip_network("::/0"))


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerDocument:
    """A JSON document. `date`: the server's clock as its `Date` header tells it, in epoch seconds, where it does."""

    content: object
    date: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadDocument:
    """It could not be read; `text` says why. That says nothing of what is published."""

    text: str


def issuer_egress(policy: EgressPolicy) -> EgressPolicy:
    """Where the issuer's own documents may be read from.

    The operator names these addresses, no registration does: private ones are allowed. `deny`, the metadata services of
    clouds, and https unless `allow_http`, hold as for clients.
    """
    return replace(policy, allow=(*policy.allow, *_ANYWHERE))


def metadata_uri(iss: str) -> str:
    """Where the issuer's metadata is (OpenID Connect Discovery 1.0 §4.1)."""
    return iss.rstrip("/") + "/.well-known/openid-configuration"
