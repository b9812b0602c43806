"""Fixtures for every test: a broker (NOTIFIER_TEST_AMQP_URL, or a private one), and a queue prefix.

One node serves the whole run (tests/support/shared_servers.py), with a virtual host for each process that runs tests.
A test's queues go with the test, so that it stays light. Whoever kills a node, or sets an alarm on it, has one of its
own. It stands at the top, so that the tests of benchmarks and publishers may ask too.
"""

import asyncio
import contextlib
import functools
import gc
import logging
import os
import secrets
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import settings

from tests.support.apt_programs import ProgramMissing
from tests.support.rabbitmq_installation import find_installation
from tests.support.rabbitmq_node import RabbitmqMissing, RabbitmqNode, rabbitmq_node
from tests.support.shared_servers import SHARED, AskedServers, Maker, SharedServers
from tests.support.topologies import clear_topology, declare_at_once

ROOT = Path(__file__).parent / "tests"
FULL = frozenset({"fuzz", "packaging"})
"""Folders whose tests run only in `make test-all`. What belongs to a part of tools/parts.toml runs in neither."""
LONGEST = ("faults", "simulator", "system", "contract", "", "network", "queues", "tokens", "features")
"""Folders whose modules take long: they begin first, short ones fill the gaps at the end. "": outside of `tests`."""
FIRST_FAULTS = frozenset({"test_workers.py", "test_table.py"})
"""Modules of tests/faults that run in `make test` too."""

settings.register_profile("notifier", deadline=None)  # a busy machine must not fail a test
settings.register_profile("short", settings.get_profile("notifier"), max_examples=25)  # of `make test`
settings.load_profile("notifier")

OWN_NODES = frozenset({"own_node", "module_node", "cluster", "two_brokers"})  # ours, whatever the URL


def pytest_configure(config: pytest.Config) -> None:
    """Lead the run, or ask who leads it. With NOTIFIER_TEST_HOOKS=off no hook into a library fits."""
    if os.environ.get("NOTIFIER_TEST_HOOKS") == "off":
        from tests.support.library_changes import all_hooks_off  # noqa: PLC0415  few runs need it

        all_hooks_off()
        os.environ["PYTHONPATH"] = f"{ROOT}/support/without_hooks{os.pathsep}{ROOT.parent}"
    led = getattr(config, "workerinput", None)
    vhosts = [f"gw{number}" for number in range(config.getoption("numprocesses", None) or 0)]
    servers: dict[str, Maker] = {"rabbitmq": functools.partial(rabbitmq_node, vhosts=vhosts), "keycloak": _keycloak}
    config.stash[SHARED] = SharedServers(servers) if led is None else AskedServers(led["shared"])


