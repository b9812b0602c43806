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
from notifier.network.http.issuer_document import IssuerDocument, UnreadDocument
from notifier.tokens.foreign_keys import read_jwks
from notifier.tokens.published_keys import Signing, publication_faults

EVERY = 300.0  # seconds between two readings
WHEN_MISSING = 30.0  # while our key is missing or the set was not read, since deliveries wait for it
AT_MOST_EVERY = 10.0  # after a client's 400, which asks for an early look
SPREAD = 0.1  # share of each wait that is random, so that a hundred workers do not ask at once


class Keys(Protocol):
    """The current keys of the issuers."""

    def signing(self, iss: str) -> Iterable[Signing]:
        """The keys that sign for the issuer now, one for each possible algorithm."""

    def coming(self, iss: str) -> Iterable[Signing]:
        """The keys that are to sign later. Only since when they are published is watched."""


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
class SetUnread:
    """The issuer's set could not be read. The last result stays valid."""

    iss: str
    text: str


KeyChange = KeyMissing | KeyPublished | SetUnread
ReadIssuer = Callable[[str], Awaitable[IssuerDocument | UnreadDocument]]
"""Fetches the JWK Set of an issuer (by its `iss`). Never raises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _There:
    """Since when a key is there. `appeared`: an earlier reading lacked it."""

    since: float
    appeared: bool


@dataclass(slots=True)
class _Known:
    """What is known about one issuer. `faults`, by kid: the fault at the last reading, None if there was none.

    `kids` are the keys that signed at that time. `there` and `absent`: all its keys, by kid, as the readings had them.
    """

    next_look: float
    kids: frozenset[str] | None = None
    last_look: float = float("-inf")
    unread: str | None = None
    faults: dict[str, str | None] = field(default_factory=dict)
    there: dict[str, _There] = field(default_factory=dict)
    absent: set[str] = field(default_factory=set)


class KeyWatch:
    """Knows when to read each issuer's JWK Set, and which signing keys are missing there.

    `issuers` returns the configured issuers that have a JWK Set.
    """

    def __init__(
        self, issuers: Callable[[], Iterable[str]], keys: Keys, read: ReadIssuer, jitter: Callable[[], float]
    ) -> None:
        self._issuers = issuers
        self._keys = keys
        self._read = read
        self._jitter = jitter
        self._known: dict[str, _Known] = {}

    def missing(self, iss: str, alg: Algorithm) -> str | None:
        """Say what is wrong with the published key that signs with `alg` now. None if nothing is known to be."""
        known = self._known.get(iss)
        if known is None or not any(known.faults.values()):
            return None
        signing = self._signing(iss, alg)
        fault = None if signing is None else known.faults.get(signing.public["kid"])
        return None if signing is None or fault is None else f"{fault} (kid {signing.public['kid']})"

    def age(self, iss: str, alg: Algorithm, *, clock: float, now: float) -> float:
        """For how many seconds at most receivers can have known the key that signs with `alg`.

        `clock`: seconds since the epoch. The key was not published before its file was written, nor before the set was
        seen to have it after it had been missing there.
        """
        known, signing = self._known.get(iss), self._signing(iss, alg)
        if signing is None:
            return math.inf
        of_file = math.inf if signing.made_at is None else clock - signing.made_at
        there = None if known is None else known.there.get(signing.public["kid"])
        return min(of_file, now - there.since) if there is not None and there.appeared else of_file

    def seen_keys(self) -> Iterator[tuple[str, str, float, bool]]:
        """For each key that is there, also one to come: iss, kid, since when, and True if it was missing before."""
        for iss, known in self._known.items():
            yield from ((iss, kid, there.since, there.appeared) for kid, there in known.there.items())

    def published(self) -> Iterator[tuple[str, str, bool]]:
        """For each key of a set that was read: iss, kid, and True if receivers can verify with it."""
        for iss, known in self._known.items():
            yield from ((iss, kid, fault is None) for kid, fault in known.faults.items())

    def faults(self) -> Iterator[tuple[str, str, str]]:
        """For each key that receivers cannot verify with: iss, kid, and what is wrong."""
        for iss, known in self._known.items():
            yield from ((iss, kid, fault) for kid, fault in known.faults.items() if fault is not None)

    def unread(self) -> Iterator[tuple[str, str]]:
        """For each set that could not be read at the last look: iss, and why."""
        yield from ((iss, known.unread) for iss, known in self._known.items() if known.unread is not None)

    def doubt(self, iss: str, now: float) -> bool:
        """A client refused a token of this issuer: look soon. Returns True if that brought the next look forward."""
        known = self._known.get(iss)
        if known is None:
            return False
        soon = max(now, known.last_look + AT_MOST_EVERY)
        if soon >= known.next_look:
            return False
        known.next_look = soon
        return True

    def wait(self, now: float) -> float:
        """Seconds until the next look is due."""
        self._follow(now)
        return max(0.0, min((known.next_look for known in self._known.values()), default=now + EVERY) - now)

    async def look(self, now: float) -> list[KeyChange]:
        """Read all due sets in parallel, and return the changes."""
        self._follow(now)
        due = [iss for iss, known in self._known.items() if known.next_look <= now]
        readings = await asyncio.gather(*(self._read(iss) for iss in due))
        changes: list[KeyChange] = []
        for iss, document in zip(due, readings, strict=True):
            if (known := self._known.get(iss)) is not None:
                known.kids = self._kids(iss)
                changes += self._learn(iss, known, document, now)
                again = WHEN_MISSING if known.unread is not None or any(known.faults.values()) else EVERY
                known.last_look = now
                known.next_look = now + again * (1 + SPREAD * (2 * self._jitter() - 1))
        return changes

    def _follow(self, now: float) -> None:
        """Follow the configuration: new issuers and keys are due at once, removed ones are forgotten."""
        wanted = set(self._issuers())
        self._known = {iss: known for iss, known in self._known.items() if iss in wanted}
        for iss in wanted:
            known = self._known.setdefault(iss, _Known(next_look=now))
            if known.kids is not None and known.kids != self._kids(iss):
                known.next_look = min(known.next_look, now)

    def _kids(self, iss: str) -> frozenset[str]:
        return frozenset(key.public["kid"] for key in self._keys.signing(iss))

    def _signing(self, iss: str, alg: Algorithm) -> Signing | None:
        return next((key for key in self._keys.signing(iss) if key.alg is alg), None)

    def _learn(
        self, iss: str, known: _Known, document: IssuerDocument | UnreadDocument, now: float
    ) -> Iterator[KeyChange]:
        published = document.text if isinstance(document, UnreadDocument) else read_jwks(document.content)
        if isinstance(published, str):
            if known.unread != published:
                yield SetUnread(iss=iss, text=published)
            known.unread = published
            return
        known.unread = None
        before, known.faults = known.faults, publication_faults(self._keys.signing(iss), published)
        _note(known, {**publication_faults(self._keys.coming(iss), published), **known.faults}, now)
        for kid, fault in known.faults.items():
            if fault is not None and before.get(kid) != fault:
                yield KeyMissing(iss=iss, kid=kid, text=fault)
            elif fault is None and before.get(kid) is not None:
                yield KeyPublished(iss=iss, kid=kid)


def _note(known: _Known, faults: Mapping[str, str | None], now: float) -> None:
    """Note since when each key is there. A key that is configured no more is forgotten."""
    known.absent = {kid for kid in known.absent if kid in faults} | {kid for kid in faults if faults[kid] is not None}
    known.there = {
        kid: known.there.get(kid, _There(since=now, appeared=kid in known.absent))
        for kid, fault in faults.items()
        if fault is None
    }
