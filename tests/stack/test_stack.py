"""Everything beside everything, as deploy/compose.yaml has it: a client dies, an alert fires; it recovers, it is over.

RabbitMQ, Prometheus and Alertmanager are Debian's; their configuration, the rules, the workers' files and the demo's
processes are those of the stack.
"""

import asyncio
import contextlib
import os
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.monitoring.prometheus_server import Prometheus
from tests.stack.files import CLIENTS, COMPOSE, Signers, rules, write_files
from tests.support.apt_programs import program
from tests.support.rabbitmq_installation import Installation, find_installation
from tests.support.rabbitmq_node import RabbitmqNode
from tests.system.waiting import until

PATIENCE = 90.0  # seconds; on an idle machine each wait is over in ten
ROOT = Path(__file__).parents[2]
# What is true of this machine and not of docker's network; and a client that is back is probed within seconds.
HERE = {
    "NOTIFIER_EGRESS__ALLOW": '["127.0.0.0/8"]',
    "NOTIFIER_DELIVERY__RETRY__MAX_DELAY": "2s",
}


class Stack:
    """The processes, by the names of their services."""

    def __init__(self, folder: Path, places: Signers) -> None:
        self.folder = folder
        self.places = places
        self._running: dict[str, asyncio.subprocess.Process] = {}

    async def start(self, name: str, *command: str, **environment: str) -> None:
        """Start a service; its output goes to a file of its name."""
        kept = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "LANG", "TMPDIR")}
        with (self.folder / f"{name}.log").open("ab") as log:
            self._running[name] = await asyncio.create_subprocess_exec(
                *command, cwd=self.folder, env={**kept, "PYTHONPATH": str(ROOT), **HERE, **environment},
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    async def start_clients(self, name: str, *only: str) -> None:
        """As the services `shop` and `clients`."""
        chosen = [word for client in only for word in ("--only", client)]
        where = ["--jwks", "jwks.json", "--first-port", str(self.places.first_client)]
        await self.start(name, sys.executable, "-m", "notifier.demo.processes", "clients", *where, *chosen)

    async def stop(self, name: str) -> None:
        """As `docker compose stop`."""
        process = self._running.pop(name)
        process.terminate()
        await process.wait()

    async def close(self) -> None:
        """Kill what still runs."""
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    @property
    def log(self) -> str:
        """Return the last output of each service."""
        return "\n".join(f"{path.name}: {path.read_text()[-1500:]}" for path in self.folder.glob("*.log"))


@contextlib.contextmanager
def broker(places: Signers) -> Iterator[RabbitmqNode]:
    """RabbitMQ with the stack's own settings and plugins."""
    own = Installation()
    with tempfile.TemporaryDirectory(prefix="notifier-stack-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        plugins = re.findall(r"\w+", (COMPOSE / "enabled_plugins").read_text())
        node = RabbitmqNode(folder, own if own.version else find_installation(), plugins=plugins)
        listening = {"management": places.at["rabbitmq:15672"], "prometheus": places.at["rabbitmq:15692"]}
        lines = [
            f"{plugin}.tcp.{what}"
            for plugin, port in listening.items()
            for what in (f"port = {port}", "ip = 127.0.0.1")
        ]
        with (folder / "rabbitmq.conf").open("a") as file:
            file.write("\n".join(["", (COMPOSE / "rabbitmq.conf").read_text(), *lines, ""]))
        try:
            node.start()
            yield node
        finally:
            node.kill()
            node.stop()


async def notifier(folder: Path, *arguments: str) -> bytes:
    """What the command prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "notifier", *arguments, cwd=folder, stdout=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **HERE},
    )  # fmt: skip
    logged, _ = await process.communicate()
    assert process.returncode == 0
    return logged


@contextlib.asynccontextmanager
async def stack(folder: Path) -> AsyncIterator[Stack]:
    """All services, started in the order of compose.yaml."""
    places = Signers()
    with broker(places) as node:
        write_files(folder, places, broker=node.port)
        await notifier(folder, "keys", "generate", "--out", "key.pem")
        (folder / "log.key").write_text("0" * 64)
        (folder / "jwks.json").write_bytes(await notifier(folder, "keys", "jwks", "-c", "notifier.yaml"))
        made = Stack(folder, places)
        try:
            for name in ("worker-1", "worker-2"):
                listen = f"127.0.0.1:{places.at[f'{name}:9464']}"
                await made.start(
                    name, sys.executable, "-m", "notifier", "run", "-c", "notifier.yaml", NOTIFIER_OPS__LISTEN=listen
                )
            await made.start_clients("shop", "shop")
            await made.start_clients("clients", *CLIENTS[1:])
            every = ("-c", "notifier.yaml", "--every", "0.1")
            await made.start("sign-outs", sys.executable, "-m", "notifier.demo.processes", "sign-outs", *every)
            await made.start(
                "prometheus", program("prometheus", "prometheus"), "--config.file=prometheus.yaml",
                "--storage.tsdb.path=prometheus", f"--web.listen-address=127.0.0.1:{places.at['prometheus:9090']}",
            )  # fmt: skip
            await made.start(
                "alertmanager", program("prometheus-alertmanager", "prometheus-alertmanager"),
                "--config.file=alertmanager.yaml", "--storage.path=alertmanager", "--cluster.listen-address=",
                f"--web.listen-address=127.0.0.1:{places.at['alertmanager:9093']}",
            )  # fmt: skip
            yield made
        except BaseException as error:
            error.add_note(made.log)
            raise
        finally:
            await made.close()


class Alertmanager:
    """Asked by its API."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url
        self._session = session

    async def active(self) -> list[Mapping[str, Any]]:
        """The labels of the alerts that fire."""
        try:
            async with self._session.get(f"{self._url}/api/v2/alerts", params={"active": "true"}) as response:
                return [alert["labels"] for alert in await response.json()] if response.status == 200 else []
        except aiohttp.ClientConnectionError:
            return []

    async def until_failing(self, client_id: str, *, failing: bool = True) -> None:
        """Wait until the alert of this client fires, or is over."""
        await until(self.active, lambda found: (client_id in _failing(found)) is failing, 2 * PATIENCE)


def _failing(alerts: list[Mapping[str, Any]]) -> set[str]:
    return {alert["client_id"] for alert in alerts if alert["alertname"] == "NotifierClientFailing"}


async def all_is_up(prometheus: Prometheus) -> None:
    """Both workers and the broker are scraped, every rule is loaded and can be computed, Alertmanager is known."""
    targets = "count by (job) (up == 1)"
    up = {"notifier": "2", "rabbitmq": "1"}
    await until(
        lambda: prometheus.query(targets),
        lambda found: {one["metric"]["job"]: one["value"][1] for one in found} == up,
        PATIENCE,
    )
    loaded = await until(
        lambda: prometheus.get("/api/v1/rules"),
        lambda data: all(rule["health"] == "ok" for group in data["groups"] for rule in group["rules"]),
        PATIENCE,
    )
    assert {rule["name"] for group in loaded["groups"] for rule in group["rules"]} == rules()
    await until(
        lambda: prometheus.get("/api/v1/alertmanagers"), lambda data: len(data["activeAlertmanagers"]) == 1, PATIENCE
    )


@pytest.mark.timeout(600)
async def test_alert_fires_for_a_dead_client_and_resolves_on_recovery(tmp_path: Path) -> None:
    """By Alertmanager, from the rules that we ship; for a missing worker too, and not for a healthy one."""
    async with stack(tmp_path) as made, aiohttp.ClientSession() as session:
        prometheus = Prometheus(f"http://127.0.0.1:{made.places.at['prometheus:9090']}", session)
        alertmanager = Alertmanager(f"http://127.0.0.1:{made.places.at['alertmanager:9093']}", session)
        await all_is_up(prometheus)
        reported = 'sum(notifier_deliveries_settled_total{fate="delivered", client_id="shop"}) > 0'
        await until(lambda: prometheus.query(reported), bool, PATIENCE)
        await alertmanager.until_failing("museum")
        assert "shop" not in _failing(await alertmanager.active())
        await alertmanager.until_failing("forum", failing=False)  # it may have rested after its very first answer
        await made.stop("shop")
        await alertmanager.until_failing("shop")
        await made.start_clients("shop", "shop")
        await alertmanager.until_failing("shop", failing=False)
        assert "museum" in _failing(await alertmanager.active())
