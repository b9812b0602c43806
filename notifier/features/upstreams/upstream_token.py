"""Verify a logout token of an upstream OpenID Provider (Back-Channel Logout 1.0 §2.6), and remember accepted tokens.

Two rules follow what providers send. `exp` may be absent (Ory Hydra sends none), since `iat` bounds the age of each
token. `typ` may be absent, or `JWT`, since the specification only recommends `logout+jwt` (§2.4).

A worker shares the ids of its accepted tokens over the side channel once their events are durable: within about 20 ms,
and without a guarantee. A copy that reaches another worker before that is published again: delivery is at least once.
An id is a digest of the token's claims, so nobody who lacks the token can invent it. The embedded queue has one worker.
"""

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, Protocol, TypeGuard

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic requires this one before Python 3.12

from notifier.model.client import Algorithm
from notifier.model.documents.cloudevents import MAX_TEXT_LENGTH
from notifier.model.moment import Clock, is_in_milliseconds
from notifier.model.shared_resources import shared_bound, shared_ring
from notifier.tokens.foreign_keys import expand_names
from notifier.tokens.security_event_token import KeysUnavailable, has_audience, is_claim_time
from notifier.tokens.signed_content import IssuerKeys, SignedContent, TokenFault, UnverifiedToken

LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
MAX_AUDIENCES = 100  # of a token of a relay; servers send one
CLOCK_SKEW_SECONDS = 60.0  # between the clocks of the upstream and this worker
TOKEN_TYPES = ("logout+jwt", "application/logout+jwt", "jwt")
MAX_SEEN_TOKENS = shared_bound(10_000)  # the oldest are dropped; the event of a dropped one has the same id again
MAX_UNSHARED_TOKENS = 1000  # with 50 updates a second, half a second of the most that a worker accepts
MAX_UPDATE_TOKENS = 50  # 3 KiB
MAX_UPDATE_BYTES = 4 * 1024
MAX_UPDATES_PER_SECOND = shared_bound(500)  # of all workers; some may be forged
_FORBIDDEN_CHARACTERS = re.compile(
    r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]"
)  # control characters, and half of a UTF-16 pair


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
    LOOP = "loop"
    DEAD_LETTERS = "dead_letters"
    BUSY = "busy"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedLogout:
    """The claims of a verified token. Times are epoch seconds. After `until`, the token is refused for its age."""

    iss: str
    audiences: tuple[str, ...]
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


class TokenRules(Protocol):
    """The rules for tokens of one sender. `max_age`: seconds. `client_id`: None accepts the tokens of any client.

    `algorithms`: None accepts all.
    """

    @property
    def issuer(self) -> str: ...
    @property
    def client_id(self) -> tuple[str, ...] | None: ...
    @property
    def algorithms(self) -> tuple[Algorithm, ...] | None: ...
    @property
    def max_age(self) -> float: ...


def check_logout(claims: Mapping[str, object], rules: TokenRules, now: float) -> VerifiedLogout | UnacceptedLogout:
    """Return the claims of a token whose signature is verified, or why it is not accepted."""
    if claims.get("iss") != rules.issuer:
        return UnacceptedLogout(result=UpstreamResult.ISSUER, description="iss is another issuer")
    audiences = _read_audiences(claims.get("aud"))
    if rules.client_id is None:
        if not 0 < len(audiences) <= MAX_AUDIENCES:
            text = f"aud must name 1 to {MAX_AUDIENCES} clients, each as plain text"
            return UnacceptedLogout(result=UpstreamResult.AUDIENCE, description=text)
    elif not has_audience(claims.get("aud"), rules.client_id):
        return UnacceptedLogout(result=UpstreamResult.AUDIENCE, description="aud does not name this client")
    error = _find_claims_error(claims)
    if error is not None:
        return UnacceptedLogout(result=UpstreamResult.CLAIMS, description=error)
    iat = claims["iat"]
    exp, nbf = claims.get("exp", iat), claims.get("nbf", iat)
    if not is_claim_time(iat) or not is_claim_time(exp) or not is_claim_time(nbf):
        text = "iat, exp and nbf must be numbers of seconds"
        return UnacceptedLogout(result=UpstreamResult.CLAIMS, description=text)
    until = iat + rules.max_age
    if "exp" in claims:
        until = min(until, float(exp))
    wrong_time = UpstreamResult.EXPIRED
    if is_in_milliseconds(max(iat, nbf)):
        return UnacceptedLogout(result=wrong_time, description="iat or nbf is in milliseconds; it must be in seconds")
    if iat > now + CLOCK_SKEW_SECONDS:
        return UnacceptedLogout(result=wrong_time, description="iat is in the future; compare the clocks")
    if nbf > now + CLOCK_SKEW_SECONDS:  # RFC 7519 §4.1.5
        return UnacceptedLogout(result=wrong_time, description="nbf is in the future; compare the clocks")
    if now > until + CLOCK_SKEW_SECONDS:
        return UnacceptedLogout(result=wrong_time, description="exp has passed, or iat is too old")
    return VerifiedLogout(
        iss=rules.issuer,
        audiences=audiences,
        sub=text_or_none(claims.get("sub")),
        sid=text_or_none(claims.get("sid")),
        jti=str(claims["jti"]),
        iat=float(iat),
        until=until + CLOCK_SKEW_SECONDS,
    )


