"""The heads of requests, each made once for a host, and what they hold on to."""

import gc
import ssl
from pathlib import Path
from weakref import WeakSet

import aiohttp

from notifier.model.client import Route, TlsFiles
from notifier.network.http.requests import MOST_CONTEXTS, Heads


def context(alive: WeakSet[ssl.SSLContext]) -> ssl.SSLContext:
    """A new one, which `alive` counts for as long as somebody holds it."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    alive.add(made)
    return made


async def test_a_head_is_made_once_for_a_host_and_its_certificate() -> None:
    """It is what a request is spared, however many clients of that host there are and whatever their TLS files."""
    async with aiohttp.ClientSession() as session:
        heads, alive = Heads(session, {}), WeakSet[ssl.SSLContext]()
        first, second = context(alive), context(alive)
        other = Route(tls=TlsFiles(ca_file=Path("ca.pem")))
        head, of_other = heads.of("https://a.example", Route(), first), heads.of("https://a.example", other, second)
        assert (head.request.ssl, of_other.request.ssl) == (first, second)
        assert heads.of("https://a.example", Route(), first) is head
        assert heads.of("https://a.example", other, second) is of_other
        assert heads.of("https://a.example", Route(), second).request.ssl is second


async def test_the_tls_context_of_a_renewed_certificate_is_let_go() -> None:
    """One with the system's authorities takes 0.8 MiB, and some certificates are renewed every hour."""
    async with aiohttp.ClientSession() as session:
        heads, alive = Heads(session, {}), WeakSet[ssl.SSLContext]()
        for _ in range(20):
            heads.of("https://a.example", Route(), context(alive))
        gc.collect()
        assert len(alive) == 1


async def test_tls_contexts_of_very_many_clients_are_not_all_held() -> None:
    """What is kept of TLS files is bounded, and heads must not keep what was given up there."""
    async with aiohttp.ClientSession() as session:
        heads, alive = Heads(session, {}), WeakSet[ssl.SSLContext]()
        for number in range(MOST_CONTEXTS + 100):
            heads.of(f"https://client-{number}.example", Route(), context(alive))
        gc.collect()
        assert len(alive) <= MOST_CONTEXTS
