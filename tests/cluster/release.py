"""A release of the chart on the cluster."""

import json
from pathlib import Path
from typing import Any

from tests.cluster.commands import Commands, Done
from tools.chart_rendering import CHART


class Release:
    """`program`: helm3 or helm4."""

    name = "notifier"

    def __init__(self, commands: Commands, program: str, namespace: str, folder: Path) -> None:
        self.commands = commands
        self.namespace = namespace
        self.values: dict[str, Any] = {}
        self._program = program
        self._file = folder / "values.yaml"

    async def helm(self, *words: str | Path) -> Done:
        """Helm in the namespace of the release."""
        return await self.commands.run(self._program, *words, "--namespace", self.namespace)

    async def put(self, verb: str, *words: str) -> Done:
        """`helm install` or `helm upgrade` with the values as they are now."""
        self._file.write_text(json.dumps(self.values))  # JSON is YAML
        return await self.helm(verb, self.name, CHART, "-f", self._file, *words)

    async def deployment(self) -> dict[str, Any]:
        """The workers' Deployment."""
        [found] = [
            each
            for each in await self.commands.get(self.namespace, "deployments")
            if each["metadata"]["labels"]["app.kubernetes.io/instance"] == self.name
        ]
        return found
