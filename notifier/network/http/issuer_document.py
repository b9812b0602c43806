"""Defines the documents that an issuer publishes: metadata (OpenID Connect Discovery 1.0), JWK Set, and pages.

A client publishes a JWK Set too.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_network
from urllib.parse import urlsplit

from notifier.model.client import EgressPolicy
from notifier.model.origins import origin_of

LOOP_STATUS = 508
_ANYWHERE = (ip_network("0.0.0.0/0"), ip_network("::/0"))


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerDocument:
    """A JSON document. `date`: the time in the `Date` header of the response (epoch seconds), None without it.

    `fresh_seconds`: the seconds for which the document may be cached by Cache-Control, None without a limit.
    `algorithms`: the algorithms that the issuer's metadata state for its tokens, None if they state none.
    """

    content: object
    date: float | None = None
    fresh_seconds: float | None = None
    algorithms: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentIssue:
    """The document could not be read, but may be published. `text`: the reason.

    `status`: the status of the response; 0 if the server is unreachable. None for an unusable response or address.
    """

    text: str
    status: int | None = None

    @property
    def is_outage(self) -> bool:
        """Return whether the server is unreachable or fails, so that nothing is known about the document.

        508 is not an outage: the address leads back to the reader (RFC 5842 §7.2).
        """
        return self.status == 0 or (self.status is not None and self.status >= 500 and self.status != LOOP_STATUS)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerHead:
    """The head of a response. `headers` have names in lower case, each with all its values."""

    status: int
    headers: Mapping[str, tuple[str, ...]]


def present_members(document: Mapping[str, object]) -> dict[str, object]:
    """Return the members that have a value. `null`, an empty text and an empty list count as absent.

    Serializers of .NET, Go and Java write them for members that are not set.
    """
    return {name: value for name, value in document.items() if value is not None and value not in ("", [])}


def parse_remaining_freshness(cache_control: str, age: str | None) -> float | None:
    """Return the seconds for which a response stays fresh: `max-age` minus `Age` (RFC 9111 §4.2, §5.2.2).

    The result is 0 for `no-cache` and `no-store`, and None without `max-age`.
    """
    if re.search(r"(?i)\bno-(cache|store)\b", cache_control) is not None:
        return 0.0
    max_age = re.search(r"(?i)(?<![\w-])max-age=\"?([0-9]{1,10})", cache_control)
    if max_age is None:
        return None
    age = "" if age is None else age.strip()
    age_seconds = float(age) if re.fullmatch(r"[0-9]{1,10}", age) else 0.0
    return max(0.0, float(max_age[1]) - age_seconds)


def issuer_egress(policy: EgressPolicy) -> EgressPolicy:
    """Return the egress policy for the issuer's own documents.

    The operator configures these addresses, so private addresses are allowed. `deny`, the denial of clouds' metadata
    services, and the requirement of https apply as for clients.
    """
    return replace(policy, allow=(*policy.allow, *_ANYWHERE))


def discovered_egress(policy: EgressPolicy, uri: str, *operator_uris: str) -> EgressPolicy:
    """Return the egress policy for an address that a document of the issuer contains.

    If the operator has configured an address on the same server (`operator_uris`), the policy is that of the issuer's
    own documents. Otherwise it is the policy of clients, so that no document can allow a private address.
    """
    return issuer_egress(policy) if origin_of(uri) in map(origin_of, operator_uris) else policy


def is_for_tests(iss: str) -> bool:
    """Return True if the issuer's host is in `.invalid` (RFC 2606 §2), as with `helm test`.

    Such an issuer publishes nothing, and its clients exist only while a test runs.
    """
    host = urlsplit(iss).hostname or ""
    return f".{host}".endswith(".invalid")


def find_only_issuer(issuers: Iterable[str]) -> str | None:
    """Return the default issuer: the only issuer that is not for tests. None if there are several, or none."""
    real = [iss for iss in issuers if not is_for_tests(iss)]
    return real[0] if len(real) == 1 else None


def metadata_uri(iss: str) -> str:
    """Return the URI of the issuer's metadata (OpenID Connect Discovery 1.0 §4.1)."""
    return iss.rstrip("/") + "/.well-known/openid-configuration"