def _read_audiences(aud: object) -> tuple[str, ...]:
    """Return the clients that `aud`, a text or a list, names, sorted; empty if an item is not plain text."""
    items = aud if isinstance(aud, list) else [aud]
    names = {item for item in items if is_plain_text(item)}
    return tuple(sorted(names)) if all(map(is_plain_text, items)) else ()


def is_plain_text(value: object) -> TypeGuard[str]:
    """Return whether the value is a text that an event can have as `sub` or `sid`."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT_LENGTH:
        return False
    return _FORBIDDEN_CHARACTERS.search(value) is None


def _find_claims_error(claims: Mapping[str, object]) -> str | None:
    """Return the error in the claims that are specific to logout tokens; None if they are right."""
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


def text_or_none(value: object) -> str | None:
    """Return the value if it is a text; otherwise None."""
    return value if isinstance(value, str) else None


class LogoutTokenVerifier:
    """Verifies the tokens of one sender. `clock` returns epoch seconds."""

    def __init__(self, keys: IssuerKeys, rules: TokenRules, clock: Callable[[], float]) -> None:
        algorithms = expand_names(rules.algorithms or Algorithm)
        self._signed = SignedContent(keys, algorithms, TOKEN_TYPES, "logout_token", accepts=self._accepts)
        self._rules = rules
        self._clock = clock

    def _accepts(self, claims: Mapping[str, object]) -> bool:
        return isinstance(check_logout(claims, self._rules, self._clock()), VerifiedLogout)

    async def verify(self, token: bytes) -> VerifiedLogout | UnacceptedLogout | KeysUnavailable:
        """Verify a token. Never raises."""
        content = await self._signed.verify(token)
        if isinstance(content, KeysUnavailable):
            return content
        if isinstance(content, UnverifiedToken):
            is_malformed = content.fault is TokenFault.MALFORMED
            result = UpstreamResult.MALFORMED if is_malformed else UpstreamResult.SIGNATURE
            return UnacceptedLogout(result=result, description=content.text)
        return check_logout(content.claims, self._rules, self._clock())


class _Update(TypedDict):
    v: Literal[1]
    seen: dict[str, float]


_UPDATE = TypeAdapter(_Update)


class SeenTokens:
    """Remembers the tokens that any worker accepted, by id (RFC 7519 §4.1.7), so that no copy of them is published.

    `clock` returns epoch seconds.
    """

    def __init__(self, clock: Clock = time.time) -> None:
        self._clock = clock
        self._expires_at: OrderedDict[str, float] = OrderedDict()
        self._unshared = shared_ring(MAX_UNSHARED_TOKENS)
        self._has_unshared = asyncio.Event()
        self._second, self._updates_read = 0, 0  # the present second, and the updates read in it

    def is_seen(self, token_id: str) -> bool:
        """Return whether the token was accepted before, and is not too old to be accepted again."""
        return self._expires_at.get(token_id, 0.0) >= self._clock()

    def add(self, token_id: str, expires_at: float) -> None:
        """Remember and share an accepted token until `expires_at` (epoch seconds), when it is refused for its age."""
        self._store(token_id, expires_at)
        self._unshared.append((token_id, expires_at))
        self._has_unshared.set()

    async def next_update(self) -> bytes:
        """Return tokens for other workers. Wait until there are some."""
        await self._has_unshared.wait()
        seen = dict(self._unshared.popleft() for _ in range(min(len(self._unshared), MAX_UPDATE_TOKENS)))
        if not self._unshared:
            self._has_unshared.clear()
        return _UPDATE.dump_json({"v": 1, "seen": seen})

    def on_update(self, update: bytes) -> None:
        """Remember the tokens of another worker. Ignore unreadable and excess updates."""
        if (second := int(self._clock())) != self._second:
            self._second, self._updates_read = second, 0
        self._updates_read += 1
        if self._updates_read <= MAX_UPDATES_PER_SECOND and len(update) <= MAX_UPDATE_BYTES:
            with suppress(ValidationError):
                for token_id, expires_at in _UPDATE.validate_json(update)["seen"].items():
                    self._store(token_id, expires_at)

    def _store(self, token_id: str, expires_at: float) -> None:
        self._expires_at[token_id] = expires_at
        self._expires_at.move_to_end(token_id)
        while len(self._expires_at) > MAX_SEEN_TOKENS:
            self._expires_at.popitem(last=False)
