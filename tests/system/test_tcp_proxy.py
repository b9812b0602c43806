"""The proxy of the network faults does to bytes what it says, and nothing else."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from tests.system.tcp_proxy import Ending, TcpProxy, Way
from tests.system.waiting import PATIENCE, until

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def proxy() -> AsyncIterator[TcpProxy]:
    """Before a server that sends back what it gets."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with TcpProxy("127.0.0.1", server.sockets[0].getsockname()[1]) as proxy:
        yield proxy
    server.close()


async def connected(proxy: TcpProxy) -> Streams:
    """A connection through it."""
    streams = await asyncio.open_connection("127.0.0.1", proxy.port)
    await proxy.until_connections(1, PATIENCE)
    return streams


async def gone(proxy: TcpProxy) -> None:
    """Return once no connection stands."""

    async def count() -> int:
        return proxy.connections

    await until(count, lambda count: count == 0)


async def test_everything_goes_through_unchanged(proxy: TcpProxy) -> None:
    """Three megabytes, delayed piece by piece, and the end of the stream behind them."""
    reader, writer = await connected(proxy)
    proxy.delay(0.0, 0.002)
    sent = random.Random(1).randbytes(3_000_000)

    async def send() -> None:
        writer.write(sent)
        await writer.drain()
        writer.write_eof()

    _, came = await asyncio.gather(send(), reader.read(-1))
    assert came == sent
    writer.close()
    await gone(proxy)


@pytest.mark.parametrize("way", list(Way))
async def test_a_reset_in_the_middle(proxy: TcpProxy, way: Way) -> None:
    """So many bytes come, and then a reset."""
    reader, writer = await connected(proxy)
    proxy.end_after(way, 3, Ending.RESET)
    writer.write(b"12345")
    if way is Way.DOWN:
        assert await reader.readexactly(3) == b"123"
    with pytest.raises(ConnectionResetError):
        await reader.read(100)
    await gone(proxy)


async def test_a_cut_in_the_middle(proxy: TcpProxy) -> None:
    """So many bytes come, and then the end."""
    reader, writer = await connected(proxy)
    proxy.end_after(Way.DOWN, 3, Ending.CUT)
    writer.write(b"12345")
    assert await reader.read(-1) == b"123"
    writer.close()
    await gone(proxy)


async def test_one_way_stalled(proxy: TcpProxy) -> None:
    """What is held back comes when it flows again, in order; the connection stands all the while."""
    reader, writer = await connected(proxy)
    proxy.stall(Way.DOWN)
    writer.write(b"1")
    await writer.drain()
    coming = asyncio.ensure_future(reader.readexactly(2))
    await asyncio.wait({coming}, timeout=0.2)
    assert not coming.done()
    writer.write(b"2")
    proxy.flow()
    assert await coming == b"12"
    writer.close()
    await gone(proxy)


async def test_a_stall_hides_the_end(proxy: TcpProxy) -> None:
    """Who hangs up while nothing gets through is not heard before it does; a cut of the whole ends even that."""
    _, writer = await connected(proxy)
    proxy.stall(Way.UP)
    writer.close()
    await writer.wait_closed()
    assert proxy.connections == 1
    proxy.flow()
    await gone(proxy)
    await connected(proxy)
    proxy.stall(*Way)
    proxy.end(Ending.CUT)
    await gone(proxy)


async def test_refused(proxy: TcpProxy) -> None:
    """Those who come are refused, those who are there go on; and then all are taken again, at the same port."""
    reader, writer = await connected(proxy)
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"1")
    assert await reader.readexactly(1) == b"1"
    await proxy.accept()
    _, another = await connected(proxy)
    for each in (writer, another):
        each.close()
    await gone(proxy)
