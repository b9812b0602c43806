"""What a metrics server would tell of the pods: how much CPU they use, for HorizontalPodAutoscalers.

A custom resource stands in for the API that a metrics server serves: whoever reads it cannot tell them apart.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp

from tests.cluster.api import Api
from tests.cluster.pod import Pod
from tests.cluster.pod_container import now

GROUP, VERSION = "metrics.k8s.io", "v1beta1"
EVERY = 2.0  # seconds
TICKS = os.sysconf("SC_CLK_TCK")
ANYTHING = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
DEFINITION: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {
        "name": f"pods.{GROUP}",
        "annotations": {"api-approved.kubernetes.io": "unapproved, it stands in for a metrics server"},
    },
    "spec": {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {"plural": "pods", "singular": "pod", "kind": "PodMetrics"},
        "versions": [{"name": VERSION, "served": True, "storage": True, "schema": {"openAPIV3Schema": ANYTHING}}],
    },
}


def cpu_seconds(process: int) -> float:
    """What it has used so far; 0 where it is gone."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS
    return 0.0


class Meter:
    """`pods` are those of all nodes, by uid."""

    def __init__(self, api: Api, pods: Mapping[str, Pod]) -> None:
        self._api = api
        self._pods = pods
        self._before: dict[tuple[str, str], tuple[float, float]] = {}

    async def watch(self) -> None:
        """Keep telling."""
        await self._api.define(DEFINITION)
        while True:
            await asyncio.sleep(EVERY)
            for uid, pod in list(self._pods.items()):
                if usage := self._usage(uid, pod):
                    with contextlib.suppress(aiohttp.ClientError):
                        await self._tell(pod, usage)

    def _usage(self, uid: str, pod: Pod) -> list[dict[str, Any]]:
        """Of each container since the last look."""
        found = []
        for each in pod.containers:
            if each.sandbox is None or (init := each.sandbox.init) is None:
                continue
            used, at = cpu_seconds(init), time.monotonic()
            before, since = self._before.get((uid, each.name), (used, at))
            self._before[uid, each.name] = used, at
            if at > since:
                cores = max(0.0, used - before) / (at - since)
                found.append({"name": each.name, "usage": {"cpu": f"{cores * 1000:.0f}m", "memory": "64Mi"}})
        return found

    async def _tell(self, pod: Pod, usage: list[dict[str, Any]]) -> None:
        path = f"/apis/{GROUP}/{VERSION}/namespaces/{pod.namespace}/pods/{pod.name}"
        owner = {"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.body["metadata"]["uid"]}
        meta = {"name": pod.name, "labels": pod.body["metadata"].get("labels") or {}, "ownerReferences": [owner]}
        await self._api.apply(
            path,
            {
                "apiVersion": f"{GROUP}/{VERSION}", "kind": "PodMetrics", "metadata": meta, "containers": usage,
                "timestamp": now(), "window": f"{EVERY:.0f}s",
            },
        )  # fmt: skip
