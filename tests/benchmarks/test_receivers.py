"""The receivers of the benchmarks behave as they are told, and keep account of what came."""

import asyncio
import base64
import json
import time

import pytest

from tests.benchmarks.processes import Receivers, receivers
from tests.benchmarks.receivers import Behaviour, Kind

PATIENCE = 5.0


def request(event: int) -> bytes:
    """A POST of a token for this event."""
    claims = base64.urlsafe_b64encode(json.dumps({"sid": f"session-{event}"}).encode()).rstrip(b"=")
    body = b"logout_token=e30." + claims + b".c2ln"
    return b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


async def answered(played: Receivers, client: int, event: int, within: float = PATIENCE) -> bool:
    """Whether a request on a new connection gets its 200 in time."""
    reader, writer = await asyncio.open_connection("127.0.0.1", played.ports[client])
    whole = request(event)
    try:
        for part in (whole[:30], whole[30:80], whole[80:]):
            writer.write(part)
            await writer.drain()
        async with asyncio.timeout(within):
            return (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    except TimeoutError:
        return False
    finally:
        writer.close()


async def test_clients_answer_hang_refuse_and_recover() -> None:
    """Each at its own port, which stays the same; and what came is told with its event and whether it was answered."""
    async with receivers() as played:
        await played.open(3)
        before = time.monotonic()
        assert await answered(played, 0, 10)
        await played.play([1], Behaviour(kind=Kind.HANG))
        await played.play([2], Behaviour(kind=Kind.REFUSE))
        assert not await answered(played, 1, 11, within=0.1)
        with pytest.raises(ConnectionRefusedError):
            await answered(played, 2, 12)
        await played.play([1, 2], Behaviour(seconds=0.05))
        assert await asyncio.gather(*(answered(played, 2, event) for event in (13, 14, 15))) == [True] * 3
        assert await played.counts() == [1, 1, 3]
        assert (await played.peaks())[2] >= 2
        came = await played.arrivals()
        assert sorted((hit.event, hit.client, hit.answered) for hit in came) == [
            (10, 0, True), (11, 1, False), (13, 2, True), (14, 2, True), (15, 2, True),
        ]  # fmt: skip
        assert all(before < hit.at < time.monotonic() for hit in came)
        await played.forget()
        assert await played.counts() == [0, 0, 0]


def test_a_flapping_client_answers_and_hangs_by_turns() -> None:
    """It begins well."""
    behaviour = Behaviour(kind=Kind.FLAP, seconds=20, since=100)
    assert [behaviour.answers(now) for now in (100, 119, 121, 139, 141)] == [True, True, False, False, True]
