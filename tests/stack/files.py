"""The files of deploy/compose, as they are when there is no docker: its names become ports on loopback, its paths ours.

Two things are shortened, so that an alert fires within seconds: every `for:` of the rules becomes one second, and
Prometheus looks each second. Nothing else of the files is changed.
"""

import contextlib
import random
import re
import socket
from collections.abc import Mapping
from pathlib import Path

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE = DEPLOY / "compose"
CLIENTS = ("shop", "reports", "forum", "payroll", "museum")


class Signers:
    """Where each name of docker's network is here: `at["worker-1:9464"]` is a port."""

    def __init__(self) -> None:
        base = _free_row(len(CLIENTS) + 8)
        self.first_client = base
        self.at: Mapping[str, int] = {
            "shop:9001": base,
            **{f"clients:{9001 + nth}": base + nth for nth in range(1, len(CLIENTS))},
            "worker-1:9464": base + 5,
            "worker-2:9464": base + 6,
            "rabbitmq:15672": base + 7,
            "rabbitmq:15692": base + 8,
            "prometheus:9090": base + 9,
            "alertmanager:9093": base + 10,
        }

    def here(self, text: str) -> str:
        """The same with addresses of this machine."""
        for name, port in self.at.items():
            text = text.replace(name, f"127.0.0.1:{port}")
        return text


def write_files(folder: Path, places: Signers, *, broker: int) -> None:
    """Write all of them into the folder, which stands for `/keys` and for the folders of configuration."""
    for name in ("notifier.yaml", "clients.yaml", "prometheus.yaml", "alertmanager.yaml"):
        text = places.here((COMPOSE / name).read_text()).replace("rabbitmq:5672", f"127.0.0.1:{broker}")
        text = text.replace("/keys/", f"{folder}/").replace("/etc/prometheus/rules/", f"{folder}/")
        if name == "prometheus.yaml":
            text = re.sub(r"_interval: \w+", "_interval: 1s", text)
        (folder / name).write_text(text)
    for name in ("recording.yaml", "alerts.yaml"):
        text = (DEPLOY / "prometheus" / name).read_text()
        (folder / name).write_text(re.sub(r"(?m)^(\s+for:).*$", r"\1 1s", text))


def rules() -> set[str]:
    """The names of all rules that we ship."""
    found = set()
    for name in ("recording.yaml", "alerts.yaml"):
        for group in yaml.safe_load((DEPLOY / "prometheus" / name).read_text())["groups"]:
            found |= {rule.get("alert") or rule["record"] for rule in group["rules"]}
    return found


def _free_row(count: int) -> int:
    """The first of so many free ports in a row, where neither the kernel nor `rabbitmq_node` takes any."""
    while True:
        base = random.SystemRandom().randrange(10_000, 14_900)
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for port in range(base, base + count):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return base
