"""Null stands for the default of each value, as a chart and as a part of another chart."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools.chart_rendering import CHART, NAMESPACE, RELEASE, Rendered, helm, template, values_file

DEFAULTS: Mapping[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
LEFT_OUT = {"runAsUser", "runAsGroup", "fsGroup", "requests", "limits", "grafana_dashboard"}  # null removes these


class Texts(yaml.SafeLoader):
    """YAML as Helm reads it: a moment is a text."""


Texts.add_constructor("tag:yaml.org,2002:timestamp", lambda _loader, node: node.value)


def given(name: str) -> dict[str, Any]:
    """The values of a file of `helm/notifier/ci`."""
    values: dict[str, Any] = yaml.load(values_file(name).read_text(), Texts)
    return values


def nulls(values: Mapping[str, Any], defaults: Mapping[str, Any], *, whole: bool) -> dict[str, Any]:
    """Return the values with null for each that they do not have; `whole`: for whole sections, where none is given."""
    made = dict(values)
    for name, default in defaults.items():
        if name in LEFT_OUT:
            continue
        if isinstance(default, dict) and default and (name in values or not whole):
            made[name] = nulls(values.get(name, {}), default, whole=whole)
        elif name not in values:
            made[name] = None
    return made


def installed(values: Mapping[str, Any], folder: Path) -> Sequence[dict[str, Any]]:
    """Return the objects of the chart with these values."""
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    return objects(template(file))


def part_of_another(values: Mapping[str, Any], folder: Path) -> Sequence[dict[str, Any]]:
    """Return the objects of a chart that has this one as a part, under a condition, with these values."""
    chart = folder / "identity"
    shutil.copytree(CHART, chart / "charts/notifier")
    part = {"name": "notifier", "version": "0.1.0", "condition": "notifier.enabled"}
    described = {"apiVersion": "v2", "name": "identity", "version": "1.0.0", "dependencies": [part]}
    (chart / "Chart.yaml").write_text(yaml.safe_dump(described))
    inner = {**values, "enabled": True}
    (chart / "values.yaml").write_text(yaml.safe_dump({"global": {"region": "north"}, "notifier": inner}))
    return objects(helm("template", RELEASE, chart, "--namespace", NAMESPACE))


def objects(run: Any) -> Sequence[dict[str, Any]]:
    """Return what a run of `helm template` made."""
    assert run.returncode == 0, run.stderr
    return [item for item in yaml.safe_load_all(run.stdout) if item]


def texts(made: Sequence[dict[str, Any]]) -> Sequence[str]:
    """Each object as text, in an order that does not depend on the chart around it."""
    return sorted(yaml.safe_dump(item) for item in made)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("install", [installed, part_of_another])
@pytest.mark.parametrize("name", ["minimal", "everything"])
def test_null_is_the_default(
    name: str, install: Any, whole: bool, tmp_path: Path, every: Mapping[str, Rendered]
) -> None:
    """Null for each value that is not given, or for whole sections, changes no object."""
    made = install(nulls(given(name), DEFAULTS, whole=whole), tmp_path)
    assert texts(made) == texts(every[name].objects)


@pytest.mark.parametrize("install", [installed, part_of_another])
def test_null_within_free_mappings_leaves_out(install: Any, tmp_path: Path) -> None:
    """A user of OpenShift, an amount of resources, a label, and members of `config`, among them a whole section."""
    values = given("minimal")
    values |= {
        "podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None},
        "resources": {"requests": {"cpu": None}, "limits": None},
        "podLabels": {"team": None},
        "canary": {**values["canary"], "resources": {"limits": None}},
    }
    values["config"] |= {"api": None, "log": None, "delivery": {"timeout": None}, "egress": {"allow": None}}
    values["config"]["issuers"]["https://old.example.com"] = None
    made = install(values, tmp_path)
    [workers] = [item for item in made if item["kind"] == "Deployment"]
    pod = workers["spec"]["template"]
    assert pod["metadata"]["labels"].keys() == {"app.kubernetes.io/name", "app.kubernetes.io/instance"}
    assert "runAsUser" not in pod["spec"]["securityContext"]
    assert pod["spec"]["containers"][0]["resources"] == {"requests": {"memory": "128Mi"}}
    [text] = [item["data"]["notifier.yaml"] for item in made if "notifier.yaml" in item.get("data", ())]
    config = yaml.safe_load(text)
    assert "api" not in config
    assert config["log"] == {"format": "json"}
    assert config["delivery"] == {}
    assert "https://old.example.com" not in config["issuers"]