def _keycloak() -> contextlib.AbstractContextManager[object]:
    from tests.support.keycloak_shared import keycloak_of_a_run  # noqa: PLC0415  few tests need it

    return keycloak_of_a_run()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a process that will run tests, as pytest-xdist makes it, where to ask."""
    node.workerinput["shared"] = node.config.stash[SHARED].listen()


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the servers of the run."""
    if isinstance(shared := config.stash[SHARED], SharedServers):
        shared.end()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Leave what collection makes out of each search for garbage: a third of a gigabyte that stays."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what `make test` leaves out. A run on another version of RabbitMQ leaves out what uses no RabbitMQ."""
    for item in items:
        room, name = _place(item.path)
        watches = item.get_closest_marker("alone") is not None
        if watches or room in FULL or (room == "faults" and name not in FIRST_FAULTS):
            item.add_marker("full")
    items.sort(key=lambda item: _turn(item.path))  # stable: within a module nothing moves
    if os.environ.get("NOTIFIER_TEST_RABBITMQ"):
        wanted = [item for item in items if _uses_rabbitmq(item)]
        config.hook.pytest_deselected(items=[item for item in items if item not in wanted])
        items[:] = wanted


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Skip a test whose program is missing, since only root can install it. As root and in CI the test fails."""
    report = yield
    missing = None if call.excinfo is None else call.excinfo.value
    if isinstance(missing, RabbitmqMissing | ProgramMissing):
        report.longrepr = str(missing)
        if os.geteuid() != 0 and not os.environ.get("CI"):
            report.outcome, report.longrepr = "skipped", (__file__, 0, f"Skipped: {missing}")  # one line for all
    return report


@functools.cache
def _place(module: Path) -> tuple[str, str]:
    parts = module.relative_to(ROOT).parts if ROOT in module.parents else ()
    return (parts[0], parts[1]) if len(parts) > 1 else ("", "")


@functools.cache
def _turn(module: Path) -> int:
    room, _ = _place(module)
    return LONGEST.index(room) if room in LONGEST else len(LONGEST)


def _uses_rabbitmq(item: pytest.Item) -> bool:
    names = {*getattr(item, "fixturenames", ())}
    # The contract suite chooses its queue by a parameter, and asks for what that needs when it runs.
    return bool(names & {*OWN_NODES, "amqp_url", "rabbitmq"}) or item.name.endswith("[rabbitmq]")


@pytest.fixture(scope="session")
def rabbitmq(request: pytest.FixtureRequest) -> RabbitmqNode | None:
    """The node of this run, None where NOTIFIER_TEST_AMQP_URL names a broker that is not ours to control."""
    if os.environ.get("NOTIFIER_TEST_AMQP_URL"):
        return None
    node = request.config.stash[SHARED].ask("rabbitmq")
    assert isinstance(node, RabbitmqNode)
    return node


@pytest.fixture(scope="session")
def own_vhost(rabbitmq: RabbitmqNode | None, worker_id: str) -> str:
    """The virtual host of this process of the run on `rabbitmq`."""
    return "/" if rabbitmq is None or worker_id == "master" else worker_id


@pytest.fixture(scope="session")
def amqp_url(rabbitmq: RabbitmqNode | None, own_vhost: str) -> str:
    """The broker to test against, with a virtual host that no other process of the run uses."""
    return os.environ["NOTIFIER_TEST_AMQP_URL"] if rabbitmq is None else f"{rabbitmq.url}{own_vhost.lstrip('/')}"


@pytest.fixture
def own_node() -> Iterator[RabbitmqNode]:
    """A node for one test alone, to kill and to throttle. Boots in about 5 s."""
    with rabbitmq_node() as node:
        yield node


@pytest.fixture(scope="module")
def module_node() -> Iterator[RabbitmqNode]:
    """A node for the tests of one file, each of which hurts it and leaves it well."""
    with rabbitmq_node() as node:
        yield node


@pytest.fixture(autouse=True)
def logging_restored() -> Iterator[None]:
    """Restore the logging of the process, which is global, after each test: caplog relies on it."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("notifier").setLevel(logging.NOTSET)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


@pytest.fixture
def broker_version(request: pytest.FixtureRequest) -> str:
    """Of the RabbitMQ that the test runs on, such as 3.10.8; empty where it uses none."""
    if OWN_NODES & set(request.fixturenames):
        return find_installation().version
    if "amqp_url" not in request.fixturenames:
        return ""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, _version(request.getfixturevalue("amqp_url"))).result()


async def _version(url: str) -> str:
    """As it introduces itself."""
    import aiormq  # noqa: PLC0415  as in clear_topology

    connection = await aiormq.connect(url)
    try:
        return str(connection.server_properties["version"])
    finally:
        await connection.close()


@pytest.fixture
def bare_prefix(amqp_url: str) -> Iterator[str]:
    """A queue prefix for this test. Queues and exchanges declared under it are deleted afterwards."""
    name = f"test-{secrets.token_hex(4)}"
    yield name
    # In a separate thread: the fixture is synchronous so that synchronous tests can request it too.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, clear_topology(amqp_url, name)).result()


@pytest.fixture
def prefix(amqp_url: str, bare_prefix: str) -> str:
    """A queue prefix that is this test's alone, whose queues stand, so that no worker waits for new ones."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, declare_at_once(amqp_url, bare_prefix)).result()
    return bare_prefix
