"""Checks the claims of a Security Event Token (SET, RFC 8417) that a transmitter has pushed (RFC 8935).

A refused token gets one of the error codes of RFC 8935 §2.4. `signed_content.py` verifies signatures.
"""

import base64
import binascii
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeGuard

from notifier.model.client import Algorithm
from notifier.model.documents.cloudevents import read_json
from notifier.model.errors import InputIssue, MalformedEvent
from notifier.model.moment import is_in_milliseconds

SetError = Literal["invalid_request", "invalid_key", "invalid_issuer", "invalid_audience", "authentication_failed"]
SET_ALGORITHMS = frozenset(map(str, Algorithm))  # not HS256, whose secret would be the published key
SET_TYPES = ("secevent+jwt", "application/secevent+jwt")
VERIFICATIONS = frozenset(
    f"https://schemas.openid.net/secevent/{framework}/event-type/verification" for framework in ("ssf", "sse", "risc")
)  # Shared Signals Framework 1.0 §8.1.4, and its earlier names
MAX_SKEW_SECONDS = 300.0  # the transmitter's clock may be so far ahead


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedSet:
    """The claims of a token that was verified, as the JSON that was signed."""

    claims: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnacceptedSet:
    """The reason why a token is refused. `description` has no secret: any sender of a token receives it."""

    err: SetError
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysUnavailable:
    """The token cannot be verified now, because the keys of its issuer cannot be read."""

    text: str


def check_claims(claims: Mapping[str, object], *, issuer: str, audience: str, now: float) -> UnacceptedSet | None:
    """Return the error in the claims of a token with a valid signature; None if they are acceptable.

    The age of the token is not limited here, because a transmitter may send it late. `now`: epoch seconds.
    """
    if claims.get("iss") != issuer:
        return UnacceptedSet(err="invalid_issuer", description="iss is another issuer")
    if not has_audience(claims.get("aud"), {audience}):
        return UnacceptedSet(err="invalid_audience", description="aud does not name this receiver")
    mistake = _find_error(claims, now)
    return None if mistake is None else UnacceptedSet(err="invalid_request", description=mistake)


def is_verification(claims: object) -> bool:
    """Return True for the claims of a verification token, by which a transmitter tests delivery. It ends no session."""
    events = claims.get("events") if isinstance(claims, dict) else None
    return isinstance(events, dict) and bool(events) and events.keys() <= VERIFICATIONS


def _find_error(claims: Mapping[str, object], now: float) -> str | None:
    """Return the error in `jti`, `events` or the times of a token; None if there is none."""
    jti, iat, events = claims.get("jti"), claims.get("iat"), claims.get("events")
    if not isinstance(jti, str) or not jti:
        return "jti is missing"
    if not _is_number(iat) or iat <= 0:
        return "iat is not a number of seconds"
    if iat > now + MAX_SKEW_SECONDS:
        return _format_future("iat", iat)
    if not isinstance(events, dict) or not events:
        return "events is not an object with an event"
    exp, nbf = claims.get("exp", now), claims.get("nbf", now)
    if not _is_number(exp):
        return "exp is not a number of seconds"
    if exp < now - MAX_SKEW_SECONDS:
        return "exp has passed"
    if not _is_number(nbf):
        return "nbf is not a number of seconds"
    return _format_future("nbf", nbf) if nbf > now + MAX_SKEW_SECONDS else None


def _format_future(name: str, moment: float) -> str:
    unit = "is in milliseconds; it must be in seconds" if is_in_milliseconds(moment) else "is in the future"
    return f"{name} {unit}"


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_claim_time(value: object) -> TypeGuard[int | float]:
    """Return whether a claim is a number that can be a time. Larger numbers exceed the range of dates."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15


def has_audience(aud: object, audiences: Collection[str]) -> bool:
    """Return whether the claim `aud`, a string or a list, contains one of the audiences."""
    items = aud if isinstance(aud, list) else [aud]
    return any(isinstance(item, str) and item in audiences for item in items)


def parse_claims(body: bytes, max_bytes: int) -> object:
    """Return the claims of a token in compact form, without verification. Raises MalformedEvent."""
    if len(body) > max_bytes:
        return read_json(body, max_bytes)  # raises if the body is too long
    parts = body.strip().split(b".")
    if len(parts) != 3:
        raise _malformed("it must have three parts with dots between them (RFC 7515 §7.1)")
    try:
        claims = base64.urlsafe_b64decode(parts[1] + b"=" * (-len(parts[1]) % 4))
    except (binascii.Error, ValueError):
        raise _malformed("its claims are not base64url") from None
    return read_json(claims, max_bytes)


def _malformed(why: str) -> MalformedEvent:
    return MalformedEvent([InputIssue("", f"is no Security Event Token: {why}")])
