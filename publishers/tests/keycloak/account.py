"""What must have come of endings, at the broker and at the clients: no more, and no less."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit

from publishers.tests.keycloak.ground import Ground
from publishers.tests.keycloak.shop_realm import NOTIFIED
from publishers.tests.keycloak.ways import Ending
from publishers.tests.tap import Published, properties
from tests.system.clients import Hit, verify_all

UNCERTAIN = "/off"  # notified or not: the worker may have read already that it is disabled
ADDRESSES = {*NOTIFIED, "asking"}
Event = tuple[str, str, frozenset[str], str | None]
Notification = tuple[str, str, str, str]


def _event(published: Published) -> Event:
    return published.lane, published.sid, published.clients, published.event.get("reason")


def _expected(ending: Ending) -> Event:
    return ending.lane, ending.visit.sid, frozenset(ending.clients), ending.reason


def _notifications(ground: Ground, endings: Iterable[Ending]) -> Counter[Notification]:
    """Path, issuer, session and user of each token: as the client's own ID token had them."""
    return Counter(
        (f"/{name}", ground.issuer(ending.realm_name), ending.visit.sid, ending.subs[name])
        for ending in endings
        for name in ending.clients
        if name in ADDRESSES
    )


def _came(hits: Iterable[Hit]) -> Counter[Notification]:
    return Counter(
        (hit.path, hit.claims["iss"], hit.claims["sid"], hit.claims["sub"]) for hit in hits if hit.path != UNCERTAIN
    )


async def hold(ground: Ground, endings: Sequence[Ending]) -> None:
    """Check that each session end is one event, and that its clients got tokens that Keycloak's JWK Set verifies."""
    sids = {ending.visit.sid for ending in endings}
    await ground.tap.until(lambda _: len(ground.tap.of(*sids)) >= len(endings))
    events = ground.tap.of(*sids)
    _same(Counter(map(_event, events)), Counter(map(_expected, endings)))
    for published in events:
        _check_event(ground, published, next(each for each in endings if _expected(each) == _event(published)))
    wanted = _notifications(ground, endings)
    await ground.clients.until(lambda: _came(_of(ground.clients.hits, sids)) >= wanted)
    hits = _of(ground.clients.hits, sids)
    _same(_came(hits), wanted)
    assert {hit.header["kid"] for hit in hits} <= ground.kids, "Keycloak itself has notified a client"
    verify_all(hits, ground.jwks.__getitem__)
    ground.endings += endings


def _same(came: Counter[Any], wanted: Counter[Any]) -> None:
    assert came == wanted, f"too much came: {came - wanted}; and too little: {wanted - came}"


def _of(hits: Iterable[Hit], sids: set[str]) -> list[Hit]:
    return [hit for hit in hits if hit.claims.get("sid") in sids]


def _check_event(ground: Ground, published: Published, ending: Ending) -> None:
    event = published.event
    assert event["iss"] == ground.issuer(ending.realm_name)
    assert event["sub"] == ending.visit.sub
    assert event["ended_at"]
    assert published.properties == properties(event["id"], urlsplit(ground.amqp_url).username)


def nothing_else(ground: Ground) -> None:
    """Whatever came is of an ending that a test has held."""
    _same(Counter(map(_event, ground.tap.seen)), Counter(map(_expected, ground.endings)))
    ids = Counter(published.event["id"] for published in ground.tap.seen)
    assert [each for each, count in ids.items() if count > 1] == []
    _same(_came(ground.clients.hits), _notifications(ground, ground.endings))
    assert ground.worker.logged("dead_letter") == []
