"""Nodes that stand in for kubelets: what is scheduled on them runs nothing, and is ready.

They look at the API a few times a second, which is enough for a cluster of this size.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import aiohttp

from tests.cluster.api import Api
from tests.cluster.control_plane import ControlPlane
from tests.support.go_modules import say

ZONES = ("a", "b", "c")
SIZE = {"cpu": "4", "memory": "8Gi", "pods": "110", "ephemeral-storage": "20Gi"}
EVERY = 0.25  # seconds


def now() -> str:
    """The time, as the API writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Nodes:
    """One node a zone. Made by `nodes`."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._names = [f"node-{zone}" for zone in ZONES]

    async def register(self) -> None:
        """Make the nodes."""
        for name, zone in zip(self._names, ZONES, strict=True):
            labels = {
                "kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone, "kubernetes.io/os": "linux",
            }  # fmt: skip
            body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}
            await self._api.call("POST", "/api/v1/nodes", body)
            common = {"reason": "StandIn", "message": "", "lastHeartbeatTime": now(), "lastTransitionTime": now()}
            kinds = {"MemoryPressure": "False", "DiskPressure": "False", "PIDPressure": "False", "Ready": "True"}
            status = {
                "capacity": SIZE, "allocatable": SIZE,
                "conditions": [{**common, "type": kind, "status": value} for kind, value in kinds.items()],
                "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": name}],
            }  # fmt: skip
            await self._api.patch(f"/api/v1/nodes/{name}/status", {"status": status})

    async def watch(self) -> None:
        """Keep looking."""
        while True:
            try:
                for body in await self._api.items("/api/v1/pods") or ():
                    if body["spec"].get("nodeName") in self._names:
                        await self._serve(body)
            except (aiohttp.ClientError, OSError, ValueError) as error:
                say(f"nodes: {error!r}")
            await asyncio.sleep(EVERY)

    async def _serve(self, body: dict[str, Any]) -> None:
        """Mark a new pod ready, and forget a deleted one."""
        meta = body["metadata"]
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
        if meta.get("deletionTimestamp"):
            options = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}
            await self._api.call("DELETE", path, {**options, "preconditions": {"uid": meta["uid"]}})
        elif body.get("status", {}).get("phase", "Pending") == "Pending":
            await self._api.patch(f"{path}/status", {"status": _status(body["spec"])})


def _status(spec: dict[str, Any]) -> dict[str, Any]:
    """Of a pod whose containers run, or have ended well if they are to run once."""
    since = now()
    ends = spec.get("restartPolicy") == "Never"
    ended = {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": since, "finishedAt": since}}

    def container(each: dict[str, Any], *, done: bool) -> dict[str, Any]:
        state = ended if done else {"running": {"startedAt": since}}
        return {
            "name": each["name"], "image": each["image"], "imageID": "", "ready": not done, "started": not done,
            "restartCount": 0, "state": state,
        }  # fmt: skip

    return {
        "phase": "Succeeded" if ends else "FeatureRuntime", "startTime": since,
        "conditions": [
            {"type": kind, "status": str(not ends), "lastTransitionTime": since}
            for kind in ("Initialized", "ContainersReady", "Ready")
        ],
        "initContainerStatuses": [container(each, done=True) for each in spec.get("initContainers") or ()],
        "containerStatuses": [container(each, done=ends) for each in spec["containers"]],
    }  # fmt: skip


@contextlib.asynccontextmanager
async def nodes(plane: ControlPlane) -> AsyncIterator[None]:
    """Nodes whose pods are ready."""
    async with plane.api() as api, asyncio.TaskGroup() as group:  # an internal error ends everything
        made = Nodes(api)
        await made.register()
        watching = group.create_task(made.watch())
        yield
        watching.cancel()
