"""Receivers that send anything, on real sockets: each answer has an outcome in time, and no connection is left."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.model.client import ResponsePolicy
from notifier.model.egress import find_uri_issue
from notifier.model.outcome import HttpResponse, StaleConnection, TransportFailure, to_outcome
from notifier.network.http.transport import HttpTransport
from tests.fuzz.answers import Script, scripts
from tests.fuzz.conftest import many
from tests.fuzz.grammar import URIS
from tests.network.http.http_requests import LOOPBACK, NOW, TOKEN, ScriptedResolver, opened, request
from tests.support.behaviours import Behaviour
from tests.support.receivers import ScriptedReceiver, scripted

DEADLINE = 0.25  # seconds, for an endless answer
PATIENCE = 60.0  # seconds within which it must have ended on a machine that does other things too


class Bench:
    """A loop, a transport and a receiver, for synchronous tests that run case after case."""

    def __init__(self, runner: asyncio.Runner, transport: HttpTransport, receiver: ScriptedReceiver) -> None:
        self.run = runner.run
        self.transport = transport
        self.receiver = receiver
        self.complaints: list[dict[str, Any]] = []  # what the loop would log: exceptions that nobody looked at
        runner.get_loop().set_exception_handler(lambda _, context: self.complaints.append(context))


@pytest.fixture
def bench() -> Iterator[Bench]:
    """Close it at the end, and check that no connection is left."""
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()

        async def enter() -> tuple[HttpTransport, ScriptedReceiver]:
            resolver = ScriptedResolver({})
            return await stack.enter_async_context(opened(resolver)), await stack.enter_async_context(scripted())

        made = Bench(runner, *runner.run(enter()))
        try:
            yield made
        finally:
            closing: Coroutine[Any, Any, None] = stack.aclose()
            runner.run(closing)
        assert made.complaints == []


@pytest.mark.timeout(1800)
def test_every_answer_ends_as_an_outcome(bench: Bench) -> None:
    """Never an exception, never later than the deadline; its text is short, printable and without the token."""
    came: Counter[str] = Counter()

    async def one(script: Script) -> None:
        bench.receiver.script[:] = [Behaviour(run=script.run)]
        async with asyncio.timeout(PATIENCE):
            wire = await bench.transport.post(request(bench.receiver.url, within=DEADLINE))
        came[type(wire).__name__] += 1
        if isinstance(wire, StaleConnection):
            return
        assert isinstance(wire, HttpResponse | TransportFailure)
        assert wire.text.isprintable()
        assert len(wire.text) <= 1024
        assert TOKEN not in wire.text
        to_outcome(wire, ResponsePolicy(), NOW)

    @many(400, 10_000)
    @given(scripts())
    def each(script: Script) -> None:
        bench.run(one(script))

    each()
    assert {"HttpResponse", "TransportFailure"} <= came.keys(), came


_HOSTS = st.sampled_from(
    ["127.0.0.1:1", "[::1]:1", "nobody.example", "xn--a.example", "xn--.example", "a_b.example", "A.EXAMPLE.",
     "localhost:1", "xn--" + "a" * 59 + ".example", "1.example", "a--b.example", "-", "127.0.0.1:01",
     "[::ffff:127.0.0.1]:1", "a" * 63]
)  # fmt: skip
_RESTS = st.one_of(
    st.sampled_from(["", "/", "?", "/?", "//", "/%", "/%zz?%", "/;", "/?a=[", "/../..", "/?" + "q" * 4000]),
    st.text("/?&=%[]{}|^`'\"<>;:@!$aZ09~+,.*()-_\\", max_size=12).map("/".__add__),
)


_MADE_UP = st.builds("{}://{}{}".format, st.sampled_from(["http", "HTTPS"]), _HOSTS, _RESTS)


@pytest.mark.timeout(600)
def test_every_accepted_uri_can_be_requested(bench: Bench) -> None:
    """An accepted `backchannel_logout_uri` raises in no library when it is requested."""
    tried = 0

    async def one(uri: str) -> None:
        async with asyncio.timeout(PATIENCE):
            assert isinstance(await bench.transport.post(request(uri, egress=LOOPBACK)), TransportFailure)

    @many(400, 10_000)
    @given(st.sampled_from(URIS) | _MADE_UP)
    def each(uri: str) -> None:
        nonlocal tried
        if find_uri_issue(uri) is None:
            tried += 1
            bench.run(one(uri))

    each()
    assert tried > 100
