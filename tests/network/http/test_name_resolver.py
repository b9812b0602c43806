"""Test that names are resolved within the time of an attempt, by the current name servers of resolv.conf."""

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from notifier.model.client import TlsFiles
from notifier.network.http import json_client, name_resolver
from notifier.network.http.json_client import JsonClient, NoAnswer
from notifier.network.http.json_parts import Bounds
from notifier.network.http.name_resolver import NameResolver
from tests.support.behaviours import raw
from tests.support.receivers import scripted

ATTEMPT = 5.0  # seconds: `delivery.timeout`


class NameServer(asyncio.DatagramProtocol):
    """Return `address` for each name after `delay` seconds, or never; without an address no name exists."""

    def __init__(self, address: str | None, delay: float | None) -> None:
        self.address, self.delay, self.asked, self.port, self.ttl = address, delay, 0, 0, 0
        self.queried = asyncio.Event()
        self.questions: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self._transport = cast("asyncio.DatagramTransport", transport)
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, peer: tuple[str, int]) -> None:
        """Called by asyncio."""
        self.asked += 1
        self.questions.append(data[12:])
        self.queried.set()
        if self.delay is not None:
            asyncio.get_running_loop().call_later(self.delay, self._transport.sendto, self._answer(data), peer)

    def _answer(self, data: bytes) -> bytes:
        end = data.index(b"\0", 12) + 5
        count = int(self.address is not None and data[end - 4 : end - 2] == b"\0\1")
        record = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, self.ttl, 4) + socket.inet_aton(self.address or "0.0.0.0")
        flags = b"\x81\x83" if self.address is None else b"\x81\x80"
        return data[:2] + flags + struct.pack(">HHHH", 1, count, 0, 0) + data[12:end] + record * count


@contextlib.asynccontextmanager
async def serving(address: str | None, delay: float | None = 0.0) -> AsyncIterator[NameServer]:
    """Run one name server."""
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: NameServer(address, delay), local_addr=("127.0.0.1", 0)
    )
    try:
        yield server
    finally:
        transport.close()


def name(file: Path, *servers: NameServer) -> None:
    """Write resolv.conf, as a new file."""
    new = file.with_suffix(".new")
    new.write_text("".join(f"nameserver 127.0.0.1:{server.port}\n" for server in servers))
    new.rename(file)


@contextlib.asynccontextmanager
async def resolving(file: Path) -> AsyncIterator[NameResolver]:
    """Yield a resolver that reads this resolv.conf."""
    resolver = NameResolver(file)
    try:
        yield resolver
    finally:
        await resolver.close()


async def found(resolver: NameResolver, host: str) -> list[str]:
    """Return the addresses, within the time of an attempt."""
    async with asyncio.timeout(ATTEMPT):
        return [each["host"] for each in await resolver.resolve(host, 443)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the path of a resolv.conf that does not exist yet."""
    return tmp_path / "resolv.conf"


async def test_slow_name_server_may_use_the_time_of_the_attempt(file: Path) -> None:
    """Recursive servers are slow for some names and fast for cached ones. The default timeout of c-ares is 1.4 s."""
    async with serving("192.0.2.1") as server, resolving(file) as resolver:
        name(file, server)
        for number in range(5):
            assert await found(resolver, f"known-{number}.example.com") == ["192.0.2.1"]
        server.delay = 1.8
        assert await found(resolver, "unknown.example.com") == ["192.0.2.1"]


async def test_dead_name_server_leaves_time_for_the_next(file: Path) -> None:
    """Its answer may be slow as well."""
    async with serving("192.0.2.1", None) as dead, serving("192.0.2.2", 2.0) as slow, resolving(file) as resolver:
        name(file, dead, slow)
        assert await found(resolver, "a.example.com") == ["192.0.2.2"]
        assert dead.asked


@pytest.fixture
def linked(file: Path, tmp_path: Path) -> Path:
    """Return the target of resolv.conf, a symbolic link as with systemd."""
    real = tmp_path / "elsewhere" / "stub.conf"
    real.parent.mkdir()
    file.symlink_to(real)
    return real


@pytest.mark.parametrize("where", ["file", "linked"])
async def test_resolv_conf_is_read_again_when_it_changes(
    file: Path, where: str, request: pytest.FixtureRequest
) -> None:
    """The previous name server no longer exists."""
    real: Path = request.getfixturevalue(where)
    async with resolving(file) as resolver:
        async with serving("192.0.2.1") as before:
            name(real, before)
            assert await found(resolver, "a.example.com") == ["192.0.2.1"]
        async with serving("192.0.2.2") as after:
            name(real, after)
            assert await found(resolver, "b.example.com") == ["192.0.2.2"]


async def test_a_start_before_resolv_conf_names_a_server(file: Path) -> None:
    """As at boot. No name is found before."""
    async with serving("192.0.2.1") as server, resolving(file) as resolver:
        for _ in range(2):
            with pytest.raises((OSError, TimeoutError)):
                await found(resolver, "a.example.invalid")
            name(file)
        name(file, server)
        assert await found(resolver, "a.example.com") == ["192.0.2.1"]


async def test_channels_are_new_after_no_server_was_reachable(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an unchanged file, because its server is reachable again. At most every RENEW_AFTER seconds."""
    monkeypatch.setattr(name_resolver, "RENEW_INTERVAL_SECONDS", 0.0)
    async with serving("192.0.2.1") as server, resolving(file) as resolver:
        name(file, server)
        server.delay = None
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.7):
                await resolver.resolve("a.example.com")
        server.delay = 0.0
        assert await found(resolver, "a.example.com") == ["192.0.2.1"]


