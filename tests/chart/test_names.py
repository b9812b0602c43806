"""Whatever a release or an object of the user's is called, what the chart makes is text where Kubernetes wants text."""

import re
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from tools.chart_rendering import template, values_file


class Go(yaml.SafeLoader):
    """YAML as Helm and the API server read it: PyYAML takes 1e3 and n for texts."""


Go.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[0-9]+e[0-9]+$"), list("0123456789"))
Go.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"[ynYN]$"), list("ynYN"))
Go.add_constructor("tag:yaml.org,2002:bool", lambda _loader, node: node.value.lower() in ("y", "true", "on"))
NAMED = """
nameOverride: "1e3"
imagePullSecrets: [{name: "2026"}]
priorityClassName: "on"
secrets: {"1e3": "2026", "on": "1e3"}
env: [{name: "on", value: "1e3"}]
extraVolumes: [{name: "1e3", persistentVolumeClaim: {claimName: "2026"}}]
extraVolumeMounts: [{name: "1e3", mountPath: "/2026"}]
serviceAccount: {name: "1e3"}
nodeSelector: {a: "on"}
podLabels: {a: "2026"}
ingress: {className: "on", tlsSecret: "1e3"}
httpRoute: {parentRefs: [{name: "2026"}]}
"""


@pytest.mark.parametrize("release", ["n", "on", "2026", "1e3", "null"])
def test_names_that_yaml_takes_for_something_else(release: str, tmp_path: Path) -> None:
    """Each object is valid, its name starts with a letter, and its labels contain the release's name."""
    values = tmp_path / "values.yaml"
    values.write_text(NAMED)
    run = template(values_file("api"), "-f", str(values), release=release)
    assert run.returncode == 0, run.stderr
    made: list[dict[str, Any]] = [item for item in yaml.load_all(run.stdout, Go) if item]
    assert {"Deployment", "Service", "Ingress", "HTTPRoute"} <= {item["kind"] for item in made}
    for item in made:
        if item["kind"] != "HTTPRoute":
            kubernetes_validate.validate(item, "1.34", strict=True)
        if item["metadata"]["name"] != "1e3":  # the ServiceAccount, whose name is given
            assert re.match("[a-z]", item["metadata"]["name"])
        assert item["metadata"]["labels"]["app.kubernetes.io/instance"] == release
