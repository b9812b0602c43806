"""Test that a name is found where the system's resolver finds it: search domains that fail, servers without EDNS."""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from notifier.model.client import EgressPolicy, Route
from notifier.model.outcome import Reason
from notifier.network.http.name_resolver import NameResolver
from notifier.network.http.probe import Probe, ReachFailure
from tests.support.name_server import FORMERR, NOTIMP, REFUSED, SERVFAIL, SILENCE, NameServer

ATTEMPT = 5.0  # seconds: `delivery.timeout`
ADDRESS = "192.0.2.1"
CLUSTER = ("ns.svc.cluster.local", "svc.cluster.local", "cluster.local")


@contextlib.asynccontextmanager
async def resolving(
    folder: Path, server: NameServer, search: tuple[str, ...] = (), ndots: int | str = 1
) -> AsyncIterator[NameResolver]:
    """Yield a resolver that uses this server."""
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: server, local_addr=("127.0.0.1", 0)
    )
    file = folder / "resolv.conf"
    file.write_text(
        f"search {' '.join(search) or '.'}\nnameserver 127.0.0.1:{server.port}\noptions ndots:{ndots} timeout:1\n",
        encoding="utf-8",
    )
    resolver = NameResolver(file)
    try:
        yield resolver
    finally:
        await resolver.close()
        transport.close()


async def found(resolver: NameResolver, host: str) -> list[str]:
    """Return the addresses, within the time of an attempt. Each names the host as its caller does."""
    async with asyncio.timeout(ATTEMPT):
        results = await resolver.resolve(host, 443)
    assert {result["hostname"] for result in results} == {host}
    return [result["host"] for result in results]


@pytest.mark.parametrize("code", [SERVFAIL, REFUSED, NOTIMP, SILENCE, "192.0.2.9"])
async def test_a_search_domain_does_not_hide_an_absolute_name(tmp_path: Path, code: int | str) -> None:
    """Whatever it answers. In a pod all search domains come first; the name itself takes one query."""
    server = NameServer({"rp.example.com": ADDRESS, "corp.example": code})
    async with resolving(tmp_path, server, (*CLUSTER, "corp.example"), ndots=5) as resolver:
        assert await found(resolver, "rp.example.com") == [ADDRESS]
    assert server.names == ["rp.example.com"]


@pytest.mark.parametrize(
    ("host", "queries"),
    [
        ("shop", ["shop.ns.svc.cluster.local"]),
        ("shop.ns", ["shop.ns", "shop.ns.ns.svc.cluster.local", "shop.ns.svc.cluster.local"]),
        ("shop.ns.svc", ["shop.ns.svc", *(f"shop.ns.svc.{domain}" for domain in CLUSTER)]),
        ("shop.ns.svc.cluster.local", ["shop.ns.svc.cluster.local"]),
        ("shop.ns.svc.cluster.local.", ["shop.ns.svc.cluster.local"]),
    ],
)
async def test_short_names_of_a_service_are_found(tmp_path: Path, host: str, queries: list[str]) -> None:
    """With one query more than before if they have a dot."""
    server = NameServer({"shop.ns.svc.cluster.local": ADDRESS})
    async with resolving(tmp_path, server, CLUSTER, ndots=5) as resolver:
        assert await found(resolver, host) == [ADDRESS]
    assert server.names == queries


@pytest.mark.parametrize("host", ["shop", "shop.ns"])
@pytest.mark.parametrize("code", [SERVFAIL, REFUSED, NOTIMP])
async def test_a_search_domain_that_fails_is_passed_over(tmp_path: Path, code: int, host: str) -> None:
    """As by glibc. The name itself may fail too: its top-level domain does not exist."""
    server = NameServer({f"{host}.good.example": ADDRESS, "bad.example": code, host: code})
    async with resolving(tmp_path, server, ("bad.example", "good.example")) as resolver:
        assert await found(resolver, host) == [ADDRESS]


async def test_a_short_name_does_not_wait_for_an_absolute_one_that_is_silent(tmp_path: Path) -> None:
    """As in a cluster without access to the internet, whose name servers are silent for other domains."""
    server = NameServer({"shop.ns.svc.cluster.local": ADDRESS, "ns": SILENCE})
    async with resolving(tmp_path, server, CLUSTER, ndots=5) as resolver:
        assert await found(resolver, "shop.ns") == [ADDRESS]


