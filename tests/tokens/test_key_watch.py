"""Test the watch of the issuers' JWK Sets: its state, its reports, and its schedule."""

import math
from typing import Any

from notifier.model.client import Algorithm
from notifier.network.http.issuer_document import DocumentIssue, IssuerDocument
from notifier.tokens.key_watch import (
    MIN_INTERVAL_SECONDS,
    MISSING_INTERVAL_SECONDS,
    READ_INTERVAL_SECONDS,
    JwksUnread,
    KeyMissing,
    KeyPublished,
    KeyWatch,
)
from notifier.tokens.published_keys import Signing

ISS, OTHER = "https://id.example", "https://other.example"
GONE = IssuerDocument(content={"keys": []})


def jwk(kid: str) -> dict[str, str]:
    return {"kty": "EC", "crv": "P-256", "x": "AQID", "y": "BAUG", "kid": kid}


class Site:
    """Issuers with one key each, and their published keys."""

    def __init__(self, *issuers: str) -> None:
        self.kids = dict.fromkeys(issuers, "k1")
        self.sets: dict[str, IssuerDocument | DocumentIssue] = dict.fromkeys(
            issuers, IssuerDocument(content={"keys": [jwk("k1")]})
        )
        self.next: dict[str, str] = {}
        self.read: list[str] = []
        self.watch = KeyWatch(lambda: self.kids, self, self._read, lambda: 0.5)

    def current_keys(self, iss: str) -> tuple[Signing, ...]:
        return (Signing(alg=Algorithm.ES256, public=jwk(self.kids[iss]), made_at=1000.0),)

    def future_keys(self, iss: str) -> tuple[Signing, ...]:
        kid = self.next.get(iss)
        return () if kid is None else (Signing(alg=Algorithm.ES256, public=jwk(kid), made_at=1000.0),)

    async def _read(self, iss: str) -> IssuerDocument | DocumentIssue:
        self.read.append(iss)
        return self.sets[iss]

    async def look(self, now: float) -> list[Any]:
        return await self.watch.read_due_sets(now)

    def missing(self, iss: str = ISS) -> str | None:
        return self.watch.fault_of(iss, Algorithm.ES256)


async def test_missing_key_is_reported_until_it_is_published() -> None:
    """Reported once when it disappears and once when it appears; the gauge follows; other issuers are not affected."""
    site = Site(ISS, OTHER)
    assert await site.look(0) == []
    assert set(site.watch.published()) == {(ISS, "k1", True), (OTHER, "k1", True)}
    there, site.sets[ISS] = site.sets[ISS], GONE
    assert await site.look(READ_INTERVAL_SECONDS) == [KeyMissing(iss=ISS, kid="k1", text="the key is not published")]
    assert "k1" in (site.missing() or "")
    assert site.missing(OTHER) is None
    assert set(site.watch.published()) == {(ISS, "k1", False), (OTHER, "k1", True)}
    assert await site.look(READ_INTERVAL_SECONDS + MISSING_INTERVAL_SECONDS) == []
    site.sets[ISS] = there
    assert await site.look(READ_INTERVAL_SECONDS + 2 * MISSING_INTERVAL_SECONDS) == [KeyPublished(iss=ISS, kid="k1")]
    assert site.missing() is None


async def test_unreadable_jwk_set_changes_nothing() -> None:
    """An unavailable issuer defers nothing, and does not release the deferrals of a missing key."""
    site = Site(ISS)
    site.sets[ISS] = DocumentIssue(text="answered 503")
    assert await site.look(0) == [JwksUnread(iss=ISS, text="answered 503")]
    assert site.missing() is None
    assert list(site.watch.published()) == []
    site.sets[ISS] = GONE
    await site.look(MISSING_INTERVAL_SECONDS)
    site.sets[ISS] = IssuerDocument(content={"error": "maintenance"})
    [unread] = await site.look(2 * MISSING_INTERVAL_SECONDS)
    assert isinstance(unread, JwksUnread)
    assert site.missing() is not None


async def test_interval_is_five_minutes_and_shorter_during_a_problem() -> None:
    """A key that appears releases its deferrals half a minute later."""
    site = Site(ISS)
    assert site.watch.seconds_until_due(0) == 0
    await site.look(0)
    assert site.watch.seconds_until_due(0) == READ_INTERVAL_SECONDS
    assert await site.look(READ_INTERVAL_SECONDS - 1) == []
    assert site.read == [ISS]
    site.sets[ISS] = GONE
    await site.look(READ_INTERVAL_SECONDS)
    assert site.watch.seconds_until_due(READ_INTERVAL_SECONDS) == MISSING_INTERVAL_SECONDS


async def test_400_advances_the_next_read() -> None:
    """A key may have been removed; but a client that refuses everything does not increase the rate of requests."""
    site = Site(ISS)
    await site.look(0)
    assert site.watch.on_refused_token(ISS, 1)
    assert site.watch.seconds_until_due(1) == MIN_INTERVAL_SECONDS - 1
    assert not site.watch.on_refused_token(ISS, 2)
    assert not site.watch.on_refused_token(OTHER, 2)
    await site.look(MIN_INTERVAL_SECONDS)
    assert site.read == [ISS, ISS]


async def test_a_key_is_no_older_than_its_file_and_than_its_publication() -> None:
    """A publication counts if it was observed: a key in the first read set may be older."""
    site = Site(ISS)
    there, site.sets[ISS] = site.sets[ISS], GONE

    def age(now: float) -> float:
        return site.watch.age(ISS, Algorithm.ES256, clock=1000.0 + 90_000, now=now)

    assert age(0) == 90_000
    await site.look(0)
    site.sets[ISS] = there
    await site.look(MISSING_INTERVAL_SECONDS)
    assert age(MISSING_INTERVAL_SECONDS + 60) == 60
    assert age(100_000) == 90_000
    assert site.watch.age(ISS, Algorithm.RS256, clock=0, now=0) == math.inf  # no key signs by it


async def test_future_key_is_watched_before_it_signs() -> None:
    """A key whose publication starts with its first signature is new then; no earlier report is made."""
    site = Site(ISS)
    site.next[ISS] = "k2"
    assert await site.look(0) == []
    assert set(site.watch.published()) == {(ISS, "k1", True)}
    assert list(site.watch.seen_keys()) == [(ISS, "k1", 0, False)]
    site.sets[ISS] = IssuerDocument(content={"keys": [jwk("k1"), jwk("k2")]})
    site.kids[ISS] = site.next.pop(ISS)
    assert await site.look(READ_INTERVAL_SECONDS) == []
    assert list(site.watch.seen_keys()) == [(ISS, "k2", READ_INTERVAL_SECONDS, True)]
    assert site.watch.age(ISS, Algorithm.ES256, clock=1000.0 + 90_000, now=READ_INTERVAL_SECONDS + 60) == 60
