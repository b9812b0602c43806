"""Reads the keys that a transmitter of Security Event Tokens publishes when needed, and keeps them during an outage.

A set is read again when it is older than FRESH_SECONDS, so that a withdrawn key verifies nothing for long, and when a
token names a key that is not in it. If it cannot be read, the last good set stays.

Many issuers send a token once, and read no answer. So a token whose key is unknown is held until the next reading is
due. It is not turned away because another unknown key was asked for just before: Keycloak makes a key for an algorithm
when it first signs by it.

A transmitter that hangs takes no room from others: a bounded number of requests waits for it, and while its set is read
again, the old one serves.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from types import MappingProxyType
from typing import Any

import jwt
import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from notifier.model.client import PublishedKey
from notifier.network.http.issuer_document import DocumentIssue, IssuerDocument
from notifier.tokens.foreign_keys import (
    expand_names,
    find_unused_keys,
    read_jwks,
    verified_algorithms,
    verifying_fault,
)
from notifier.tokens.jws import PublicKey
from notifier.tokens.security_event_token import KeysUnavailable

FRESH_SECONDS = 300.0  # that a set counts as what the transmitter publishes
RETRY_SECONDS = 5.0  # after a set that could not be read
UNKNOWN_INTERVAL_SECONDS = 2.0  # between two readings for tokens with unknown keys; senders wait 2.5 s and more
MAX_TRIED_KEYS = 8  # keys that a token without a kid is tried with; to make all 1,000 of a set takes the loop 50 ms
MAX_HELD_TOKENS = 32  # tokens that wait for such a reading to be due
MAX_WAITING_TOKENS = 100  # tokens that wait for it or for a reading; 256 requests are served at a time
_TIMER_MARGIN_SECONDS = 0.01  # seconds more, since a timer of uvloop may end a millisecond early
_READERS: Mapping[str, Callable[[dict[str, Any]], Any]] = MappingProxyType(
    {"RSA": RSAAlgorithm.from_jwk, "EC": ECAlgorithm.from_jwk, "OKP": OKPAlgorithm.from_jwk}
)

ReadKeySet = Callable[[], Awaitable[IssuerDocument | DocumentIssue]]
"""Fetches the JWK Set. Never raises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyingKey:
    """A published key, ready to verify signatures."""

    kid: str | None
    key: PublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class _PublishedSet:
    """A set that was read. `began_at` is when its reading did, `missing_kids` the kids that it has not.

    `advertised`: the algorithms that the transmitter names for its tokens; empty if it names none that can be used.
    `prepared` has the keys that were needed, by their position. Each set has its own: a shared cache of limited size
    would lose its keys to those of other sets.
    """

    published: tuple[PublishedKey, ...]
    began_at: float
    advertised: frozenset[str] = frozenset()
    prepared: dict[int, VerifyingKey | None] = field(default_factory=dict)
    missing_kids: set[str | None] = field(default_factory=set)

    def matching_keys(self, kid: str | None, alg: str) -> Iterator[VerifyingKey]:
        """Yield the keys with this kid that can verify `alg`; all such keys if token or set has no kid."""
        if self.advertised and alg not in self.advertised:
            return
        has_kid = any(key.kid == kid for key in self.published)
        for nth, key in enumerate(self.published):
            if kid is not None and key.kid != kid and (has_kid or key.kid is not None):
                continue
            if alg not in verified_algorithms(key):
                continue
            if nth not in self.prepared:
                self.prepared[nth] = _to_verifying_key(key)
            if (verifying := self.prepared[nth]) is not None:
                yield verifying


