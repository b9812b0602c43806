"""Validate a logout token of an upstream OpenID Provider (Back-Channel Logout 1.0 §2.6), except its signature.

Two members are validated by what providers send. `exp` may be absent (Ory Hydra sends none), since `iat` bounds the
age of each token. `typ` may be absent, or `JWT`, as the specification only recommends `logout+jwt` (§2.4).
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeGuard

from notifier.model.documents.cloudevents import MAX_TEXT_LENGTH
from notifier.model.moment import is_in_milliseconds
from notifier.tokens.security_event_token import KeysUnavailable
from notifier.tokens.signed_content import SignedContent, TokenFault, UnverifiedToken
from notifier.tokens.transmitter_keys import TransmitterKeys

LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
CLOCK_SKEW_SECONDS = 60.0  # between the clocks of two machines
TOKEN_TYPES = ("logout+jwt", "application/logout+jwt", "jwt")
_FORBIDDEN_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # in events; also half of a UTF-16 pair


class UpstreamResult(StrEnum):
    """The results of a request of an upstream: the `result` label of `upstream_requests_total`."""

    ACCEPTED = "accepted"
    REPLAYED = "replayed"
    NO_SESSION = "no_session"
    MALFORMED = "malformed"
    SIGNATURE = "signature"
    ISSUER = "issuer"
    AUDIENCE = "audience"
    EXPIRED = "expired"
    CLAIMS = "claims"
    KEYS_AWAY = "keys_away"
    SESSIONS_AWAY = "sessions_away"
    QUEUE_AWAY = "queue_away"
    OFF = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedLogout:
    """The claims of a verified token. Times are epoch seconds.

    The token is refused for its age after `until`.
    """

    iss: str
    sub: str | None = field(repr=False)
    sid: str | None = field(repr=False)
    jti: str
    iat: float
    until: float


@dataclass(frozen=True, slots=True, kw_only=True)
class UnacceptedLogout:
    """Why a token is not accepted. `description` is safe to show to unauthenticated clients."""

    result: UpstreamResult
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamRules:
    """The rules for tokens of an upstream. `max_age` in seconds; `audiences`: the client ids registered there."""

    issuer: str
    audiences: frozenset[str]
    algorithms: frozenset[str]
    max_age: float


def judge_logout(claims: Mapping[str, object], rules: UpstreamRules, now: float) -> VerifiedLogout | UnacceptedLogout:
    """Read the claims of a token whose signature is good."""
    if claims.get("iss") != rules.issuer:
        return UnacceptedLogout(result=UpstreamResult.ISSUER, description="iss is another issuer")
    if not _names_audience(claims.get("aud"), rules.audiences):
        return UnacceptedLogout(result=UpstreamResult.AUDIENCE, description="aud does not name this client")
    error = _find_claims_error(claims)
    if error is not None:
        return UnacceptedLogout(result=UpstreamResult.CLAIMS, description=error)
    iat = claims["iat"]
    exp, nbf = claims.get("exp", iat), claims.get("nbf", iat)
    if not _is_number(iat) or not _is_number(exp) or not _is_number(nbf):
        text = "iat, exp and nbf must be numbers of seconds"
        return UnacceptedLogout(result=UpstreamResult.CLAIMS, description=text)
    until = iat + rules.max_age
    if "exp" in claims:
        until = min(until, float(exp))
    expired = UpstreamResult.EXPIRED
    if is_in_milliseconds(max(iat, nbf)):
        return UnacceptedLogout(result=expired, description="iat or nbf is in milliseconds; it must be in seconds")
    if iat > now + CLOCK_SKEW_SECONDS:
        return UnacceptedLogout(result=expired, description="iat is in the future; compare the clocks")
    if nbf > now + CLOCK_SKEW_SECONDS:  # RFC 7519 §4.1.5
        return UnacceptedLogout(result=expired, description="nbf is in the future; compare the clocks")
    if now > until + CLOCK_SKEW_SECONDS:
        return UnacceptedLogout(result=expired, description="exp has passed, or iat is too old")
    return VerifiedLogout(
        iss=rules.issuer,
        sub=_text_or_none(claims.get("sub")),
        sid=_text_or_none(claims.get("sid")),
        jti=str(claims["jti"]),
        iat=float(iat),
        until=until + CLOCK_SKEW_SECONDS,
    )


def is_plain_text(value: object) -> TypeGuard[str]:
    """Return whether an event can have the value as `sub` or `sid`."""
    return isinstance(value, str) and 0 < len(value) <= MAX_TEXT_LENGTH and _FORBIDDEN_CHARACTERS.search(value) is None


def _find_claims_error(claims: Mapping[str, object]) -> str | None:
    events = claims.get("events")
    if not isinstance(events, dict) or not isinstance(events.get(LOGOUT_EVENT), dict):
        return "events has no logout: a member http://schemas.openid.net/event/backchannel-logout that is an object"
    if "nonce" in claims:
        return "nonce must not be present: an ID token is not a logout token"
    names = [name for name in ("sub", "sid") if claims.get(name) is not None]
    if not names:
        return "neither sub nor sid is there"
    for name in (*names, "jti"):
        if not is_plain_text(claims.get(name)):
            return f"{name} is missing, or is not plain text of 1 to {MAX_TEXT_LENGTH} characters"
    return "iat is missing" if "iat" not in claims else None


def _names_audience(aud: object, audiences: Collection[str]) -> bool:
    return any(isinstance(item, str) and item in audiences for item in (aud if isinstance(aud, list) else [aud]))


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None


class LogoutTokenVerifier:
    """Verifies tokens by the rules of one upstream. `clock` gives epoch seconds."""

    def __init__(self, keys: TransmitterKeys, rules: UpstreamRules, clock: Callable[[], float]) -> None:
        self._signed = SignedContent(keys, rules.algorithms, TOKEN_TYPES, "logout_token")
        self._rules = rules
        self._clock = clock

    async def verify(self, token: bytes) -> VerifiedLogout | UnacceptedLogout | KeysUnavailable:
        """Verify a token. Never raises."""
        content = await self._signed.verify(token)
        if isinstance(content, KeysUnavailable):
            return content
        if isinstance(content, UnverifiedToken):
            malformed = content.fault is TokenFault.MALFORMED
            result = UpstreamResult.MALFORMED if malformed else UpstreamResult.SIGNATURE
            return UnacceptedLogout(result=result, description=content.text)
        return judge_logout(content.claims, self._rules, self._clock())
