"""Watches whether issuers publish their signing keys: reads each JWK Set periodically, and keeps the result.

If a set cannot be read, the last result stays. A key counts as missing only if a set was read and lacks it. Times are
seconds of a monotonic clock, which the caller passes as `now`.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from notifier.model.client import Algorithm
from notifier.network.http.issuer_document import DocumentIssue, IssuerDocument
from notifier.tokens.foreign_keys import read_jwks
from notifier.tokens.published_keys import Signing, find_publication_faults

READ_INTERVAL_SECONDS = 300.0  # between two readings
MISSING_INTERVAL_SECONDS = 30.0  # while our key is missing or the set was not read, since deliveries wait for it
MIN_INTERVAL_SECONDS = 10.0  # between two readings after clients' 400s
JITTER_SHARE = 0.1  # random share of each interval, so that a hundred workers do not read at once


class Keys(Protocol):
    """The current keys of the issuers."""

    def current_keys(self, iss: str) -> Iterable[Signing]:
        """Return the keys that sign for the issuer now, one for each possible algorithm."""

    def future_keys(self, iss: str) -> Iterable[Signing]:
        """Return the keys that will sign later. It is recorded since when they are published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyMissing:
    """The issuer's set now lacks this key, or has it with other values. `text` has the details."""

    iss: str
    kid: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPublished:
    """A key that was missing is published again."""

    iss: str
    kid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JwksUnread:
    """The issuer's set could not be read. The last result stays valid."""

    iss: str
    text: str


