"""A worker imports what it uses: what it does not use would take memory for as long as it runs."""

import sys
from pathlib import Path

import pytest

from tests.system.site import Site
from tests.system.worker_process import worker

CODE = """\
import atexit, json, sys
from notifier.cli import main
names = lambda: [name for name, module in sys.modules.items() if module is not None]
atexit.register(lambda: print(json.dumps({"event": "imported", "names": names()}), file=sys.stderr))
main()
"""
OF_TERMINALS = {"rich", "pygments", "markdown_it"}
OF_EXTRAS = {"sqlalchemy", "psycopg", "pymysql", "opentelemetry"}
OF_QUEUES = {
    "amqp": {"aio_pika", "aiormq", "pamqp", "notifier.queues.rabbitmq"},
    "sqlite": {"sqlite3", "notifier.queues.sqlite"},
}
OF_THE_CONSOLE = {"notifier.features.console.recent", "notifier.features.console.console_routes"}


@pytest.mark.parametrize("place", ["sqlite", pytest.param("rabbitmq", marks=pytest.mark.full)], indirect=True)
async def test_worker_imports_one_queue_and_no_terminal_library(tmp_path: Path, place: tuple[str, str]) -> None:
    """Nor the console where it is off. structlog uses rich where it finds it, and the commands draw tables by it."""
    url, prefix = place
    used, *others = sorted(OF_QUEUES, key=lambda scheme: not url.startswith(scheme))
    site = Site(tmp_path, url, prefix)
    del site.config["api"]
    site.write()
    async with worker(site, command=[sys.executable, "-c", CODE]) as running:
        assert await running.stop() == 0
    [line] = running.logged("imported")
    imported = set(line["names"])
    assert OF_QUEUES[used] <= imported
    assert not imported & OF_TERMINALS.union(OF_EXTRAS, OF_THE_CONSOLE, *(OF_QUEUES[other] for other in others))
