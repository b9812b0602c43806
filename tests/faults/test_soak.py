"""The soak in a short form."""

from pathlib import Path

import pytest

from tests.faults.conftest import Form, Record
from tests.faults.soak import Plan, Soak
from tests.support.rabbitmq_node import RabbitmqNode


@pytest.mark.fault("soak", "faults of every kind at random moments, of workers, broker, a client and the registry")
@pytest.mark.timeout(600)
async def test_nothing_is_lost_or_wrong(
    tmp_path: Path, module_node: RabbitmqNode, form: Form[float], record: Record
) -> None:
    """Every script makes faults for a few seconds. Only a longer run shows whether memory is flat.

    On a node that no other test has hurt.
    """
    plan = Plan(seconds=form(8, 60), pace=form(0.1, 0.3), seed=38)
    figures = await Soak(plan, module_node).run(tmp_path, "soak")
    print(figures)  # noqa: T201  what `pytest -s` and a failed run show
    assert figures.complaints == []
    assert {"worker", "broker"} <= {word for what in figures.faults for word in what.split()}
    record(figures.account, times=sum(figures.faults.values()), broker=figures.broker)
