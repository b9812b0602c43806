"""Test that parties share the time of the listeners: bearers of tokens, useful connections, strangers."""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
import uvloop
from aiohttp import web

from notifier.network.listeners.authorization import Tokens
from notifier.network.listeners.listener import Listener
from notifier.network.listeners.turns import (
    CONNECTIONS_PER_ROUND,
    MAX_REST_SECONDS,
    REST_AFTER_READ,
    REST_AFTER_REFUSAL,
    Parties,
    Party,
    Seat,
    StepTimer,
    Turns,
    network_of,
)
from notifier.settings.api_tokens import ApiToken
from tests.publishing.serving import serving
from tests.system.waiting import until

KNOWN = ApiToken(name="shop", sha256=hashlib.sha256(b"known").digest(), scopes=frozenset({"publish"}), issuers=None)
SECONDS = MAX_REST_SECONDS / REST_AFTER_REFUSAL  # that a request takes


def on_uvloop(test: Callable[[], object]) -> None:
    """Run a coroutine function on uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test())  # type: ignore[arg-type]


async def test_parties_alternate() -> None:
    """However many connections one of them has; and few turns are taken in a round of the event loop."""
    turns, many, one = Turns(), Party(), Party()
    taken: list[str] = []
    for number in range(100):
        turns.add(many, lambda number=number: taken.append(f"many {number}"))  # type: ignore[misc]
    turns.add(one, lambda: taken.append("one"))
    await asyncio.sleep(0)
    assert taken == ["many 0", "one"]
    assert CONNECTIONS_PER_ROUND == 2
    await asyncio.sleep(0)
    assert taken == ["many 0", "one", "many 1"]


async def test_networks_alternate() -> None:
    """However many strangers share one: a source or a probe of another network does not wait for them."""
    turns, party = Turns(), Party()
    taken: list[str] = []
    for number in range(100):
        turns.add(party, lambda number=number: taken.append(f"many {number}"), "many")  # type: ignore[misc]
    turns.add(party, lambda: taken.append("one"), "one")
    for _ in range(3):
        await asyncio.sleep(0)
    assert taken == ["many 0", "one", "many 1"]


@pytest.mark.parametrize(
    ("peer", "same", "other"),
    [
        (("192.0.2.1", 1), ("192.0.2.1", 2), ("192.0.2.2", 1)),
        (("2001:db8::1", 1, 0, 0), ("2001:db8::ffff:0:0:2", 2, 0, 0), ("2001:db8:0:1::1", 1, 0, 0)),
        (("fe80::1%lo", 1, 0, 1), ("fe80::2%lo", 1, 0, 1), None),
        (None, None, ("192.0.2.1", 1)),
    ],
)
def test_a_network_is_what_one_host_has(peer: Any, same: Any, other: Any) -> None:
    """An IPv4 address, or 64 bits of IPv6. A connection that has ended has no address."""
    assert network_of(peer) == network_of(same) != network_of(other)


async def test_a_party_that_rests_delays_no_other() -> None:
    """Also if only it was waiting before: the timer of its rest does not count for another."""
    turns, resting, other = Turns(), Party(), Party()
    taken: list[str] = []
    resting.rest(SECONDS, REST_AFTER_REFUSAL)
    began = time.monotonic()
    turns.add(resting, lambda: taken.append("resting"))
    await asyncio.sleep(0.02)
    assert taken == []
    turns.add(other, lambda: taken.append("other"))
    await asyncio.sleep(0)
    assert taken == ["other"]
    await until(lambda: asyncio.sleep(0, taken), lambda names: "resting" in names)
    assert MAX_REST_SECONDS - 0.01 < time.monotonic() - began < MAX_REST_SECONDS + 1


def test_a_party_that_rests_delays_no_other_on_uvloop() -> None:
    """Its timers are of another class."""
    on_uvloop(test_a_party_that_rests_delays_no_other)


async def test_a_party_that_rests_longer_delays_no_other() -> None:
    """A bearer that reads rests for a moment, also while strangers rest for longer."""
    turns, longer, shorter = Turns(), Party(), Party()
    taken: list[str] = []
    longer.rest(SECONDS, REST_AFTER_REFUSAL)
    shorter.rest(SECONDS / 10, REST_AFTER_READ)
    turns.add(longer, lambda: taken.append("longer"))
    turns.add(shorter, lambda: taken.append(f"shorter, {longer.rests_until > time.monotonic() + 0.05}"))
    await until(lambda: asyncio.sleep(0, taken), lambda names: len(names) == 2)
    assert taken == ["shorter, True", "longer"]


def test_a_party_that_rests_longer_delays_no_other_on_uvloop() -> None:
    """Its timers are of another class."""
    on_uvloop(test_a_party_that_rests_longer_delays_no_other)


async def test_an_error_in_a_turn_ends_no_other_turns() -> None:
    """Otherwise all connections would hang until one of them receives more bytes."""
    turns, one, other = Turns(), Party(), Party()
    taken: list[str] = []
    errors: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(str(context["exception"])))

    def fail() -> None:
        raise LookupError("no")

    turns.add(one, fail)
    turns.add(one, lambda: taken.append("one"))
    turns.add(other, lambda: taken.append("other"))
    for _ in range(3):
        await asyncio.sleep(0)
    assert sorted(taken) == ["one", "other"]
    assert errors == ["no"]


def test_rests_add_up_and_are_bounded() -> None:
    """Each refusal makes the rest longer, up to a bound. Useful requests do not."""
    party = Party()
    for _ in range(2):
        party.rest(0.2 * SECONDS, REST_AFTER_REFUSAL)
        party.rest(3600, 0.0)
    assert 0.39 * MAX_REST_SECONDS < party.rests_until - time.monotonic() <= 0.4 * MAX_REST_SECONDS
    party.rest(3600, REST_AFTER_REFUSAL)
    assert 0.99 * MAX_REST_SECONDS < party.rests_until - time.monotonic() <= MAX_REST_SECONDS


async def test_an_ended_connection_has_no_turn() -> None:
    """Otherwise many short connections would make a queue that delays the others more and more."""
    turns, parties = Turns(), Parties(lambda: [KNOWN])
    taken: list[str] = []
    ended = [Seat(turns, parties, lambda: taken.append("ended")) for _ in range(1000)]
    for seat in ended:
        seat.wait_for_turn()
        seat.leave()
    Seat(turns, parties, lambda: taken.append("open")).wait_for_turn()
    await asyncio.sleep(0)
    assert taken == ["open"]


async def test_a_waiting_connection_keeps_its_turn_when_its_token_is_known() -> None:
    """Its first bytes were those of a stranger."""
    turns, parties = Turns(), Parties(lambda: [KNOWN])
    taken: list[str] = []
    seat = Seat(turns, parties, lambda: taken.append("turn"))
    parties.strangers.rest(SECONDS, REST_AFTER_REFUSAL)
    seat.wait_for_turn()
    seat.on_head(b"POST /v1/events HTTP/1.1\r\nauthorization:  bearer known \r\n\r\n")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert taken == ["turn"]


async def test_a_request_without_a_token_takes_no_turn_of_a_bearer() -> None:
    """A proxy sends requests of many over one connection. Here, the bearer before is refused, and rests."""
    turns, parties = Turns(), Parties(lambda: [KNOWN])
    taken: list[str] = []
    seat = Seat(turns, parties, lambda: taken.append("turn"))
    seat.on_head(b"POST /v1/events HTTP/1.1\r\nAuthorization: Bearer known\r\n\r\n")
    seat.on_answer(SECONDS, REST_AFTER_REFUSAL)
    seat.on_head(b"POST /v1/events/source HTTP/1.1\r\n\r\n")
    seat.wait_for_turn()
    await asyncio.sleep(0)
    assert taken == ["turn"]


@pytest.mark.parametrize(
    ("field", "known"),
    [
        (b"Authorization: Bearer known", True),
        (b"AUTHORIZATION:bearer known  ", True),
        (b"Authorization: Bearer unknown", False),
        (b"Authorization: Basic known", False),
        (b"X-Authorization: Bearer known", False),
    ],
)
def test_bearers_are_known_by_the_head(field: bytes, known: bool) -> None:
    """As a route would know them."""
    party = Parties(lambda: [KNOWN]).bearer_in(b"POST / HTTP/1.1\r\nHost: a\r\n" + field + b"\r\n\r\n")
    assert (party is not None) is known


def test_without_tokens_all_are_strangers() -> None:
    """The API on loopback, the pages and ops have none."""
    assert Parties(lambda: None).bearer_in(b"GET / HTTP/1.1\r\nAuthorization: Bearer known\r\n\r\n") is None


async def test_only_the_time_of_the_steps_counts() -> None:
    """Not the time for which a handler waits. Its result, its error and its cancellation are passed on."""

    async def work(seen: list[str]) -> str:
        time.sleep(0.02)  # noqa: ASYNC251  it stands for work
        try:
            await asyncio.sleep(0.2)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        return "done"

    timer = StepTimer(work([]))
    assert await timer == "done"
    assert 0.02 <= timer.seconds < 0.15

    seen: list[str] = []
    task = asyncio.ensure_future(_awaited(StepTimer(work(seen))))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["cancelled"]

    async def fail() -> None:
        await asyncio.sleep(0)
        raise LookupError("no")

    with pytest.raises(LookupError, match="no"):
        await StepTimer(fail())


async def _awaited(timer: StepTimer[str]) -> str:
    return await timer


@contextlib.asynccontextmanager
async def slow_listener(tokens: Tokens = lambda: [KNOWN], **more: Any) -> AsyncIterator[Listener]:
    """Start a listener whose answers take SECONDS of the event loop: 401 without the known token."""

    async def handle(request: web.Request) -> web.Response:
        time.sleep(SECONDS)  # noqa: ASYNC251  it stands for work
        return web.Response(status=202 if request.headers.get("Authorization") == "Bearer known" else 401)

    app = web.Application()
    app.add_routes([web.route("*", "/{path:.*}", handle)])
    async with serving(app, tokens=tokens, **more) as listener:
        yield listener


async def test_strangers_delay_no_bearer() -> None:
    """20 strangers try tokens all the time, on connections that stay open. The bearer's event passes them."""
    strangers = 20
    async with slow_listener() as listener, aiohttp.ClientSession() as session:
        url, refused = f"{listener.url}/v1/events", 0

        async def attack() -> None:
            nonlocal refused
            while True:
                async with session.post(url, headers={"Authorization": "Bearer wrong"}) as response:
                    assert response.status == 401
                    refused += 1

        async with asyncio.TaskGroup() as group:
            attacks = [group.create_task(attack()) for _ in range(strangers)]
            await until(lambda: asyncio.sleep(0, refused), lambda count: count >= 2)
            before, began = refused, time.monotonic()
            for _ in range(10):
                async with session.post(url, headers={"Authorization": "Bearer known"}) as response:
                    assert response.status == 202
            passed = time.monotonic() - began
            for each in attacks:
                each.cancel()
    # A share of 1 of 11 at most, and each could otherwise have had 10 turns of the bearer's.
    assert refused - before <= 3 + passed / MAX_REST_SECONDS
    assert passed < 10 * strangers * SECONDS / 2


