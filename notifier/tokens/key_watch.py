"""Watches that issuers publish the keys that sign: reads each JWK Set now and then, and remembers the result.

A set that cannot be read changes nothing. Only a set that was read and lacks the key is evidence. Times are seconds of
a steady clock, which the caller passes.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from notifier.model.client import Algorithm
from notifier.network.http.issuer_document import DocumentIssue, IssuerDocument
from notifier.tokens.foreign_keys import read_jwks
from notifier.tokens.published_keys import Signing, publication_faults

READ_INTERVAL_SECONDS = 300.0  # between two readings
MISSING_INTERVAL_SECONDS = 30.0  # while our key is missing or the set was not read, since deliveries wait for it
MIN_INTERVAL_SECONDS = 10.0  # after a client's 400, which asks for an early look
JITTER_SHARE = 0.1  # share of each wait that is random, so that a hundred workers do not ask at once


class Keys(Protocol):
    """The current keys of the issuers."""

    def current_keys(self, iss: str) -> Iterable[Signing]:
        """Return the keys that sign for the issuer now, one for each possible algorithm."""

    def future_keys(self, iss: str) -> Iterable[Signing]:
        """Return the keys that are to sign later. Only since when they are published is watched."""


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
    """Since when a key is there. `appeared`: an earlier reading lacked it."""

    since: float
    appeared: bool


@dataclass(slots=True)
class _IssuerState:
    """What is known about one issuer. `faults`, by kid: the fault at the last reading, None if there was none.

    `kids` are the keys that signed at that time. `presences` and `absent`: all its keys, by kid, as in the readings.
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
        """Return what is wrong with the published key that signs with `alg` now. None if nothing is known to be."""
        state = self._known.get(iss)
        if state is None or not any(state.faults.values()):
            return None
        signing = self._signing(iss, alg)
        fault = None if signing is None else state.faults.get(signing.public["kid"])
        return None if signing is None or fault is None else f"{fault} (kid {signing.public['kid']})"

    def age(self, iss: str, alg: Algorithm, *, clock: float, now: float) -> float:
        """Return for how many seconds at most receivers can have known the key that signs with `alg`.

        `clock`: seconds since the epoch. The key was not published before its file was written, nor before the set was
        seen to have it after it had been missing there.
        """
        state, signing = self._known.get(iss), self._signing(iss, alg)
        if signing is None:
            return math.inf
        of_file = math.inf if signing.made_at is None else clock - signing.made_at
        presence = None if state is None else state.presences.get(signing.public["kid"])
        return min(of_file, now - presence.since) if presence is not None and presence.appeared else of_file

    def seen_keys(self) -> Iterator[tuple[str, str, float, bool]]:
        """Yield for each published key, also future keys: iss, kid, since when, and whether it was missing."""
        for iss, state in self._known.items():
            yield from ((iss, kid, presence.since, presence.appeared) for kid, presence in state.presences.items())

    def published(self) -> Iterator[tuple[str, str, bool]]:
        """Yield for each key of a set that was read: iss, kid, and True if receivers can verify with it."""
        for iss, state in self._known.items():
            yield from ((iss, kid, fault is None) for kid, fault in state.faults.items())

    def faults(self) -> Iterator[tuple[str, str, str]]:
        """Yield for each key that receivers cannot verify with: iss, kid, and what is wrong."""
        for iss, state in self._known.items():
            yield from ((iss, kid, fault) for kid, fault in state.faults.items() if fault is not None)

    def unread_sets(self) -> Iterator[tuple[str, str]]:
        """Yield for each set that could not be read last time: iss, and why."""
        yield from ((iss, state.unread) for iss, state in self._known.items() if state.unread is not None)

    def on_refused_token(self, iss: str, now: float) -> bool:
        """Read the set soon, since a client refused a token. Return True if the next reading is earlier now."""
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
        return max(
            0.0, min((state.next_read_at for state in self._known.values()), default=now + READ_INTERVAL_SECONDS) - now
        )

    async def read_due_sets(self, now: float) -> list[KeyChange]:
        """Read all due sets in parallel, and return the changes."""
        self._follow(now)
        due = [iss for iss, state in self._known.items() if state.next_read_at <= now]
        readings = await asyncio.gather(*(self._read(iss) for iss in due))
        changes: list[KeyChange] = []
        for iss, document in zip(due, readings, strict=True):
            if (state := self._known.get(iss)) is not None:
                state.kids = self._kids(iss)
                changes += self._update(iss, state, document, now)
                again = (
                    MISSING_INTERVAL_SECONDS
                    if state.unread is not None or any(state.faults.values())
                    else READ_INTERVAL_SECONDS
                )
                state.last_read_at = now
                state.next_read_at = now + again * (1 + JITTER_SHARE * (2 * self._jitter() - 1))
        return changes

    def _follow(self, now: float) -> None:
        """Follow the configuration: new issuers and keys are due at once, removed ones are forgotten."""
        wanted = set(self._issuers())
        self._known = {iss: state for iss, state in self._known.items() if iss in wanted}
        for iss in wanted:
            state = self._known.setdefault(iss, _IssuerState(next_read_at=now))
            if state.kids is not None and state.kids != self._kids(iss):
                state.next_read_at = min(state.next_read_at, now)

    def _kids(self, iss: str) -> frozenset[str]:
        return frozenset(key.public["kid"] for key in self._keys.current_keys(iss))

    def _signing(self, iss: str, alg: Algorithm) -> Signing | None:
        return next((key for key in self._keys.current_keys(iss) if key.alg is alg), None)

    def _update(
        self, iss: str, state: _IssuerState, document: IssuerDocument | DocumentIssue, now: float
    ) -> Iterator[KeyChange]:
        published = document.text if isinstance(document, DocumentIssue) else read_jwks(document.content)
        if isinstance(published, str):
            if state.unread != published:
                yield JwksUnread(iss=iss, text=published)
            state.unread = published
            return
        state.unread = None
        before, state.faults = state.faults, publication_faults(self._keys.current_keys(iss), published)
        _record_presence(state, {**publication_faults(self._keys.future_keys(iss), published), **state.faults}, now)
        for kid, fault in state.faults.items():
            if fault is not None and before.get(kid) != fault:
                yield KeyMissing(iss=iss, kid=kid, text=fault)
            elif fault is None and before.get(kid) is not None:
                yield KeyPublished(iss=iss, kid=kid)


def _record_presence(state: _IssuerState, faults: Mapping[str, str | None], now: float) -> None:
    """Note since when each key is there. A key that is configured no more is forgotten."""
    state.absent = {kid for kid in state.absent if kid in faults} | {kid for kid in faults if faults[kid] is not None}
    state.presences = {
        kid: state.presences.get(kid, _Presence(since=now, appeared=kid in state.absent))
        for kid, fault in faults.items()
        if fault is None
    }
