"""What the chart makes is what Kubernetes takes; it asks for no right and passes the standard *restricted*."""

import base64
import json
import re
import shutil
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from notifier.cli.application import application
from tools.chart import upgrade
from tools.chart_rendering import CHART, Rendered, helm, template, values_file

CUSTOM: Mapping[str, Any] = yaml.safe_load(Path(__file__).with_name("crd_schemas.yaml").read_text())


@pytest.mark.parametrize("version", ["1.30", "1.34", "1.37"])
def test_kubernetes_takes_every_object(version: str, every: Mapping[str, Rendered]) -> None:
    """Each is valid, without unknown members, for the oldest version that the chart allows, and for newer ones."""
    objects = {json.dumps(item): item for rendered in every.values() for item in rendered.objects}
    for item in objects.values():
        if item["kind"] not in CUSTOM:
            kubernetes_validate.validate(item, version, strict=True)


def test_operators_take_every_custom_resource(rendered: Rendered) -> None:
    """Custom resources have the members that their operators know, and no others."""
    for item in rendered.objects:
        if item["kind"] in CUSTOM:
            jsonschema.validate(item, CUSTOM[item["kind"]])


def test_no_object_gives_a_right(rendered: Rendered) -> None:
    """Everything is in one namespace, no role is made or bound, and no pod gets a token of the API server."""
    kinds = {item["kind"] for item in rendered.objects}
    assert not {kind for kind in kinds if "Role" in kind or kind.startswith("Cluster")}
    assert all(item["metadata"].get("namespace") is None for item in rendered.objects)
    assert all(spec["automountServiceAccountToken"] is False for spec in rendered.pods())


def test_pods_pass_the_restricted_standard(rendered: Rendered) -> None:
    """Each rule of the Pod Security Standard *restricted* that a pod of ours could break; and nothing is written to."""
    allowed = {
        "configMap", "secret", "emptyDir", "projected", "downwardAPI", "csi", "ephemeral", "persistentVolumeClaim",
    }  # fmt: skip
    for spec in rendered.pods():
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"].get("runAsUser", 1) > 0
        assert spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
        assert all(volume.keys() - {"name"} <= allowed for volume in spec["volumes"])
        for container in [*spec["containers"], *spec.get("initContainers", ())]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
            }
            assert all("hostPort" not in port for port in container.get("ports", ()))
            assert "memory" in container["resources"]["limits"]
        mounts = spec["containers"][0]["volumeMounts"]
        given = ("registry", "outcomes", "spool")  # an extraVolume, a file, the folder to which workers write
        assert all(mount["readOnly"] for mount in mounts if mount["name"] not in given)


def test_selectors_select_workers_alone(rendered: Rendered) -> None:
    """Neither service nor budget nor policy of the workers means the canary's pod, and each means the workers."""
    deployment = rendered.workers()
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    suffix = deployment["metadata"]["name"]
    selectors = [
        deployment["spec"]["selector"]["matchLabels"],
        rendered.one("Service", f"{suffix}-ops")["spec"]["selector"],
        rendered.one("PodDisruptionBudget", suffix)["spec"]["selector"]["matchLabels"],
        rendered.one("NetworkPolicy", suffix)["spec"]["podSelector"]["matchLabels"],
        *(item["spec"]["selector"]["matchLabels"] for item in rendered.all("PodMonitor")),
    ]
    for selector in selectors:
        assert selector.items() <= labels
        for pod in rendered.all("Pod"):
            assert not selector.items() <= pod["metadata"]["labels"].items()


def test_the_folder_of_a_spool_is_on_a_volume() -> None:
    """An `emptyDir` with a limit above that of the spool, which would end the pod; a claim; or one of the values."""
    claim = ("--set", "spool.claim=c,spool.accessMode=ReadWriteMany")
    path = Rendered.of("relay").config()["spool"]["folder"]
    own = ("--set", f"extraVolumes[0].name=own,extraVolumeMounts[0].name=own,extraVolumeMounts[0].mountPath={path}")
    spool = {"name": "spool", "mountPath": path}
    assert spool_volume("relay") == (spool, {"name": "spool", "emptyDir": {"sizeLimit": "320Mi"}})
    assert spool_volume("relay", *claim) == (spool, {"name": "spool", "persistentVolumeClaim": {"claimName": "c"}})
    assert spool_volume("relay", *own) == ({"name": "own", "mountPath": path}, {"name": "own"})
    refused = template(values_file("relay"), "--set", "spool.claim=c")
    assert (refused.returncode, "spool.claim is ReadWriteOnce, and pods on other nodes" in refused.stderr) == (1, True)


