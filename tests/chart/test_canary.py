"""What `helm test` runs, run against a real worker with the configuration that the chart makes."""

import asyncio
import os
import re
import secrets
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from tests.chart.installed import install
from tests.system.command import ROOT
from tests.system.site import Site
from tests.system.worker_process import worker
from tools.chart_rendering import CHART, Rendered

SCRIPT = CHART / "files/canary.py"


class Pods:
    """The folder of a worker and the address of the canary's pod: one of loopback, that nobody else uses."""

    def __init__(self, rendered: Rendered, folder: Path) -> None:
        self.site = Site(folder, "sqlite:notifier.db")
        [container] = rendered.one("Pod")["spec"]["containers"]
        self.environment = {each["name"]: each["value"] for each in container["env"]}
        self.host = f"127.{secrets.randbelow(200) + 20}.{secrets.randbelow(256)}.{secrets.randbelow(254) + 1}"
        with socket.create_server((self.host, 0)) as server:
            self.port: int = server.getsockname()[1]
        etc = install(rendered, folder)
        config = yaml.safe_load(etc.read_text())
        config.update(queue={"url": f"sqlite:{folder}/notifier.db"}, ops={"listen": "127.0.0.1:0"})
        config["registry"]["file"] = "config/clients.yaml"
        self.site.config = config
        self.site.write()
        clients = (etc.parent / "clients.yaml").read_text()
        there = clients.replace("n-notifier-canary.logout.svc:8080", f"{self.host}:{self.port}")
        assert there != clients
        (etc.parent / "clients.yaml").write_text(there.replace("10.96.0.0/12", "127.0.0.0/8"))

    async def test(self, patience: float, **more: str) -> tuple[int, str]:
        """Run the command of the canary's pod. Return its exit status and output."""
        settings = {
            **self.environment,
            "CANARY_TIMEOUT": str(patience),
            "CANARY_HOST": self.host,
            "CANARY_PORT": str(self.port),
            "CANARY_URL": f"http://{self.host}:{self.port}/backchannel-logout",
            "NOTIFIER_CONFIG": str(self.site.file),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            **more,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, SCRIPT, env=settings, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        output, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, output.decode()


@pytest.fixture
def pods(every: Mapping[str, Rendered], tmp_path: Path) -> Pods:
    """Of the least that installs, on the embedded queue."""
    return Pods(every["minimal"], tmp_path)


async def test_a_canary_is_published_and_delivered(pods: Pods) -> None:
    """Through the queue, the worker, its signature and a POST; only the canary receives it."""
    async with worker(pods.site) as running:
        status, output = await pods.test(patience=60)
        assert status == 0, output
        assert "published, signed and delivered in" in output
        assert re.search('"event_id": ?"canary-', running.log)  # by which the hint of a test that failed finds it
        await running.until_metric(1, "deliveries_settled_total", fate="delivered")
        assert await running.metric("attempts_total") == await running.metric(
            "attempts_total", client_id="notifier-canary"
        )


@pytest.mark.parametrize("address", ["127.0.0.1", "[::1]"])
async def test_the_canary_is_reached_by_both_families(address: str, pods: Pods) -> None:
    """In a cluster of IPv6 alone its Service has no other address; a proxy of the environment is not asked."""
    url = f"http://{address}:{pods.port}/backchannel-logout"
    proxy = "http://127.0.0.1:9"
    status, output = await pods.test(patience=1, CANARY_HOST="", CANARY_REACH="3", CANARY_URL=url, http_proxy=proxy)
    assert status == 1
    assert "did not arrive within 1 s" in output  # there is no worker
    assert "did not reach itself" not in output


async def test_undelivered_canary_is_reported(pods: Pods) -> None:
    """Without a worker the event stays in the queue, the test fails, and its output names the next step."""
    status, output = await pods.test(patience=1)
    assert status == 1
    assert "did not arrive within 1 s" in output
    assert "did not reach itself" not in output
    workers = "app.kubernetes.io/name=notifier,app.kubernetes.io/instance=n"
    assert re.search(f"  kubectl -n logout logs -l {workers} --tail=-1 --prefix . grep canary-[0-9a-f-]+\n", output)
    assert "  kubectl -n logout exec deploy/n-notifier -- notifier explain REASON\n" in output
    assert output.endswith("  kubectl -n logout exec deploy/n-notifier -- notifier status\n")
