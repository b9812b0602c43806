"""Reads the published keys of a transmitter of Security Event Tokens when needed, and keeps them during an outage.

A JWK Set is read again when it is older than FRESH_SECONDS, so that a withdrawn key is not accepted for long, and when
a token names a key that is not in the set. If the set cannot be read, the last set stays in use.

Many issuers send a token once and ignore the answer. Therefore a token with an unknown key is not refused at once: it
waits until the set may be read again. Keycloak, for example, makes a key for an algorithm at its first signature.
Strangers can invent kids. So a token waits only if its claims would be accepted, and if many tokens wait, the set is
read sooner: one reading answers them all, and frees their places for the tokens of a new key.

An unresponsive transmitter does not affect others: a bounded number of tokens waits for its keys, and while a set is
read again, the old set is used.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import jwt
import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from notifier.model.client import PublishedKey
from notifier.model.shared_resources import shared_bound, shared_lock
from notifier.network.http.issuer_document import DocumentIssue, IssuerDocument
from notifier.tokens.foreign_keys import (
    expand_names,
    find_unused_keys,
    find_verifying_fault,
    list_verified_algorithms,
    read_jwks,
)
from notifier.tokens.jws import PublicKey
from notifier.tokens.security_event_token import KeysUnavailable

FRESH_SECONDS = 300.0  # after which a set is read again
RETRY_SECONDS = 5.0  # after a failed reading
UNKNOWN_INTERVAL_SECONDS = 2.0  # between two readings for tokens with unknown keys; senders wait 2.5 s and more
MAX_TRIED_KEYS = 8  # for a token without a kid; preparing all 100 keys of a set would block the loop for 5 ms
CROWDED_INTERVAL_SECONDS = 0.2  # the same while half of the places for waiting tokens are taken
MAX_WAITING_TOKENS = shared_bound(100)  # that wait for a reading or its end; 256 requests are served at a time
_TIMER_MARGIN_SECONDS = 0.01  # since a timer of uvloop may end a millisecond early
_READERS: Mapping[str, Callable[[dict[str, Any]], Any]] = {
    "RSA": RSAAlgorithm.from_jwk,
    "EC": ECAlgorithm.from_jwk,
    "OKP": OKPAlgorithm.from_jwk,
}

ReadKeySet = Callable[[], Awaitable[IssuerDocument | DocumentIssue]]
"""Fetches the JWK Set. Never raises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyingKey:
    """A published key, ready to verify signatures."""

    kid: str | None
    key: PublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedSet:
    """A JWK Set that was read. `began_at`: when the reading began.

    `advertised`: the algorithms that the transmitter states for its tokens. If it is empty, any algorithm is accepted.
    `prepared`: the keys that were used so far, by position, with None for an unusable key. `missing_kids`: the kids of
    tokens that the set lacks.
    """

    published: tuple[PublishedKey, ...]
    began_at: float
    advertised: frozenset[str] = frozenset()
    prepared: dict[int, VerifyingKey | None] = field(default_factory=dict)
    missing_kids: set[str | None] = field(default_factory=set)

    def matching_keys(self, kid: str | None, alg: str) -> tuple[VerifyingKey, ...]:
        """Return the first MAX_TRIED_KEYS keys that can verify `alg` and have this `kid`.

        Without a `kid` in the token, all keys match. If no key of the set has the `kid`, the keys without `kid` match.
        """
        return tuple(islice(self._matching_keys(kid, alg), MAX_TRIED_KEYS))

    def _matching_keys(self, kid: str | None, alg: str) -> Iterator[VerifyingKey]:
        if self.advertised and alg not in self.advertised:
            return
        accepted_kids = {kid} if any(key.kid == kid for key in self.published) else {None}
        for nth, key in enumerate(self.published):
            matches_kid = kid is None or key.kid in accepted_kids
            if not matches_kid or alg not in list_verified_algorithms(key):
                continue
            if nth not in self.prepared:
                self.prepared[nth] = _to_verifying_key(key)
            verifying_key = self.prepared[nth]
            if verifying_key is not None:
                yield verifying_key


