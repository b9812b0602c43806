"""The heads of requests, each made once for a client, and what they hold on to."""

import gc
import ssl
from weakref import WeakSet

import aiohttp

from notifier.adapters.http_transport.requests import MOST_CONTEXTS, Heads


def context(alive: WeakSet[ssl.SSLContext]) -> ssl.SSLContext:
    """A new one, which `alive` counts for as long as somebody holds it."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    alive.add(made)
    return made


async def test_a_head_is_made_once_for_a_client_and_its_certificate() -> None:
    """It is what a request is spared."""
    async with aiohttp.ClientSession() as session:
        heads, alive = Heads(session, {}), WeakSet[ssl.SSLContext]()
        first, second = context(alive), context(alive)
        head = heads.of("https://a.example/", (), first)
        assert heads.of("https://a.example/", (), first) is head
        assert heads.of("https://a.example/", (), second).request.ssl is second


async def test_the_tls_context_of_a_renewed_certificate_is_let_go() -> None:
    """One with the system's authorities takes 0.8 MiB, and some certificates are renewed every hour."""
    async with aiohttp.ClientSession() as session:
        heads, alive = Heads(session, {}), WeakSet[ssl.SSLContext]()
        for _ in range(20):
            heads.of("https://a.example/", (), context(alive))
        gc.collect()
        assert len(alive) == 1


async def test_tls_contexts_of_very_many_clients_are_not_all_held() -> None:
    """What is kept of TLS files is bounded, and heads must not keep what was given up there."""
    async with aiohttp.ClientSession() as session:
        heads, alive = Heads(session, {}), WeakSet[ssl.SSLContext]()
        for number in range(MOST_CONTEXTS + 100):
            heads.of(f"https://client-{number}.example/", (), context(alive))
        gc.collect()
        assert len(alive) <= MOST_CONTEXTS
