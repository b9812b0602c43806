"""Accepted logout tokens: a worker knows its own and those of other workers, within bounds."""

import asyncio
import json

import pytest

from notifier.features.upstreams.upstream_token import (
    MAX_SEEN_TOKENS,
    MAX_UNSHARED_TOKENS,
    MAX_UPDATE_BYTES,
    MAX_UPDATE_TOKENS,
    MAX_UPDATES_PER_SECOND,
    SeenTokens,
)

NOW = 1_800_000_000.0
ID = "0123456789abcdef0123456789abcdef"


def update(*ids: str, until: float = NOW + 60) -> bytes:
    """An update of another worker."""
    return json.dumps({"v": 1, "seen": dict.fromkeys(ids, until)}).encode()


async def test_a_token_is_known_at_all_workers_until_it_is_too_old() -> None:
    """All that wait are in as few updates as there is room for, each once."""
    now = NOW
    first, second = SeenTokens(lambda: now), SeenTokens(lambda: now)
    waiting = asyncio.create_task(first.next_update())
    await asyncio.sleep(0)
    first.add(ID, NOW + 60)
    second.on_update(await waiting)
    assert (first.is_seen(ID), second.is_seen(ID), second.is_seen("other")) == (True, True, False)
    now += 61
    assert (first.is_seen(ID), second.is_seen(ID)) == (False, False)
    for number in range(MAX_UPDATE_TOKENS + 1):
        first.add(f"{ID}{number}", NOW + 120)
    updates = [await first.next_update() for _ in range(2)]
    assert [len(json.loads(each)["seen"]) for each in updates] == [MAX_UPDATE_TOKENS, 1]
    assert max(map(len, updates)) <= MAX_UPDATE_BYTES
    for each in updates:
        second.on_update(each)
    assert all(second.is_seen(f"{ID}{number}") for number in range(MAX_UPDATE_TOKENS + 1))
    assert not asyncio.create_task(first.next_update()).done()


async def test_the_oldest_are_forgotten() -> None:
    """Here, and among those that other workers do not have yet."""
    tokens = SeenTokens(lambda: NOW)
    for number in range(MAX_SEEN_TOKENS + 1):
        tokens.add(str(number), NOW + 60)
    assert [tokens.is_seen(str(number)) for number in (0, 1, MAX_SEEN_TOKENS)] == [False, True, True]
    first = json.loads(await tokens.next_update())["seen"]
    assert str(MAX_SEEN_TOKENS + 1 - MAX_UNSHARED_TOKENS) in first


def test_a_flood_of_updates_is_ignored_for_a_second() -> None:
    """A sender that floods the exchange does not keep the worker busy."""
    now = NOW
    tokens = SeenTokens(lambda: now)
    for number in range(MAX_UPDATES_PER_SECOND + 1):
        tokens.on_update(update(str(number)))
    assert (tokens.is_seen("0"), tokens.is_seen(str(MAX_UPDATES_PER_SECOND))) == (True, False)
    now += 1
    tokens.on_update(update("later"))
    assert tokens.is_seen("later")


@pytest.mark.parametrize(
    "document", [b"", b"[]", b'{"v": 2, "seen": {"a": 1e10}}', b'{"v": 1, "seen": {"a": "b"}}', update("a" * 5000, "a")]
)
def test_an_unreadable_update_is_ignored(document: bytes) -> None:
    """It is of another release, or forged."""
    tokens = SeenTokens(lambda: NOW)
    tokens.on_update(document)
    assert not tokens.is_seen("a")
