"""The network between the worker and its clients resets connections in the middle of requests and answers.

A client whose answer was lost is notified again, with a new token.
"""

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.conftest import Form, Record
from tests.faults.rig import answers, rig
from tests.system.tcp_proxy import Ending, TcpProxy, Way
from tests.system.waiting import PATIENCE, until
from tests.system.worker_process import worker

IN_THE_ANSWER = 120  # bytes; with its headers an answer has 150
IN_THE_REQUEST = 700  # bytes; with its headers a request has 850
SLOW = 400.0  # seconds for the last delivery: with many pending, some are deferred by 256 s
NETWORK = "network to the clients"


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param((Way.DOWN, IN_THE_ANSWER), marks=pytest.mark.fault(NETWORK, "reset in the middle of an answer")),
        pytest.param((Way.UP, IN_THE_REQUEST), marks=pytest.mark.fault(NETWORK, "reset in the middle of a request")),
    ],
)
@pytest.mark.timeout(900)
async def test_connections_to_clients_reset_in_mid_message(
    tmp_path: Path, amqp_url: str, prefix: str, form: Form[int], chance: random.Random, record: Record,
    fault: tuple[Way, int],
) -> None:  # fmt: skip
    """Every open connection ends after some more bytes, again and again. None is left open, and no token is sent twice.

    A kept connection that ends before any byte of an answer is stale: the request is sent again within the attempt.
    """
    times, (way, within) = form(4, 60), fault
    async with rig(tmp_path, amqp_url, prefix) as made, TcpProxy("127.0.0.1", made.clients.port) as proxy:
        made.clients.judge = answers(0)  # only the network fails here
        made.register(proxy.port)
        made.site.config["delivery"]["timeout"] = "10s"
        made.site.write()
        async with worker(made.site) as running:
            before = await running.descriptors()
            publishing = asyncio.create_task(made.publisher.publish(range(30 * times), rate=30))
            for _ in range(times):
                await proxy.until_connections(1, PATIENCE)
                proxy.end_after(way, chance.randint(1, within), Ending.RESET)
                await asyncio.sleep(chance.uniform(0.5, 1.5))
            await publishing
            await made.until_settled(SLOW)

            async def left() -> int:
                made.clients.hang_up()
                return max(0, await running.descriptors() - before) + proxy.connections

            await until(left, lambda more: more == 0, PATIENCE)
            assert await running.stop() == 0
        assert max(Counter(hit.claims["jti"] for hit in made.clients.hits).values()) == 1
        account = await made.account(cause="its answer was lost on the way")
        record(account, times=times)
    assert way is Way.UP or account.duplicates
    assert way is Way.UP or any(line["reason"] == "disconnected" for line in running.logged("attempt"))