def test_strangers_delay_no_bearer_on_uvloop() -> None:
    """The worker's event loop."""
    on_uvloop(test_strangers_delay_no_bearer)


@pytest.mark.parametrize(("method", "rest"), [("GET", SECONDS * REST_AFTER_READ), ("POST", 0.0)])
async def test_only_useful_requests_cost_no_rest(method: str, rest: float) -> None:
    """A party that reads has half of the time; a party that publishes has all of it."""
    async with slow_listener() as listener, aiohttp.ClientSession() as session:
        began = time.monotonic()
        for _ in range(10):
            async with session.request(method, listener.url, headers={"Authorization": "Bearer known"}) as response:
                assert response.status == 202
        taken = (time.monotonic() - began) / 10
    assert taken >= SECONDS + 0.8 * rest
    if not rest:
        assert taken < 1.9 * SECONDS


async def test_a_head_is_searched_for_its_token_once() -> None:
    """While strangers rest, one could send a byte at a time, and have 32 KiB searched for each."""
    searched = 0

    def tokens() -> list[ApiToken]:
        nonlocal searched
        searched += 1
        return [KNOWN]

    head = b"POST / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer wrong\r\nContent-Length: 20\r\n\r\n"
    async with slow_listener(tokens) as listener:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        for _ in range(2):  # the first makes the strangers rest
            searched = 0
            for part in (head, *[b"x"] * 20):
                writer.write(part)
                for _ in range(3):
                    await asyncio.sleep(0)
            assert b" 401 " in await reader.readuntil(b"\r\n\r\n")
        writer.close()
    assert searched == 1


