"""Runs `helm` on the chart, and finds things in what it makes."""

import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
CHART = ROOT / "helm/notifier"
HELM = Path(sys.executable).with_name("helm")  # of the package helm-binary
VALUES = ROOT / "tests/chart/values"
RELEASE, NAMESPACE = "n", "logout"
VALUE_FILES = sorted(path.stem for path in VALUES.glob("*.yaml"))


def helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run([HELM, *arguments], capture_output=True, text=True, timeout=60, check=False)


def template(values: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`helm template` with a file of values."""
    return helm("template", RELEASE, CHART, "--namespace", NAMESPACE, "-f", values, *arguments)


@dataclass(frozen=True, slots=True)
class Rendered:
    """What the chart makes of one file of values."""

    text: str
    objects: Sequence[dict[str, Any]]

    @classmethod
    def of(cls, name: str, *arguments: str) -> "Rendered":
        """Of `tests/chart/values/NAME.yaml`."""
        run = template(VALUES / f"{name}.yaml", *arguments)
        assert run.returncode == 0, run.stderr
        return cls(run.stdout, [document for document in yaml.safe_load_all(run.stdout) if document])

    def all(self, kind: str) -> Sequence[dict[str, Any]]:
        """The objects of a kind."""
        return [item for item in self.objects if item["kind"] == kind]

    def one(self, kind: str, suffix: str = "") -> dict[str, Any]:
        """The only object of a kind, of those whose name ends so."""
        [found] = [item for item in self.all(kind) if item["metadata"]["name"].endswith(suffix)]
        return found

    def worker(self) -> dict[str, Any]:
        """The spec of the workers' pods."""
        spec: dict[str, Any] = self.one("Deployment")["spec"]["template"]["spec"]
        return spec

    def pods(self) -> Iterable[dict[str, Any]]:
        """The spec of every pod that can come to be."""
        yield self.worker()
        for pod in self.all("Pod"):
            yield pod["spec"]

    def config(self) -> dict[str, Any]:
        """notifier.yaml, as the workers read it."""
        config: dict[str, Any] = yaml.safe_load(self.files()["notifier.yaml"])
        return config

    def files(self) -> dict[str, str]:
        """The files of the folder of the configuration."""
        [files] = [item["data"] for item in self.all("ConfigMap") if "notifier.yaml" in item["data"]]
        found: dict[str, str] = files
        return found