class TransmitterKeys:
    """The published keys of one transmitter. `read` fetches its JWK Set.

    `monotonic` is a clock that never jumps. `pause` sleeps for a number of seconds.
    """

    def __init__(
        self,
        issuer: str,
        read: ReadKeySet,
        monotonic: Callable[[], float],
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._issuer = issuer
        self._read = read
        self._monotonic = monotonic
        self._pause = pause
        self._pauses: set[asyncio.Future[None]] = set()
        self._waiting = 0
        self._set: PublishedSet | None = None
        self._unused: str | None = None
        self._reading = shared_lock()
        self._due = float("-inf")
        self._due_for_unknown = float("-inf")
        self._read_for_unknown_at = float("-inf")
        self._fault: str | None = None

    async def matching_keys(
        self, kid: str | None, alg: str, *, reread: bool = False, may_wait: Callable[[], bool] = lambda: True
    ) -> tuple[VerifyingKey, ...] | KeysUnavailable:
        """Return the keys that may verify a token with this header. Empty if the transmitter publishes no such key.

        KeysUnavailable if the set cannot be read, or may not be read again yet to find the key. `reread`: the keys
        returned before did not verify the token, so read the set again and return its matching keys. Empty if the set
        has just been read, since the result would be the same. If `may_wait` returns False, a known set is not read
        again.
        """
        arrived_at = self._monotonic()
        if self._set is None or (arrived_at >= self._due and not self._reading.locked()):
            await self._refresh(unknown=False)
        if self._set is None:
            return KeysUnavailable(text="The keys of the issuer cannot be read; send the token again")
        keys = self._set.matching_keys(kid, alg)
        if keys and not reread:
            return keys
        if self._is_just_read(kid, arrived_at):
            self._set.missing_kids.add(kid)
            return () if reread else keys
        if not may_wait():
            return () if reread else keys
        await self._refresh(unknown=True)
        keys = self._set.matching_keys(kid, alg)
        if keys:
            return keys
        if self._is_just_read(kid, arrived_at):
            self._set.missing_kids.add(kid)
            return ()
        return KeysUnavailable(text="The key of the token is not known yet; send the token again")

    def _is_just_read(self, kid: str | None, arrived_at: float) -> bool:
        """Return True if reading the set again for this `kid` would give the same keys.

        That is so if the set was read after the token arrived, or shortly before, for the same `kid`.
        """
        assert self._set is not None, "it stays once it was read"
        age_seconds = arrived_at - self._set.began_at
        return age_seconds <= 0 or (kid in self._set.missing_kids and age_seconds < UNKNOWN_INTERVAL_SECONDS)

    async def _refresh(self, *, unknown: bool) -> None:
        """Read the set if it is due. Return at once if too many tokens wait.

        `unknown`: a token has an unknown key, so wait until the set may be read again.
        """
        if self._waiting >= MAX_WAITING_TOKENS:
            return
        self._waiting += 1
        try:
            if unknown:
                await self._wait_until_due()
            async with self._reading:
                await self._read_if_due(unknown=unknown)
        finally:
            self._waiting -= 1

    async def _wait_until_due(self) -> None:
        """Wait until the set may be read for an unknown key, or until it has been read for another token."""
        if self._waiting >= MAX_WAITING_TOKENS // 2:
            self._due_for_unknown = min(self._due_for_unknown, self._read_for_unknown_at + CROWDED_INTERVAL_SECONDS)
        wait = self._due_for_unknown - self._monotonic()
        if wait <= 0:
            return
        pause = asyncio.ensure_future(self._pause(wait + _TIMER_MARGIN_SECONDS))
        self._pauses.add(pause)
        try:
            await asyncio.wait({pause})
        finally:
            self._pauses.discard(pause)
            pause.cancel()

    async def _read_if_due(self, *, unknown: bool) -> None:
        now = self._monotonic()
        if now < (self._due_for_unknown if unknown else self._due):
            return
        document = await self._read()
        ended = self._monotonic()
        fault = self._store(document, now)
        if unknown:
            self._read_for_unknown_at = ended
            self._due_for_unknown = ended + UNKNOWN_INTERVAL_SECONDS
            for pause in self._pauses:
                pause.cancel()
        self._due = ended + (FRESH_SECONDS if fault is None else RETRY_SECONDS)
        self._log_fault(self._unused if fault is None else fault)

    def _store(self, document: IssuerDocument | DocumentIssue, began_at: float) -> str | None:
        """Store the keys of the document. Return the reason if it cannot be used."""
        if isinstance(document, DocumentIssue):
            return document.text
        published = read_jwks(document.content)
        if isinstance(published, str):
            return published
        advertised = expand_names(document.algorithms or ())
        self._set = PublishedSet(published=published, began_at=began_at, advertised=advertised)
        self._unused = find_unused_keys(published)
        return None

    def _log_fault(self, fault: str | None) -> None:
        if fault is not None and fault != self._fault:
            structlog.get_logger().warning("jwks_unread", iss=self._issuer, reason=fault)
        self._fault = fault


def _to_verifying_key(key: PublishedKey) -> VerifyingKey | None:
    """Return the key ready to verify; None if it is for another purpose, too weak, too slow, or damaged."""
    if find_verifying_fault(key) is not None:
        return None
    try:
        return VerifyingKey(kid=key.kid, key=_READERS[key.kty]({"kty": key.kty, **dict(key.material)}))
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError, UnsupportedAlgorithm):
        return None