def head(token: str) -> bytes:
    """Return a request without a body."""
    return f"POST / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nContent-Length: 0\r\n\r\n".encode()


async def test_a_whole_head_may_wait_for_its_turn_for_longer_than_its_limit() -> None:
    """Its peer has done all it can. It was closed without an answer."""
    async with slow_listener(header_timeout=0.5) as listener:
        acceptor_of(listener)._parties.strangers.rests_until = time.monotonic() + 1
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(head("wrong"))
        assert b" 401 " in await reader.readuntil(b"\r\n\r\n")
        writer.close()


def test_a_whole_head_may_wait_for_its_turn_on_uvloop() -> None:
    """Its order of timers and reads differs."""
    on_uvloop(test_a_whole_head_may_wait_for_its_turn_for_longer_than_its_limit)


@pytest.mark.parametrize(
    "sent", [b"nonsense\r\n\r\n", head("wrong")[:-2] + b"X y: 1\r\n\r\n"], ids=["ours", "aiohttp's"]
)
async def test_strangers_rest_after_a_head_that_is_no_request(sent: bytes) -> None:
    """No handler answers it."""
    rests: list[float] = []

    class Watched(Party):
        def rest(self, seconds: float, factor: float) -> None:
            rests.append(seconds * factor)

    async with serving(web.Application(), tokens=lambda: [KNOWN]) as listener:
        acceptor = acceptor_of(listener)
        acceptor._parties.strangers = Watched()
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(sent)
        assert b" 400 " in await reader.read()
        writer.close()
        await until(lambda: asyncio.sleep(0, rests), any)


