"""How long each fault is made, and where its account is told.

`NOTIFIER_TEST_FAULTS=long` takes the long form of each (`make faults`), `NOTIFIER_TEST_FAULTS_SEED` another chance, and
`NOTIFIER_TEST_FAULTS_REPORT` names a file that gets the account of each as a line of JSON, of which the table of
docs/reliability.md is made.
"""

import json
import os
import random
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import pytest

from notifier.adapters.queues.rabbitmq.administration import delete_topology
from tests.rabbit_options import rabbit_options
from tests.rabbitmq_node import RabbitmqNode
from tests.system.ledger import Account

T = TypeVar("T")
Form = Callable[[T, T], T]
Tell = Callable[..., None]


@pytest.fixture
def form() -> Form[int]:
    """`form(short, long)` returns the first in every test run, the second in the long form."""
    long = os.environ.get("NOTIFIER_TEST_FAULTS") == "long"
    return lambda short, longer: longer if long else short


@pytest.fixture
def chance() -> random.Random:
    """Chance that is the same in every run, unless the environment names another seed."""
    return random.Random(int(os.environ.get("NOTIFIER_TEST_FAULTS_SEED", "1")))


@pytest.fixture
async def queues(module_node: RabbitmqNode) -> AsyncIterator[str]:
    """A queue prefix on `module_node` for one test. Its queues are deleted afterwards."""
    name = f"test-{secrets.token_hex(4)}"
    yield name
    await delete_topology(rabbit_options(module_node.url, name))


@pytest.fixture
def tell(request: pytest.FixtureRequest, broker_version: str) -> Tell:
    """`tell(account, times=20)` fails if the account does not hold, and writes it down for the table."""
    marker = request.node.get_closest_marker("fault")

    def tell(account: Account, *, times: int = 1, broker: str = broker_version) -> None:
        print(account)  # noqa: T201  what `pytest -s` and a failed run show
        path = os.environ.get("NOTIFIER_TEST_FAULTS_REPORT")
        if path and marker is not None:
            group, what = marker.args
            line = {"group": group, "what": what, "times": times, "broker": broker, **asdict(account)}
            with Path(path).open("a") as file:
                file.write(json.dumps(line) + "\n")
        assert account.holds, str(account)

    return tell