def spool_volume(name: str, *arguments: str) -> tuple[dict[str, object], dict[str, object]]:
    """Return the only mount of the spool's folder, and its volume."""
    rendered = Rendered.of(name, *arguments)
    kubernetes_validate.validate(rendered.workers(), "1.34", strict=True)
    folder, spec = rendered.config()["spool"]["folder"], rendered.worker()
    [mount] = [each for each in spec["containers"][0]["volumeMounts"] if each["mountPath"] == folder]
    [volume] = [each for each in spec["volumes"] if each["name"] == mount["name"]]
    return mount, volume


def test_a_quota_of_cpu_takes_every_pod() -> None:
    """It refuses one without a limit: a pod without its own has that of the workers. Else none is made up."""
    workers = "resources.limits.cpu=2"
    assert cpu_limits("minimal", workers) == {"notifier": 2, "canary": 2}
    assert cpu_limits("everything", workers) == {"notifier": 2, "canary": "100m"}
    assert set(cpu_limits("minimal").values()) == {None}


def cpu_limits(name: str, *values: str) -> dict[str, object]:
    """Of the containers of the chart."""
    settings = [part for value in values for part in ("--set", value)]
    containers = [each for pod in Rendered.of(name, *settings).pods() for each in pod["containers"]]
    return {each["name"]: each["resources"]["limits"].get("cpu") for each in containers if each["name"] != "proxy"}


def test_an_older_helm_is_told_what_it_cannot_do(tmp_path: Path) -> None:
    """It does all but show the log of `helm test`. An installation alone shows notes, so a copy has them as a file."""
    chart = shutil.copytree(CHART, tmp_path / "notifier")
    (chart / "NOTES").write_text((chart / "templates/NOTES.txt").read_text())
    (chart / "templates/shown.yaml").write_text('{text: {{ tpl (.Files.Get "NOTES") . | quote }}}')
    shown = ("--show-only", "templates/shown.yaml")
    said = yaml.safe_load(helm("template", "n", chart, "-f", values_file("everything"), *shown).stdout)["text"]
    version = helm("version", "--template", "{{.Version}}").stdout
    older = tuple(map(int, version.removeprefix("v").split(".")[:2])) < (3, 18)
    assert "helm -n default test n" in said
    assert (f"This is Helm {version}, which removes the canary's log unread" in said) is older


def test_nothing_outlives_the_release(rendered: Rendered) -> None:
    """Helm does not remove the pod of a hook with the release, so it goes after each test; its log is printed."""
    for pod in rendered.all("Pod"):
        told = pod["metadata"]["annotations"]
        assert set(told["helm.sh/hook-delete-policy"].split(",")) == {
            "before-hook-creation",
            "hook-succeeded",
            "hook-failed",
        }
        assert set(told["helm.sh/hook-output-log-policy"].split(",")) == {"hook-succeeded", "hook-failed"}


def test_a_command_in_any_pod_finds_the_configuration(rendered: Rendered) -> None:
    """`kubectl exec … -- notifier status` reads what NOTIFIER_CONFIG names, where it is mounted."""
    for spec in rendered.pods():
        container = spec["containers"][0]
        assert {"name": "NOTIFIER_CONFIG", "value": "/etc/notifier/config/notifier.yaml"} in container["env"]
        assert "/etc/notifier/config" in {mount["mountPath"] for mount in container["volumeMounts"]}


def test_the_commands_of_the_pods_are_those_of_the_service(every: Mapping[str, Rendered]) -> None:
    """They are started by options that the commands have."""
    root = application()
    started = [spec["containers"][0]["command"] for spec in every["everything"].pods()]
    for _, name, *options in (command for command in started if command[0] == "notifier"):
        there = [option.replace("/etc/notifier/config/notifier.yaml", __file__) for option in options]
        with root.commands[name].make_context(name, there):
            assert name == "run"