async def test_each_of_several_requests_at_once_takes_its_own_turns() -> None:
    """The second was received while the first was answered."""
    parties: list[bool] = []

    async def handle(request: web.Request) -> web.Response:
        connection = acceptor_of(listener)._connections[request.protocol]
        parties.append(connection._seat._party is acceptor_of(listener)._parties.strangers)
        return web.Response()

    app = web.Application()
    app.add_routes([web.post("/", handle)])
    async with serving(app, tokens=lambda: [KNOWN]) as listener:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(head("wrong") + head("known") + head("wrong"))
        for _ in range(3):
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        writer.close()
    assert parties == [True, False, True]


def test_each_of_several_requests_at_once_takes_its_own_turns_on_uvloop() -> None:
    """The worker's event loop."""
    on_uvloop(test_each_of_several_requests_at_once_takes_its_own_turns)


async def test_the_end_of_an_unread_body_is_no_head() -> None:
    """It ends with an empty line, too. The bearer's next request was one of a stranger, and strangers rest."""
    strangers: list[bool] = []

    async def refuse(request: web.Request) -> web.Response:
        seat = acceptor_of(listener)._connections[request.protocol]._seat
        strangers.append(seat._party is acceptor_of(listener)._parties.strangers)
        return web.Response(status=429)

    app = web.Application()
    app.add_routes([web.post("/", refuse)])
    async with serving(app, tokens=lambda: [KNOWN]) as listener:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        unread = head("known").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked") + b"3\r\nyes\r\n"
        for sent in (unread, b"0\r\n\r\n", head("known")):
            acceptor_of(listener)._parties.strangers.rest(SECONDS, REST_AFTER_REFUSAL)
            writer.write(sent)
            if sent.startswith(b"POST"):
                assert b" 429 " in await reader.readuntil(b"\r\n\r\n")
            for _ in range(3):
                await asyncio.sleep(0)
        writer.close()
    assert strangers == [False, False]


def test_the_end_of_an_unread_body_is_no_head_on_uvloop() -> None:
    """The worker's event loop."""
    on_uvloop(test_the_end_of_an_unread_body_is_no_head)


def acceptor_of(listener: Listener) -> Any:
    """Return what accepts its connections."""
    assert listener.runner.server is not None
    return listener.runner.server.request_handler.__self__  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("address", "reads"),
    [("127.0.0.2", False), ("127.0.0.1", False), ("127.0.0.1", True)],
    ids=["another network", "new, of the same proxy", "reads, of the same proxy"],
)
async def test_refused_strangers_delay_no_others(address: str, reads: bool) -> None:
    """As a source of events, which has no token of the API: 8 connections are refused all the time."""

    async def handle(request: web.Request) -> web.Response:
        time.sleep(SECONDS)  # noqa: ASYNC251  it stands for work
        return web.Response(status=401 if request.path == "/refused" else 202)

    app = web.Application()
    app.add_routes([web.route("*", "/{path:.*}", handle)])
    refused = 0
    source = aiohttp.TCPConnector(local_addr=(address, 0))
    async with (
        serving(app, tokens=lambda: [KNOWN]) as listener,
        aiohttp.ClientSession() as session,
        aiohttp.ClientSession(connector=source) as other,
        asyncio.TaskGroup() as group,
    ):

        async def attack() -> None:
            nonlocal refused
            while True:
                async with session.post(f"{listener.url}/refused") as response:
                    assert response.status == 401
                    refused += 1

        if reads:
            await (await other.get(listener.url)).read()
        attacks = [group.create_task(attack()) for _ in range(8)]
        await until(lambda: asyncio.sleep(0, refused), lambda count: count >= 20)  # each of them once
        before = refused
        async with other.post(f"{listener.url}/source") as response:
            assert response.status == 202
        passed = refused - before
        for each in attacks:
            each.cancel()
    assert passed <= 3
