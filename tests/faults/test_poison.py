"""Poison: what kills the process is given up by the broker in the end, and takes none of its neighbours with it."""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.faults.conftest import Form, Tell
from tests.faults.rig import CLIENTS, Rig, rig
from tests.rabbitmq_node import RabbitmqNode
from tests.system import ledger
from tests.system.broker import broker
from tests.system.ledger import Pair
from tests.system.waiting import until
from tests.system.worker_process import ROOT, WorkerProcess, worker

POISON = 5  # the number of the event that kills: among the first, so that every worker comes to it at once
LIMIT = 100  # the topology's `x-delivery-limit`


def killed_by(when: str, client: str) -> list[str]:
    """The command of a worker that the event kills, under a supervisor."""
    return [sys.executable, str(ROOT / "tests" / "faults" / "killed_by.py"), when, str(POISON), client]


@pytest.fixture
def lower_limit(rabbitmq: RabbitmqNode | None, prefix: str, form: Form[int]) -> Iterator[int]:
    """The delivery limit in force: the topology's own in the long form, else a lower one, by a policy of the broker.

    The lower of the two is what a quorum queue goes by.
    """
    limit = form(24, LIMIT)
    if limit == LIMIT:
        yield limit
        return
    if rabbitmq is None:
        pytest.skip("the short form needs a broker that is ours to control")
    rabbitmq.ctl("set_policy", prefix, f"^{prefix}\\.(events|retries)$", json.dumps({"delivery-limit": limit}))
    yield limit
    rabbitmq.ctl("clear_policy", prefix)


async def settled(made: Rig, running: WorkerProcess, to_die: Mapping[Pair, str], patience: float) -> None:
    """Wait until all are told but those that must die, and these are dead."""
    owed = len(CLIENTS) * len(made.publisher.confirmed) - len(to_die)
    await made.clients.until(lambda: len(made.clients.accepted) >= owed, patience)
    letters = len({event if reason == "delivery_limit" else (event, who) for (event, who), reason in to_die.items()})

    async def dead() -> int:
        async with broker(made.urls[0], made.prefix) as rabbit:
            return (await rabbit.depths(["dead"])).get("dead", 0)

    await until(dead, lambda count: count >= letters, patience)
    assert await running.stop() == 0


@pytest.mark.parametrize(
    ("when", "dying"),
    [
        pytest.param(
            "reading", CLIENTS,
            marks=pytest.mark.fault("poison", "an event that kills whoever reads it, hundreds prefetched beside it"),
        ),
        pytest.param(
            "telling", ("flaky",),
            marks=pytest.mark.fault("poison", "an event of three clients of which telling one kills the process"),
        ),
    ],
)  # fmt: skip
@pytest.mark.timeout(1200)
async def test_one_that_kills_the_process(
    tmp_path: Path, amqp_url: str, prefix: str, lower_limit: int, form: Form[int], tell: Tell,
    when: str, dying: tuple[str, ...],
) -> None:  # fmt: skip
    """It alone reaches the limit and dies; everything that was prefetched beside it is delivered."""
    count = form(120, 800)
    async with rig(tmp_path, amqp_url, prefix) as made:
        async with worker(made.site) as running:
            assert await running.stop() == 0
        await made.publisher.publish(range(count), rate=1000)
        to_die = made.to_die | {(str(POISON), who): "delivery_limit" for who in dying}
        async with worker(made.site, ready=False, command=killed_by(when, dying[0])) as running:
            await settled(made, running, to_die, 600)
            deaths = len(running.said("killed"))
            highest = max(line["count"] for line in running.said("neighbour"))
        print(f"{deaths} deaths; the neighbours were given back {highest} times at most")  # noqa: T201  as the account is
        assert deaths > lower_limit
        assert highest < lower_limit
        found = await ledger.in_rabbitmq(amqp_url, prefix)
        cast = ledger.account(
            made.publisher.confirmed, made.clients, found, to_die=to_die, cause="held by a worker that was killed"
        )
        tell(cast, times=deaths)
