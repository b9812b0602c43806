"""Which publishers are tried, and in which form.

    python -m pytest publishers/conformance --publisher python --form whole

Without `--publisher` every available publisher is tried. `--form short` makes small numbers of everything, and is
the default. NOTIFIER_TEST_PUBLISHERS=required: an unavailable publisher is a failure.
"""

import importlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from publishers.conformance.broker import broker
from publishers.conformance.harness import Harness
from publishers.conformance.harness import harness as make_harness
from publishers.conformance.subject import Missing
from tests.support.rabbitmq_node import rabbitmq_node

pytest.register_assert_rewrite("publishers.conformance.cases")  # so that a case that fails shows its values

ROOT = Path(__file__).parent
WHOLE_PATIENCE = 300.0  # seconds for ten thousand events
SUBJECTS = sorted(found.stem for found in (ROOT / "subjects").glob("[a-z]*.py"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """The two choices."""
    parser.addoption("--publisher", action="append", choices=SUBJECTS, help="try this one alone (again for more)")
    parser.addoption("--form", choices=["short", "whole"], default="short", help="small numbers, or those of a release")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the modules of publishers that were not asked for."""
    if collection_path.parent != ROOT or not collection_path.name.startswith("test_"):
        return None
    name = collection_path.stem.removeprefix("test_")
    return True if name in SUBJECTS and name not in (config.getoption("--publisher") or SUBJECTS) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark cases that restart the publisher as full.

    aio-pika forgets a coroutine when its broker is killed, of which whichever case runs next would be accused.
    """
    for item in items:
        if item.path.is_relative_to(ROOT):
            if item.get_closest_marker("starts"):
                item.add_marker("full")
            item.add_marker(
                pytest.mark.filterwarnings("ignore:coroutine 'Connection.close' was never awaited:RuntimeWarning")
            )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_harness(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Harness]:
    """One publisher and one broker for all the cases of a module."""
    name = request.module.PUBLISHER
    folder = tmp_path_factory.mktemp(name)
    (folder / "subject").mkdir()
    try:
        subject = importlib.import_module(f"publishers.conformance.subjects.{name}").subject(folder / "subject")
        with rabbitmq_node() as node:
            async with broker(node, folder) as rabbit, make_harness(subject, rabbit, folder) as made:
                if request.config.getoption("--form") == "whole":
                    made.whole, made.patience = True, WHOLE_PATIENCE
                await made.run()
                yield made
    except Missing as missing:
        if os.environ.get("NOTIFIER_TEST_PUBLISHERS") == "required":
            pytest.fail(str(missing))
        pytest.skip(str(missing))


@pytest_asyncio.fixture(loop_scope="module")
async def harness(module_harness: Harness) -> AsyncIterator[Harness]:
    """The same, well again, whatever the case before did."""
    await module_harness.broker.come_back()
    yield module_harness
    await module_harness.broker.come_back()
