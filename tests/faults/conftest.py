"""Length of each fault, its account for the table of docs, and the logs of failed tests.

`NOTIFIER_TEST_FAULTS=long` takes the long form of each (`make faults`), `NOTIFIER_TEST_FAULTS_SEED` another chance, and
`NOTIFIER_TEST_FAULTS_REPORT` names a file that gets the account of each as a line of JSON, of which the table of
docs/evidence/faults.md is made. What fails leaves the logs of its workers and brokers below `build/faults`.
"""

import json
import os
import random
import re
import secrets
import shlex
import shutil
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import pytest

from notifier.queues.rabbitmq.administration import delete_topology
from tests.faults.embedded_rig import embedded
from tests.faults.rig import LONG, Rig, rig
from tests.support.rabbit_options import rabbit_options
from tests.support.rabbitmq_cluster import RabbitmqCluster
from tests.support.rabbitmq_node import RabbitmqNode, rabbitmq_node
from tests.support.topologies import declare_at_once
from tests.system.ledger import Account

T = TypeVar("T")
Form = Callable[[T, T], T]
Record = Callable[..., None]
ROOT = Path(__file__).parents[2]
KEPT = ROOT / "build" / "faults"
SETTINGS = ("NOTIFIER_TEST_RABBITMQ", "NOTIFIER_TEST_FAULTS", "NOTIFIER_TEST_FAULTS_SEED")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the folder of the logs and the command that repeats a failed test."""
    report = yield
    if report.failed and isinstance(item, pytest.Function):
        name = re.sub(r"@[\w-]+$", "", item.nodeid)  # without the group that pytest-xdist adds
        folder = KEPT / re.sub(r"[^\w.-]+", "-", name.removeprefix("tests/faults/"))
        keep(item, folder)
        settings = {"NOTIFIER_TEST_FAULTS_SEED": "1"} | {
            name: os.environ[name] for name in SETTINGS if name in os.environ
        }
        again = " ".join(f"{name}={shlex.quote(value)}" for name, value in settings.items())
        reported = [
            f"Logs of workers and brokers: {folder.relative_to(ROOT)}",
            f"Again: {again} make test ARGS=\"'{name}'\"",
        ]
        report.sections.append(("what is known of this fault", "\n".join(reported)))
    return report


def keep(item: pytest.Function, folder: Path) -> None:
    """Copy the logs of a test into the folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    used = item.funcargs.values()
    nodes = [value for value in used if isinstance(value, RabbitmqNode)]
    nodes += [node for value in used if isinstance(value, RabbitmqCluster) for node in value.nodes]
    logs = {f"{node.name}-{path.name}": path for node in nodes for path in node.logs}
    if isinstance(folder_of_test := item.funcargs.get("tmp_path"), Path):
        logs |= {path.name: path for path in folder_of_test.rglob("logs/worker-*.log")}
    for name, path in logs.items():
        shutil.copy(path, folder / name)


@pytest.fixture
def form() -> Form[int]:
    """`form(short, long)` returns the first in every test run, the second in the long form."""
    return lambda short, longer: longer if LONG else short


@pytest.fixture
def chance() -> random.Random:
    """Chance that is the same in every run, unless the environment names another seed."""
    return random.Random(int(os.environ.get("NOTIFIER_TEST_FAULTS_SEED", "1")))


@pytest.fixture
async def made(tmp_path: Path, amqp_url: str, prefix: str) -> AsyncIterator[Rig]:
    """An installation on the run's RabbitMQ, whose queues stand."""
    async with rig(tmp_path, amqp_url, prefix) as made:
        yield made


@pytest.fixture
async def installation(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    """Return an installation on the queue of the parameter, `rabbitmq` or `sqlite`. Request it before `tell`."""
    if request.param == "sqlite":
        opened: AbstractAsyncContextManager[Rig] = embedded(tmp_path)
    else:
        opened = rig(tmp_path, request.getfixturevalue("amqp_url"), request.getfixturevalue("prefix"))
    async with opened as made:
        yield made


@pytest.fixture(scope="session")
def node_to_hurt() -> Iterator[RabbitmqNode]:
    """The node of this process of the run whose tests kill, freeze and throttle it, one after the other."""
    with rabbitmq_node() as node:
        yield node


@pytest.fixture
def own_node(node_to_hurt: RabbitmqNode) -> RabbitmqNode:
    """That node, and it is well, whatever the test before has left."""
    node_to_hurt.thaw()
    if not node_to_hurt.running:
        node_to_hurt.start()
    return node_to_hurt


@pytest.fixture
async def new_queues(own_node: RabbitmqNode) -> AsyncIterator[str]:
    """A queue prefix on `own_node`. Nothing stands yet, and workers wait until it stands safely: for who kills it."""
    name = f"test-{secrets.token_hex(4)}"
    yield name
    await delete_topology(rabbit_options(own_node.url, name))


@pytest.fixture
async def queues(own_node: RabbitmqNode, new_queues: str) -> str:
    """The same, and its queues stand."""
    await declare_at_once(own_node.url, new_queues)
    return new_queues


@pytest.fixture
def record(request: pytest.FixtureRequest, broker_version: str) -> Record:
    """`tell(account, times=20)` fails if the account does not hold, and records it for the table.

    `once`: it also fails if a client was notified twice.
    """
    marker = request.node.get_closest_marker("fault")

    def record(account: Account, *, times: int = 1, broker: str = broker_version, once: bool = False) -> None:
        print(account)  # noqa: T201  what `pytest -s` and a failed run show
        path = os.environ.get("NOTIFIER_TEST_FAULTS_REPORT")
        if path and marker is not None:
            group, what = marker.args
            line = {"group": group, "what": what, "times": times, "broker": broker, **asdict(account)}
            with Path(path).open("a") as file:
                file.write(json.dumps(line) + "\n")
        if not account.holds or (once and account.duplicates):
            pytest.fail(str(account))

    return record