@pytest.mark.parametrize("has_changed", [False, True])
async def test_new_channels_do_not_end_the_queries_of_others(file: Path, *, has_changed: bool) -> None:
    """The channels are older than any query. They are replaced after a silent name, or a change of resolv.conf."""
    now = 0.0
    async with serving("192.0.2.1") as server, serving("192.0.2.2") as other:
        name(file, server)
        resolver = NameResolver(file, lambda: now)
        await found(resolver, "a.example.com")
        now, server.delay = 3600.0, 2.0
        server.queried.clear()
        slow = asyncio.ensure_future(found(resolver, "slow.example.com"))
        await server.queried.wait()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.7):
                await resolver.resolve("silent.example.com")
        if has_changed:
            name(file, server, other)
        server.delay = 0.0
        assert await found(resolver, "b.example.com") == ["192.0.2.1"]
        assert await slow == ["192.0.2.1"]
        await resolver.close()


def count_sockets_to(*servers: NameServer) -> int:
    """Return the number of UDP sockets that are connected to these name servers."""
    lines = [line.split() for line in Path("/proc/self/net/udp").read_text().splitlines()[1:]]
    return sum(int(fields[2].rpartition(":")[2], 16) in {server.port for server in servers} for fields in lines)


async def wait_for_sockets(count: int, *servers: NameServer) -> None:
    """Wait until that many sockets are left. Channels are destroyed in a thread."""
    async with asyncio.timeout(10):
        while count_sockets_to(*servers) > count:  # noqa: ASYNC110  the system has no event for it
            await asyncio.sleep(0.01)


async def test_replaced_channels_are_closed_with_their_last_query(file: Path) -> None:
    """However often resolv.conf is replaced meanwhile: each has a thread and sockets."""
    async with serving("192.0.2.1", None) as silent, serving("192.0.2.2") as server, resolving(file) as resolver:
        name(file, silent)
        pending = asyncio.ensure_future(found(resolver, "a.example.com"))
        await silent.queried.wait()
        for number in range(20):
            name(file, *[server] * (number + 1))  # a file of another size
            assert await found(resolver, f"b{number}.example.com") == ["192.0.2.2"]
        await wait_for_sockets(1, server)
        assert count_sockets_to(silent)
        silent.delay = 0.0
        assert await pending == ["192.0.2.1"]
        await wait_for_sockets(0, silent)


async def test_silent_names_renew_channels_ever_more_rarely(file: Path) -> None:
    """Names of others are held in the cache of the channels, and a name server may need seconds for them."""
    now, server_times = 0.0, []
    async with serving("192.0.2.1") as server:
        server.ttl = 3600
        name(file, server)
        resolver = NameResolver(file, lambda: now)
        while now < 600.0:
            server.delay = None
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await resolver.resolve(f"silent-{now:g}.example.com")
            server.delay = 0.0
            server.questions.clear()
            assert await found(resolver, "a.example.com") == ["192.0.2.1"]
            server_times += [now] if any(question.startswith(b"\1a") for question in server.questions) else []
            now += 5.0
        await resolver.close()
    assert len(server_times) <= 12
    assert server_times[-1] - server_times[-2] == name_resolver.MAX_RENEW_INTERVAL_SECONDS


async def test_the_cache_of_many_names_is_bounded(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """c-ares keeps each answer until its TTL ends: 100,000 names would take 120 MB."""
    monkeypatch.setattr(name_resolver, "MAX_NAMES", 50)
    async with serving("192.0.2.1") as server, resolving(file) as resolver:
        server.ttl = 3600
        name(file, server)
        for number in (0, *range(50), 0, 50, 0):
            await found(resolver, f"a{number}.example.com")
        assert server.asked == 52  # a0 twice: by the first channel, and by the one that the 51st name needed
        await wait_for_sockets(1, server)


async def test_a_name_that_does_not_exist_is_answered_at_once(file: Path) -> None:
    """By the first answer."""
    async with serving(None) as server, resolving(file) as resolver:
        name(file, server)
        started = time.monotonic()
        with pytest.raises(OSError, match="not found"):
            await found(resolver, "a.example.com")
        assert time.monotonic() - started < ATTEMPT
        assert server.asked <= 2


async def test_json_clients_use_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By getaddrinfo, a hanging name server would occupy the threads that uvloop needs for each new connection."""
    monkeypatch.setattr(json_client, "NameResolver", lambda: NameResolver(file), raising=False)
    client, answer = JsonClient(Bounds(answer=1000), TlsFiles()), b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"
    async with serving("127.0.0.1") as server, scripted(raw(answer)) as http:
        name(file, server)
        url = f"http://tokens.example.com:{http.url.rpartition(':')[2]}"
        assert (await client.ask("GET", url, within=ATTEMPT)).content == []
        server.delay = None
        with pytest.raises(NoAnswer, match="no connection within"):
            await client.ask("GET", "http://silent.example.com/", within=0.3)
        await client.close()