KeyChange = KeyMissing | KeyPublished | JwksUnread
ReadIssuer = Callable[[str], Awaitable[IssuerDocument | DocumentIssue]]
"""Fetches the JWK Set of an issuer (by its `iss`). Never raises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Presence:
    """Since when a key is in the set. `appeared`: an earlier reading lacked the key."""

    since: float
    appeared: bool


@dataclass(slots=True)
class _IssuerState:
    """The results of reading the JWK Set of one issuer. `unread`: why the last reading failed.

    `kids`: the keys that signed at the last reading. `faults`: for each of them its fault, None if there was none.
    `presences` and `absent`: the current and future keys that the set had, and lacked.
    """

    next_read_at: float
    kids: frozenset[str] | None = None
    last_read_at: float = float("-inf")
    unread: str | None = None
    faults: dict[str, str | None] = field(default_factory=dict)
    presences: dict[str, _Presence] = field(default_factory=dict)
    absent: set[str] = field(default_factory=set)


class KeyWatch:
    """Decides when to read each issuer's JWK Set, and records which signing keys are missing there.

    `issuers` returns the configured issuers that have a JWK Set.
    """

    def __init__(
        self, issuers: Callable[[], Iterable[str]], keys: Keys, read: ReadIssuer, jitter: Callable[[], float]
    ) -> None:
        self._issuers = issuers
        self._keys = keys
        self._read = read
        self._jitter = jitter
        self._known: dict[str, _IssuerState] = {}

    def fault_of(self, iss: str, alg: Algorithm) -> str | None:
        """Return why receivers cannot verify with the key that signs with `alg` now; None if no reason is known."""
        state = self._known.get(iss)
        if state is None or not any(state.faults.values()):
            return None
        signing = self._current_key(iss, alg)
        if signing is None:
            return None
        kid = signing.public["kid"]
        fault = state.faults.get(kid)
        return None if fault is None else f"{fault} (kid {kid})"

    def age(self, iss: str, alg: Algorithm, *, clock: float, now: float) -> float:
        """Return the maximum seconds for which receivers can have known the key that signs with `alg` now.

        A key was not published before its file was written. If the set was read without the key, the key was not
        published before it appeared there. Infinite if nothing is known. `clock`: epoch seconds.
        """
        state, signing = self._known.get(iss), self._current_key(iss, alg)
        if signing is None:
            return math.inf
        file_age = math.inf if signing.made_at is None else clock - signing.made_at
        presence = None if state is None else state.presences.get(signing.public["kid"])
        if presence is None or not presence.appeared:
            return file_age
        return min(file_age, now - presence.since)

    def seen_keys(self) -> Iterator[tuple[str, str, float, bool]]:
        """Yield (iss, kid, since, appeared) for each published key, including future keys.

        `appeared`: an earlier reading of the set lacked the key.
        """
        for iss, state in self._known.items():
            yield from ((iss, kid, presence.since, presence.appeared) for kid, presence in state.presences.items())

    def published(self) -> Iterator[tuple[str, str, bool]]:
        """Yield (iss, kid, published) for each signing key. `published`: receivers can verify with the key."""
        for iss, state in self._known.items():
            yield from ((iss, kid, fault is None) for kid, fault in state.faults.items())

    def faults(self) -> Iterator[tuple[str, str, str]]:
        """Yield (iss, kid, fault) for each key that receivers cannot verify with."""
        for iss, state in self._known.items():
            yield from ((iss, kid, fault) for kid, fault in state.faults.items() if fault is not None)

    def unread_sets(self) -> Iterator[tuple[str, str]]:
        """Yield (iss, reason) for each set whose last reading failed."""
        yield from ((iss, state.unread) for iss, state in self._known.items() if state.unread is not None)

    def on_refused_token(self, iss: str, now: float) -> bool:
        """Make the next reading due soon, since a client has refused a token. Return True if this made it earlier."""
        state = self._known.get(iss)
        if state is None:
            return False
        soon = max(now, state.last_read_at + MIN_INTERVAL_SECONDS)
        if soon >= state.next_read_at:
            return False
        state.next_read_at = soon
        return True

    def seconds_until_due(self, now: float) -> float:
        """Return the seconds until the next reading is due."""
        self._follow(now)
        next_read_at = min((state.next_read_at for state in self._known.values()), default=now + READ_INTERVAL_SECONDS)
        return max(0.0, next_read_at - now)

    async def read_due_sets(self, now: float) -> list[KeyChange]:
        """Read all due sets in parallel, and return the changes."""
        self._follow(now)
        due = [iss for iss, state in self._known.items() if state.next_read_at <= now]
        readings = await asyncio.gather(*(self._read(iss) for iss in due))
        changes: list[KeyChange] = []
        for iss, document in zip(due, readings, strict=True):
            state = self._known.get(iss)
            if state is None:  # removed from the configuration during the reading
                continue
            state.kids = self._current_kids(iss)
            changes += self._update(iss, state, document, now)
            has_fault = state.unread is not None or any(state.faults.values())
            interval = MISSING_INTERVAL_SECONDS if has_fault else READ_INTERVAL_SECONDS
            state.last_read_at = now
            state.next_read_at = now + interval * (1 + JITTER_SHARE * (2 * self._jitter() - 1))
        return changes

    def _follow(self, now: float) -> None:
        """Follow the configuration: forget removed issuers, and make new issuers and issuers with new keys due."""
        configured = set(self._issuers())
        self._known = {iss: state for iss, state in self._known.items() if iss in configured}
        for iss in configured:
            state = self._known.setdefault(iss, _IssuerState(next_read_at=now))
            if state.kids is not None and state.kids != self._current_kids(iss):
                state.next_read_at = min(state.next_read_at, now)

    def _current_kids(self, iss: str) -> frozenset[str]:
        return frozenset(key.public["kid"] for key in self._keys.current_keys(iss))

    def _current_key(self, iss: str, alg: Algorithm) -> Signing | None:
        return next((key for key in self._keys.current_keys(iss) if key.alg is alg), None)

    def _update(
        self, iss: str, state: _IssuerState, document: IssuerDocument | DocumentIssue, now: float
    ) -> Iterator[KeyChange]:
        """Store the result of a reading, and yield the changes since the last reading."""
        published = document.text if isinstance(document, DocumentIssue) else read_jwks(document.content)
        if isinstance(published, str):
            if state.unread != published:
                yield JwksUnread(iss=iss, text=published)
            state.unread = published
            return
        state.unread = None
        old_faults, state.faults = state.faults, find_publication_faults(self._keys.current_keys(iss), published)
        future_faults = find_publication_faults(self._keys.future_keys(iss), published)
        _record_presences(state, {**future_faults, **state.faults}, now)
        for kid, fault in state.faults.items():
            if fault is not None and old_faults.get(kid) != fault:
                yield KeyMissing(iss=iss, kid=kid, text=fault)
            elif fault is None and old_faults.get(kid) is not None:
                yield KeyPublished(iss=iss, kid=kid)


def _record_presences(state: _IssuerState, faults: Mapping[str, str | None], now: float) -> None:
    """Record since when the set has each key of `faults`, and which keys it lacks or has lacked. Forget other keys."""
    state.absent = {kid for kid, fault in faults.items() if fault is not None or kid in state.absent}
    state.presences = {
        kid: state.presences.get(kid, _Presence(since=now, appeared=kid in state.absent))
        for kid, fault in faults.items()
        if fault is None
    }