def test_alerts_lead_to_the_runbook_that_is_named(every: Mapping[str, Rendered]) -> None:
    """Each `runbook_url` begins with `prometheusRule.runbookUrl` and ends with the alert's section."""
    [rule] = every["everything"].all("PrometheusRule")
    alerts = [each for group in rule["spec"]["groups"] for each in group["rules"] if "alert" in each]
    assert len(alerts) > 20
    for alert in alerts:
        url = f"https://wiki.example.com/runbook#{alert['alert'].lower()}"
        assert alert["annotations"]["runbook_url"] == url


def test_common_labels_are_on_every_object_and_pod(every: Mapping[str, Rendered]) -> None:
    """A label that a part has of its own stays; no selector changes with them."""
    everything = every["everything"]
    made = [item for item in everything.objects if "labels" in item["metadata"]]
    assert len(made) == len(everything.objects) - 2  # the extra objects are as written
    for item in made:
        assert item["metadata"]["labels"]["example.com/cost-center"] == "7"
    pod = everything.workers()["spec"]["template"]["metadata"]
    assert (pod["labels"]["example.com/cost-center"], pod["labels"]["team"]) == ("7", "identity")
    assert "example.com/cost-center" not in everything.workers()["spec"]["selector"]["matchLabels"]


def test_every_pod_has_the_additions(every: Mapping[str, Rendered]) -> None:
    """Lines of /etc/hosts and further members of the spec; and extra objects are evaluated."""
    everything = every["everything"]
    for pod in everything.pods():
        assert pod["hostAliases"] == [{"ip": "10.0.0.7", "hostnames": ["rabbitmq.internal"]}]
        assert pod["dnsConfig"] == {"options": [{"name": "ndots", "value": "1"}]}
    assert everything.one("ConfigMap", "n-notes")["data"] == {"port": "9464"}
    assert everything.one("PodDisruptionBudget", "n-logout-proxy")["spec"]["maxUnavailable"] == 1


def test_the_chart_describes_itself() -> None:
    """A catalogue shows its icon, which is the console's, its home, its maintainers and its licence."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    kind, _, data = chart["icon"].partition(",")
    assert kind == "data:image/svg+xml;base64"
    icon = CHART.parents[1] / "notifier/features/console/icon.svg"
    assert base64.b64decode(data) == icon.read_bytes().strip()
    assert {"home", "sources", "maintainers", "keywords"} <= chart.keys()
    assert yaml.safe_load(chart["annotations"]["artifacthub.io/links"])[0]["url"].startswith(chart["home"])


def test_the_text_is_the_one_looked_at(every: Mapping[str, Rendered]) -> None:
    """With everything turned on the chart makes what a reviewer has read. If the change is meant: `make chart`."""
    assert every["everything"].text == Path(__file__).with_name("golden").joinpath("everything.yaml").read_text()


def test_an_upgrade_changes_what_is_named() -> None:
    """At an installation of typical use, only lines of `changes.diff` change. If more is meant: `make chart`."""
    folder = Path(__file__).with_name("golden") / "upgrade"
    assert upgrade() == (folder / "changes.diff").read_text()
    texts = (folder / "before.yaml").read_text(), template(folder / "values.yaml").stdout
    before, after = ([each for each in yaml.safe_load_all(text) if each["kind"] == "Deployment"] for text in texts)
    assert before == after  # so the upgrade of the chart alone replaces no worker


def test_the_guide_installs(tmp_path: Path) -> None:
    """The values of both pages, each of their pieces laid over the first, make objects that Kubernetes takes."""
    pages = ("kubernetes.md", "kubernetes-special-cases.md")
    guide = "\n".join((CHART.parents[1] / "docs" / page).read_text() for page in pages)
    blocks = [
        textwrap.dedent(block) for block in re.findall(r"^ *```yaml\n(.*?)^ *```", guide, re.DOTALL | re.MULTILINE)
    ]
    blocks = [block for block in blocks if "\nkind: " not in block]  # tests/cluster has the API server take those
    assert len(blocks) == 8
    files = [tmp_path / f"{number}.yaml" for number in range(len(blocks))]
    for file, block in zip(files, blocks, strict=True):
        file.write_text(block)
    run = template(files[0], *(f"--values={file}" for file in files[1:]))
    assert run.returncode == 0, run.stderr
    made = [item for item in yaml.safe_load_all(run.stdout) if item]
    assert {"ScaledObject", "PodMonitor", "PrometheusRule", "HTTPRoute"} <= {item["kind"] for item in made}
    for item in made:
        if item["kind"] not in CUSTOM:
            kubernetes_validate.validate(item, "1.34", strict=True)
