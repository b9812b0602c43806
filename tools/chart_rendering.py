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
VALUES = CHART / "ci"  # where `ct lint` looks for them, too
RELEASE, NAMESPACE = "n", "logout"
VALUE_FILES = sorted(path.name.removesuffix("-values.yaml") for path in VALUES.glob("*-values.yaml"))


def helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run([HELM, *arguments], capture_output=True, text=True, timeout=60, check=False)


def values_file(name: str) -> Path:
    """The file of values of this name."""
    return VALUES / f"{name}-values.yaml"


def template(values: Path, *arguments: str, release: str = RELEASE) -> subprocess.CompletedProcess[str]:
    """`helm template` with a file of values."""
    return helm("template", release, CHART, "--namespace", NAMESPACE, "-f", values, *arguments)


@dataclass(frozen=True, slots=True)
class Rendered:
    """What the chart makes of one file of values."""

    text: str
    objects: Sequence[dict[str, Any]]

    @classmethod
    def of(cls, name: str, *arguments: str) -> "Rendered":
        """Of `helm/notifier/ci/NAME-values.yaml`."""
        run = template(values_file(name), *arguments)
        assert run.returncode == 0, run.stderr
        return cls(run.stdout, [document for document in yaml.safe_load_all(run.stdout) if document])

    def all(self, kind: str) -> Sequence[dict[str, Any]]:
        """The objects of a kind."""
        return [item for item in self.objects if item["kind"] == kind]

    def one(self, kind: str, suffix: str = "") -> dict[str, Any]:
        """Return the only object of a kind whose name ends so."""
        [found] = [item for item in self.all(kind) if item["metadata"]["name"].endswith(suffix)]
        return found

    def workers(self) -> dict[str, Any]:
        """The Deployment of the workers."""
        return self.one("Deployment")

    def worker(self) -> dict[str, Any]:
        """The spec of the workers' pods."""
        spec: dict[str, Any] = self.workers()["spec"]["template"]["spec"]
        return spec

    def pods(self) -> Iterable[dict[str, Any]]:
        """The spec of every pod that can come to be."""
        for item in self.objects:
            if item["kind"] == "Pod":
                yield item["spec"]
            elif item["kind"] == "CronJob":
                yield item["spec"]["jobTemplate"]["spec"]["template"]["spec"]
            elif item["kind"] == "Deployment":
                yield item["spec"]["template"]["spec"]

    def config(self) -> dict[str, Any]:
        """notifier.yaml, as the workers read it."""
        config: dict[str, Any] = yaml.safe_load(self.files()["notifier.yaml"])
        return config

    def files(self) -> dict[str, str]:
        """The files of the folder of the configuration."""
        [files] = [item["data"] for item in self.all("ConfigMap") if "notifier.yaml" in item["data"]]
        found: dict[str, str] = files
        return found