class TransmitterKeys:
    """The published keys of one transmitter.

    `steady` gives seconds of a clock that never goes back. `pause` waits so many of them.
    """

    def __init__(
        self,
        issuer: str,
        read: ReadKeySet,
        steady: Callable[[], float],
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._issuer = issuer
        self._read = read
        self._steady = steady
        self._pause = pause
        self._waiting_for_unknown = 0
        self._waiting = 0
        self._set: _PublishedSet | None = None
        self._unused: str | None = None
        self._reading = asyncio.Lock()
        self._due = float("-inf")
        self._due_for_unknown = float("-inf")
        self._fault: str | None = None

    async def matching_keys(
        self, kid: str | None, alg: str, *, reread: bool = False
    ) -> tuple[VerifyingKey, ...] | KeysUnavailable:
        """Return the keys that may verify a token with this header; none if the transmitter publishes none.

        `reread`: return the matching keys of a set that is read again, since those returned before did not verify the
        token; none if the set has just been read.
        """
        arrived = self._steady()
        if self._set is None or (arrived >= self._due and not self._reading.locked()):
            await self._refresh(unknown=False)
        if self._set is None:
            return KeysUnavailable(text="The keys of the issuer cannot be read; send the token again")
        keys = tuple(islice(self._set.matching_keys(kid, alg), MAX_TRIED_KEYS))
        if (keys and not reread) or self._is_missing(kid, arrived):
            return () if reread else keys
        await self._refresh(unknown=True)
        keys = tuple(islice(self._set.matching_keys(kid, alg), MAX_TRIED_KEYS))
        if keys or self._is_missing(kid, arrived):
            return keys
        return KeysUnavailable(text="The key of the token is not known yet; send the token again")

    def _is_missing(self, kid: str | None, arrived: float) -> bool:
        """Return True if the set lacks the key, and was read since `arrived`, or a moment ago for the same `kid`."""
        assert self._set is not None, "it stays once it was read"
        if self._set.began_at >= arrived:
            self._set.missing_kids.add(kid)
            return True
        return kid in self._set.missing_kids and arrived - self._set.began_at < UNKNOWN_INTERVAL_SECONDS

    async def _refresh(self, *, unknown: bool) -> None:
        """Read the set if it is due. For an unknown key, wait until it is. Returns at once if too many callers wait."""
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
        """Wait until the set may be read for an unknown key, unless too many wait."""
        wait = self._due_for_unknown - self._steady()
        if wait <= 0 or self._waiting_for_unknown >= MAX_HELD_TOKENS:
            return
        self._waiting_for_unknown += 1
        try:
            await self._pause(wait + _TIMER_MARGIN_SECONDS)
        finally:
            self._waiting_for_unknown -= 1

    async def _read_if_due(self, *, unknown: bool) -> None:
        now = self._steady()
        if now < (self._due_for_unknown if unknown else self._due):
            return
        document = await self._read()
        ended = self._steady()
        if unknown:
            self._due_for_unknown = ended + UNKNOWN_INTERVAL_SECONDS
        fault = self._store(document, now)
        self._due = ended + (FRESH_SECONDS if fault is None else RETRY_SECONDS)
        self._log_fault(self._unused if fault is None else fault)

    def _store(self, document: IssuerDocument | DocumentIssue, began_at: float) -> str | None:
        """Keep the document. Return its fault, or None."""
        if isinstance(document, DocumentIssue):
            return document.text
        published = read_jwks(document.content)
        if isinstance(published, str):
            return published
        advertised = expand_names(document.algorithms or ())
        self._set, self._unused = (
            _PublishedSet(published=published, began_at=began_at, advertised=advertised),
            find_unused_keys(published),
        )
        return None

    def _log_fault(self, fault: str | None) -> None:
        if fault is not None and fault != self._fault:
            structlog.get_logger().warning("jwks_unread", iss=self._issuer, reason=fault)
        self._fault = fault


def _to_verifying_key(key: PublishedKey) -> VerifyingKey | None:
    """Return the key; None if it is for something else, too weak, too slow, or damaged."""
    if verifying_fault(key) is not None:
        return None
    try:
        return VerifyingKey(kid=key.kid, key=_READERS[key.kty]({"kty": key.kty, **dict(key.material)}))
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError, UnsupportedAlgorithm):
        return None
