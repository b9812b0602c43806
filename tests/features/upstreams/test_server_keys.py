"""How long the JWK Set of a relayed identity server is used, and when it is read again."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from notifier.features.upstreams.joined_keys import RELAY_MEMBER
from notifier.features.upstreams.server_keys import (
    FRESH_SECONDS,
    MAX_CACHED_SECONDS,
    MAX_HELD_SECONDS,
    MAX_WAITING_TOKENS,
    UNKNOWN_INTERVAL_SECONDS,
    HeldKeys,
    JwksResult,
    ServerKeys,
)
from notifier.network.http.issuer_document import DocumentIssue, IssuerDocument
from notifier.tokens.security_event_token import KeysUnavailable
from tests.tokens.transmitter import key, public

SERVER = public(key("P-256", "server"), "s1")
OWN = public(key("P-256", "own"), "n1")
UNREACHABLE = [DocumentIssue(text="refused the connection", status=0), DocumentIssue(text="answered 502", status=502)]
KNOWN_ANSWERS: list[IssuerDocument | DocumentIssue] = [
    DocumentIssue(text="answered 404", status=404),
    DocumentIssue(text="answered 508", status=508),
    DocumentIssue(text="the answer is not JSON"),
    IssuerDocument(content={"keys": []}),
    IssuerDocument(content={"keys": "none"}),
    IssuerDocument(content={"keys": [SERVER] * 101}),
    IssuerDocument(content={"keys": [SERVER], **RELAY_MEMBER}),
]


class Server:
    """A server whose answer and clock a test sets."""

    def __init__(self) -> None:
        self.answer: IssuerDocument | DocumentIssue = IssuerDocument(content={"keys": [SERVER]})
        self.monotonic = 1000.0
        self.readings = self.joins = 0
        self.answering = asyncio.Event()
        self.answering.set()
        self.keys = ServerKeys("op", self.read, self.own_jwks, lambda: self.monotonic)

    def publish(self, *keys: Mapping[str, Any], **more: Any) -> None:
        """Publish these keys from now on."""
        self.answer = IssuerDocument(content={"keys": list(keys)}, **more)

    async def read(self) -> IssuerDocument | DocumentIssue:
        """Fetch the JWK Set."""
        self.readings += 1
        await self.answering.wait()
        return self.answer

    def own_jwks(self) -> Sequence[Mapping[str, str]]:
        """The keys of notifier, for a joined set."""
        self.joins += 1
        return [OWN]

    async def kids(self) -> list[str | None]:
        """The `kid` of each key of the server that is used now."""
        held = await self.keys.current()
        return [] if isinstance(held, JwksResult) else [jwk.kid for jwk in held.keys.published]

    async def verifying_kids(self, kid: str) -> list[str | None] | None:
        """The same for a token with this `kid`; None if it must be sent again."""
        keys = await self.keys.matching_keys(kid, "ES256")
        return None if isinstance(keys, KeysUnavailable) else [each.kid for each in keys]


async def test_a_new_key_is_served_at_once() -> None:
    """A server signs by a key as soon as it publishes it. Readings are limited to one in FRESH_SECONDS."""
    server = Server()
    assert await server.kids() == ["s1"]
    server.publish(SERVER, {**OWN, "kid": "s2"})
    assert (await server.kids(), server.readings) == (["s1"], 1)
    server.monotonic += FRESH_SECONDS
    assert (await server.kids(), server.readings) == (["s1", "s2"], 2)


@pytest.mark.parametrize("answer", KNOWN_ANSWERS)
async def test_the_reading_fails_and_the_server_rotates_503_at_once(answer: IssuerDocument | DocumentIssue) -> None:
    """404, 508, an empty or an unusable set, or the joined set: neither clients nor tokens get the old keys."""
    server = Server()
    assert await server.kids() == ["s1"]
    server.answer = answer
    server.monotonic += FRESH_SECONDS
    assert (await server.kids(), await server.verifying_kids("s1")) == ([], None)
    looped = "508" in str(answer) or RELAY_MEMBER.items() <= getattr(answer, "content", {}).items()
    assert server.keys.held is (JwksResult.LOOP if looped else JwksResult.UNUSABLE)


@pytest.mark.parametrize("answer", UNREACHABLE)
async def test_held_only_while_the_server_is_unreachable_for_5_minutes(answer: DocumentIssue) -> None:
    """For clients and for tokens. It may not be cached."""
    server = Server()
    server.publish(SERVER, fresh_seconds=60.0)
    assert await server.kids() == ["s1"]
    server.answer = answer
    server.monotonic += MAX_HELD_SECONDS
    held = await server.keys.current()
    assert isinstance(held, HeldKeys)
    assert (held.result, held.max_age, MAX_HELD_SECONDS) == (JwksResult.HELD, 0, 300.0)
    assert await server.verifying_kids("s1") == ["s1"]
    server.monotonic += 1
    assert (await server.kids(), await server.verifying_kids("s1")) == ([], None)
    assert server.keys.held is JwksResult.AWAY


async def test_all_keys_revoked_by_an_empty_set_or_one_spoofed_reading_and_then_none() -> None:
    """No old key is served after it, also when the server becomes unreachable."""
    server = Server()
    assert await server.kids() == ["s1"]
    server.publish()
    server.monotonic += FRESH_SECONDS
    assert await server.kids() == []
    server.answer = UNREACHABLE[0]
    server.monotonic += FRESH_SECONDS
    assert (await server.kids(), await server.verifying_kids("s1")) == ([], None)


async def test_the_relay_accepts_a_removed_key_no_longer_than_the_joined_set() -> None:
    """One set serves both."""
    server = Server()
    assert await server.verifying_kids("s1") == ["s1"]
    server.publish({**OWN, "kid": "s2"})
    server.monotonic += FRESH_SECONDS
    assert await server.kids() == ["s2"]
    assert await server.verifying_kids("s1") == []


async def test_a_reading_is_awaited_until_0_3_s_after_it_began() -> None:
    """Whether a set is held or not. All requests share the reading, which goes on."""
    server = Server()
    server.answering.clear()
    assert await server.kids() == []
    server.answering.set()
    assert isinstance(await server.keys.current(None), HeldKeys)
    server.answering.clear()
    server.monotonic += FRESH_SECONDS
    assert list(await asyncio.gather(*(server.kids() for _ in range(900)))) == [["s1"]] * 900
    server.publish({**SERVER, "kid": "s2"})
    server.answering.set()
    assert (await server.kids(), server.readings) == (["s2"], 2)
    server.answering.clear()
    server.monotonic += FRESH_SECONDS
    reading = asyncio.create_task(server.kids())
    await asyncio.sleep(0)
    server.keys.cancel()
    assert await reading == ["s2"]


async def test_a_set_of_a_slow_server_is_not_cached() -> None:
    """It may be a minute old: the time that the server allows has passed."""
    server = Server()
    server.publish(SERVER, fresh_seconds=60.0)
    held = [await server.keys.current()]
    server.answering.clear()
    for seconds in (FRESH_SECONDS, 60.0):
        server.monotonic += seconds
        held.append(await server.keys.current())
    results = [(each.result, each.max_age) for each in held if isinstance(each, HeldKeys)]
    assert results == [(JwksResult.FRESH, 60), (JwksResult.FRESH, 60), (JwksResult.HELD, 0)]
    server.answering.set()
    held = [await server.keys.current()]
    assert isinstance(held[0], HeldKeys)
    assert (held[0].result, held[0].max_age) == (JwksResult.FRESH, 60)


async def test_200_tokens_with_invented_kids_do_not_delay_the_first_tokens_of_a_new_key() -> None:
    """All wait for one reading that began after they came. A token whose claims are refused causes none."""
    server = Server()
    assert await server.kids() == ["s1"]
    server.monotonic += 0.5
    server.publish(SERVER, {**OWN, "kid": "s2"})
    assert await server.keys.matching_keys("invented", "ES256", may_wait=lambda: False) == ()
    assert server.readings == 1
    invented = [asyncio.create_task(server.verifying_kids(f"k{nth}")) for nth in range(200)]
    tokens = [asyncio.create_task(server.verifying_kids("s2")) for _ in range(6)]
    assert await asyncio.gather(*tokens) == [["s2"]] * 6
    assert await asyncio.gather(*invented) == [[]] * 200
    assert server.readings == 2


async def test_tokens_that_wait_for_keys_are_bounded_and_known_keys_need_no_place() -> None:
    """Strangers can invent kids. While they hold all places, other unknown kids are to be sent again."""
    server = Server()
    assert await server.kids() == ["s1"]
    server.monotonic += UNKNOWN_INTERVAL_SECONDS
    server.answering.clear()
    invented = [asyncio.create_task(server.verifying_kids(f"k{nth}")) for nth in range(MAX_WAITING_TOKENS)]
    await asyncio.sleep(0)
    assert await asyncio.wait_for(server.verifying_kids("k"), 1) is None
    assert await server.verifying_kids("s1") == ["s1"]
    server.answering.set()
    assert await asyncio.gather(*invented) == [[]] * MAX_WAITING_TOKENS
    assert (await server.verifying_kids("k"), server.readings) == ([], 2)


async def test_tokens_that_wait_for_the_first_reading_are_bounded() -> None:
    """Those beyond are to be sent again."""
    server = Server()
    server.answering.clear()
    waiting = [asyncio.create_task(server.verifying_kids("s1")) for _ in range(MAX_WAITING_TOKENS)]
    await asyncio.sleep(0)
    assert await asyncio.wait_for(server.verifying_kids("s1"), 1) is None
    server.answering.set()
    assert await asyncio.gather(*waiting) == [["s1"]] * MAX_WAITING_TOKENS


async def test_an_error_in_notifier_drops_the_set() -> None:
    """In doubt nothing is served, and the next reading may succeed."""
    server = Server()
    assert await server.kids() == ["s1"]
    server.answer = cast("IssuerDocument", None)
    server.monotonic += FRESH_SECONDS
    assert (await server.kids(), server.keys.held) == ([], JwksResult.UNUSABLE)
    server.publish(SERVER)
    server.monotonic += FRESH_SECONDS
    assert await server.kids() == ["s1"]


async def test_a_token_waits_for_the_first_reading() -> None:
    """The server may make its keys only then (Hydra), which takes seconds."""
    server = Server()
    server.answering.clear()
    token = asyncio.create_task(server.verifying_kids("s1"))
    assert await server.kids() == []  # after 0.3 s
    assert not token.done()
    server.answering.set()
    assert await token == ["s1"]


async def test_100_keys_with_notifiers_kid_are_joined_once_per_reading() -> None:
    """Each answer is the same body."""
    server = Server()
    server.publish(*[{**SERVER, "kid": "n1"}] * 100)
    held = [await server.keys.current() for _ in range(50)]
    assert len({id(each.joined.body) for each in held if isinstance(each, HeldKeys)}) == server.joins == 1


async def test_the_reading_side_logs_once() -> None:
    """Not the requests, which strangers can make. A new reason is logged."""
    server = Server()
    with capture_logs() as lines:
        for answer in (KNOWN_ANSWERS[0], KNOWN_ANSWERS[0], KNOWN_ANSWERS[-1]):
            server.answer = answer
            server.monotonic += FRESH_SECONDS
            for _ in range(10):
                assert await server.kids() == []
    logged = [line["reason"] for line in lines if line["event"] == "relay_keys_fault"]
    assert logged == [
        "answered 404",
        "the server's JWK Set leads to notifier itself; it must be the server's own address",
    ]


@pytest.mark.parametrize(("stated", "passed_on"), [(None, 0), (60.0, 60), (21600.0, MAX_CACHED_SECONDS), (0.0, 0)])
async def test_no_cache_keeps_the_set_longer_than_the_server_allows(stated: float | None, passed_on: int) -> None:
    """Nor longer than MAX_CACHED_SECONDS, since a key of notifier may be added."""
    server = Server()
    server.answer = replace(IssuerDocument(content={"keys": [SERVER]}), fresh_seconds=stated)
    held = await server.keys.current()
    assert isinstance(held, HeldKeys)
    assert held.max_age == passed_on