async def test_a_slow_name_is_not_replaced_by_one_in_a_search_domain(tmp_path: Path) -> None:
    """Unless `ndots` prefers those: a domain may have a wildcard."""
    server = NameServer({"rp.example.com": SILENCE, "corp.example": "192.0.2.9"})
    async with resolving(tmp_path, server, ("corp.example",)) as resolver:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await resolver.resolve("rp.example.com")
    assert set(server.names) == {"rp.example.com"}


@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize("code", [FORMERR, SERVFAIL, REFUSED, NOTIMP, SILENCE])
async def test_a_name_server_may_refuse_edns(tmp_path: Path, code: int, echo: bool) -> None:
    """glibc does not use it."""
    server = NameServer({"rp.example.com": ADDRESS}, edns=code, echo=echo)
    async with resolving(tmp_path, server) as resolver:
        assert await found(resolver, "rp.example.com") == [ADDRESS]


async def test_the_error_is_that_of_the_name_itself(tmp_path: Path) -> None:
    """Not that of a search domain."""
    server = NameServer({"corp.example": SERVFAIL})
    async with resolving(tmp_path, server, ("corp.example",), ndots=5) as resolver:
        for host in ("rp.example.com", "shop"):
            with pytest.raises(OSError, match="not found"):
                await found(resolver, host)
        assert [each["host"] for each in await resolver.resolve("localhost")] == ["127.0.0.1"]


@pytest.mark.parametrize("domain", ["müller.example", "a\u2003b.example", "é.com"])
async def test_a_search_domain_that_is_not_ascii_is_left_out(tmp_path: Path, domain: str) -> None:
    """Without such characters it would be another domain, which may belong to somebody else."""
    server = NameServer({"mller.example": "192.0.2.9", "b.example": "192.0.2.9", "com": "192.0.2.9", "shop.c": ADDRESS})
    async with resolving(tmp_path, server, (domain, "c")) as resolver:
        assert await found(resolver, "shop") == [ADDRESS]
    assert server.names == ["shop.c"]


@pytest.mark.parametrize(("ndots", "is_searched"), [("9" * 5000, True), ("99", True), ("-1", False), ("é", False)])
async def test_any_text_of_ndots_is_read(tmp_path: Path, ndots: str, *, is_searched: bool) -> None:
    """As glibc does: 15 at most."""
    server = NameServer({"a.example.c": ADDRESS, "a.example": SILENCE})
    async with resolving(tmp_path, server, ("c",), ndots) as resolver:
        if is_searched:
            assert await found(resolver, "a.example") == [ADDRESS]
        else:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.0):
                    await resolver.resolve("a.example")


async def test_the_search_domains_have_a_bound(tmp_path: Path) -> None:
    """A name that fails in each of them costs queries for each. A pod has up to 32."""
    server = NameServer({})
    domains = [f"d{number}.example" for number in range(100)]
    async with resolving(tmp_path, server, ("d0.example", *domains)) as resolver:
        with pytest.raises(OSError, match="not found"):
            await found(resolver, "shop")
    assert server.names == [*(f"shop.{domain}" for domain in domains[:32]), "shop"]


class HeldAnswers(NameServer):
    """A name server that answers all queries at one moment, later than HEDGE_DELAY_SECONDS."""

    def __init__(self) -> None:
        super().__init__({})
        self._held: list[tuple[bytes, tuple[str, int]]] = []

    def datagram_received(self, data: bytes, peer: tuple[str, int]) -> None:
        """Called by asyncio."""
        if not self._held:
            asyncio.get_running_loop().call_later(0.7, self._answer_held)
        self._held.append((data, peer))

    def _answer_held(self) -> None:
        for data, peer in self._held:
            super().datagram_received(data, peer)


async def test_simultaneous_answers_log_no_error(tmp_path: Path) -> None:
    """A name that does not exist, after both channels were queried."""
    logged: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context["message"]))
    async with resolving(tmp_path, HeldAnswers()) as resolver:

        async def is_missing(host: str) -> bool:
            try:
                return not await found(resolver, host)
            except OSError:
                return True

        assert await asyncio.gather(*(is_missing(f"gone-{number}.example.com") for number in range(20))) == [True] * 20
        gc.collect()
    assert logged == []


async def test_the_doctor_finds_names_with_ipv6_addresses_only(tmp_path: Path) -> None:
    """As deliveries do."""
    async with resolving(tmp_path, NameServer({"rp.example.com": "::1"})) as resolver:
        probe = Probe(resolver)
        await probe.open()
        found = await probe.reach("http://rp.example.com:9/", Route(egress=EgressPolicy(allow_http=True)), ATTEMPT)
        assert isinstance(found, ReachFailure)
        assert found.reason is Reason.EGRESS_DENIED  # of ::1, which was found
        await probe.close()
