"""Nodes that stand in for kubelets: what is scheduled on them runs as processes of this machine (see sandbox).

They look at the API a few times a second, which is enough for a cluster of this size. Names of Services are found in
/etc/hosts. There are no network policies, no images and no limits.
"""

import asyncio
import contextlib
import shutil
import ssl
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp

from tests.cluster.api import Api
from tests.cluster.control_plane import ControlPlane
from tests.cluster.kubelet import kubelet
from tests.cluster.pod import Pod
from tests.cluster.pod_container import now
from tests.cluster.pod_files import NotThereYet
from tests.support.go_modules import say

ZONES = ("a", "b", "c")
SIZE = {"cpu": "4", "memory": "8Gi", "pods": "110", "ephemeral-storage": "20Gi"}
EVERY = 0.25  # seconds
ENDED = ("Succeeded", "Failed")


class Nodes:
    """One node a zone. Made by `nodes`."""

    def __init__(self, api: Api, folder: Path) -> None:
        self.pods: dict[str, Pod] = {}  # by uid
        self._api = api
        self._folder = folder
        self._hosts = folder / "hosts"
        self._names = [f"node-{zone}" for zone in ZONES]
        self._numbers = count(10)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ends: dict[str, asyncio.Task[None]] = {}
        shutil.copy("/etc/hosts", self._hosts)

    async def register(self, port: int) -> None:
        """Make the nodes; the API server asks for logs at this port."""
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
                "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
                "declaredFeatures": ["ExtendWebSocketsToKubelet"],  # else the API server speaks SPDY for `kubectl exec`
            }  # fmt: skip
            await self._api.patch(f"/api/v1/nodes/{name}/status", {"status": status})

    async def watch(self) -> None:
        """Keep looking."""
        while True:
            try:
                await self._look()
            except (aiohttp.ClientError, OSError, ValueError) as error:
                say(f"nodes: {error!r}")
            await asyncio.sleep(EVERY)

    async def stop(self) -> None:
        """End every process."""
        running = [*self._tasks.values(), *self._ends.values()]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for pod in list(self.pods.values()):
            await pod.kill()

    async def _look(self) -> None:
        found = await self._api.items("/api/v1/pods")
        if found is None:
            return
        ours = {body["metadata"]["uid"]: body for body in found if body["spec"].get("nodeName") in self._names}
        for uid, body in ours.items():
            self._see(uid, body)
        for uid in self.pods.keys() - ours.keys():
            self._end(uid, grace=0)  # gone by force
        await self._name_services()
        for pod in list(self.pods.values()):
            if pod.running:
                with contextlib.suppress(NotThereYet):
                    await pod.files.fill(pod.body)

    def _see(self, uid: str, body: dict[str, Any]) -> None:
        going = body["metadata"].get("deletionTimestamp")
        if uid not in self.pods:
            if body.get("status", {}).get("phase") in ENDED and not going:
                return
            folder = self._folder / f"{body['metadata']['name']}-{uid[:8]}"
            number = next(self._numbers)
            self.pods[uid] = Pod(self._api, body, folder, number, hosts=self._hosts)
            if not going:
                self._tasks[uid] = asyncio.create_task(self._told(self.pods[uid].run(), body["metadata"]["name"]))
        self.pods[uid].body = body
        if going:
            self._end(uid, grace=body["metadata"].get("deletionGracePeriodSeconds", 30))

    def _end(self, uid: str, *, grace: float) -> None:
        if uid not in self._ends:
            self._ends[uid] = asyncio.create_task(self._told(self._stop(uid, grace), self.pods[uid].name))

    async def _stop(self, uid: str, grace: float) -> None:
        pod = self.pods[uid]
        if (task := self._tasks.get(uid)) is not None and not pod.running:
            task.cancel()
        await pod.stop(grace)
        del self.pods[uid]

    async def _told(self, work: Any, name: str) -> None:
        """Do it; a fault of ours is told, and ends nothing else."""
        try:
            await work
        except Exception as error:
            say(f"nodes: {name}: {error!r}")
            raise

    async def _name_services(self) -> None:
        """Write the Services' names, in place, since the file is mounted into pods."""
        lines = ["127.0.0.1 localhost", "::1 localhost"]
        for one in await self._api.items("/apis/discovery.k8s.io/v1/endpointslices") or ():
            service = (one["metadata"].get("labels") or {}).get("kubernetes.io/service-name")
            name = f"{service}.{one['metadata']['namespace']}.svc"
            for endpoint in one.get("endpoints") or ():
                if endpoint.get("conditions", {}).get("ready"):
                    here = (address.replace("10.", "127.", 1) for address in endpoint["addresses"])
                    lines += [f"{address} {name} {name}.cluster.local" for address in here]
        text = "\n".join([*lines, ""])
        if self._hosts.read_text() != text:
            self._hosts.write_text(text)


def _open(folder: Path) -> None:
    """Make it; a pod's user walks through it and what leads to it."""
    folder.mkdir()
    for path in (folder, *folder.parents):
        if path != Path("/"):
            path.chmod(path.stat().st_mode | 0o001)


@contextlib.asynccontextmanager
async def nodes(plane: ControlPlane, folder: Path) -> AsyncIterator[Nodes]:
    """Nodes that run pods."""
    _open(folder)
    trust = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trust.load_cert_chain(plane.pki / "apiserver.crt", plane.pki / "apiserver.key")
    async with plane.api() as api:
        made = Nodes(api, folder)
        async with kubelet(made.pods, trust) as port:
            await made.register(port)
            try:
                async with asyncio.TaskGroup() as group:  # a fault of ours ends it all
                    watching = group.create_task(made.watch())
                    yield made
                    watching.cancel()
            finally:
                await made.stop()
