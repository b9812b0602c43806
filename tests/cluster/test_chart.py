"""The chart, as a real API server accepts it. Its pods run nothing, and are ready."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.commands import Commands
from tests.cluster.release import Release
from tests.system.shell import blocks
from tools.chart_rendering import CHART, VALUE_FILES, values_file

SECRETS = {"notifier-broker": "password", "notifier-signing-keys": "2026.pem"}
PLACED = {
    "nodeSelector": {"kubernetes.io/hostname": "node-c"},
    "tolerations": [{"key": "only", "operator": "Equal", "value": "logout", "effect": "NoSchedule"}],
}
TAINT = "only=logout:NoSchedule"


@pytest.fixture
async def namespace(commands: Commands) -> AsyncIterator[str]:
    """An empty one."""
    name = f"logout-{secrets.token_hex(3)}"
    await commands.make_namespace(name)
    yield name
    await commands.delete_namespace(name)


@pytest.fixture
async def minimal(commands: Commands, helm: str, namespace: str, tmp_path: Path) -> Release:
    """The least that installs, not installed yet, with its Secrets."""
    for name, key in SECRETS.items():
        await commands.make_secret(namespace, name, **{key: "x"})
    release = Release(commands, helm, namespace, tmp_path)
    release.values = yaml.safe_load(values_file("minimal").read_text())
    return release


async def test_every_file_of_values_installs(commands: Commands, tmp_path: Path) -> None:
    """The API server accepts each object without a warning; so does Helm."""

    async def install(name: str) -> str:
        namespace = f"logout-{name}"
        await commands.make_namespace(namespace)
        release = Release(commands, "helm4", namespace, tmp_path)
        done = await release.helm("install", "notifier", CHART, "-f", values_file(name))
        await commands.delete_namespace(namespace)
        return "" if done.code == 0 and not done.warnings else str(done)

    assert [logged for logged in await asyncio.gather(*map(install, VALUE_FILES)) if logged] == []


async def test_documented_objects_are_accepted(commands: Commands, namespace: str) -> None:
    """What the documents have their readers write beside the chart: the ways to relays and to pages for browsers."""
    page = "docs/kubernetes-special-cases.md"
    objects = [yaml.safe_load(text) for text in blocks(page, "yaml") if "\nkind: " in text]
    assert [each["kind"] for each in objects] == ["Ingress", "Ingress", "HTTPRoute"]
    for each in objects:
        each["metadata"]["namespace"] = namespace
    await commands.apply(*objects)


async def test_a_test_runs_where_the_workers_run(commands: Commands, minimal: Release) -> None:
    """On nodes that only some may use, in a namespace with a quota: the canary's pod asks for what the workers ask."""
    quota = {"hard": {"requests.cpu": "2", "requests.memory": "2Gi", "limits.memory": "2Gi"}}
    meta = {"name": "quota", "namespace": minimal.namespace}
    await commands.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta, "spec": quota})
    (await commands.kubectl("taint", "node", "node-c", TAINT)).good()
    try:
        minimal.values |= PLACED
        (await minimal.put("install", "--wait", "--timeout", "1m")).good()
        (await minimal.helm("test", minimal.name, "--timeout", "30s")).good()
    finally:
        await commands.kubectl("taint", "node", "node-c", f"{TAINT}-")


async def test_upgrade_after_manual_scaling_applies_the_values(minimal: Release) -> None:
    """By the steps of docs/kubernetes.md."""
    (await minimal.put("install", "--wait", "--timeout", "1m")).good()
    name = (await minimal.deployment())["metadata"]["name"]
    scaled = await minimal.commands.kubectl("-n", minimal.namespace, "scale", f"deployment/{name}", "--replicas=3")
    scaled.good()
    minimal.values["replicaCount"] = 4
    done = await minimal.put("upgrade")
    if done.code:  # Helm 4 does not take the field from kubectl without this option
        assert ".spec.replicas" in done.err, done
        (await minimal.put("upgrade", "--force-conflicts")).good()
    assert (await minimal.deployment())["spec"]["replicas"] == 4
