"""One pod on a node of ours, from its scheduling to its end."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.cluster.api import Api
from tests.cluster.pod_container import PodContainer, now
from tests.cluster.pod_files import NotThereYet, PodFiles, environment
from tests.cluster.sandbox import Rights, Sandbox, begin

LISTENERS = {name: f"NOTIFIER_{name.upper()}__LISTEN" for name in ("ops", "api", "web")}
"""By the name of a port: the setting by which it listens at the pod's own address, since pods share this machine's."""


class Pod:
    """`body` is what the API server knows of it. One of a namespace `pretend-…` runs nothing, and is ready."""

    def __init__(self, api: Api, body: dict[str, Any], folder: Path, number: int, *, hosts: Path) -> None:
        self.body = body
        self.ip = f"10.244.{number // 250}.{number % 250 + 1}"
        self.files = PodFiles(api, folder / "volumes")
        self._api = api
        self._folder = folder
        self._hosts = hosts
        self._pretended = self.namespace.startswith("pretend-")
        self._told: dict[str, Any] = {}
        self._since = now()
        self._stopping = False
        self._reason = ""
        folder.mkdir()
        spec = body["spec"]
        self.first = [self._container(each) for each in spec.get("initContainers") or ()]
        self.containers = [self._container(each) for each in spec["containers"]]

    def _container(self, spec: Mapping[str, Any]) -> PodContainer:
        return PodContainer(spec, self.address, self._folder / f"{spec['name']}.log", self.tell)

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.body["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """Its namespace."""
        return str(self.body["metadata"]["namespace"])

    @property
    def path(self) -> str:
        """Where the API has it."""
        return f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"

    @property
    def address(self) -> str:
        """Where it really listens: the API refuses addresses of loopback."""
        return self.ip.replace("10.", "127.", 1)

    @property
    def running(self) -> bool:
        """Whether a process of it runs."""
        return any(each.sandbox is not None and each.sandbox.running for each in self.containers)

    def container(self, name: str) -> PodContainer | None:
        """The one of that name; without a name the first."""
        everyone = [*self.containers, *self.first]
        return next((each for each in everyone if name in ("", each.name)), None)

    # ── its life ──

    async def run(self) -> None:
        """Fill its volumes, run its first containers one by one, then the others until they have ended."""
        try:
            async with asyncio.timeout(self.body["spec"].get("activeDeadlineSeconds")):
                await self._fill()
                for each in self.first:
                    await self._run(each, always=False)
                await asyncio.gather(*(self._run(each, always=True) for each in self.containers))
        except TimeoutError:
            self._reason = "DeadlineExceeded"
            await self.kill()
            await self.tell()

    async def stop(self, grace: float) -> None:
        """Stop all its containers within the grace, and let the API server forget it."""
        self._stopping = True
        until = asyncio.get_running_loop().time() + grace
        killed = await asyncio.gather(*(each.stop(until) for each in (*self.containers, *self.first)))
        if any(killed):
            await self._report("ExceededGracePeriod", f"a container had to be killed after {grace:.0f} s")
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}
        await self._api.call("DELETE", self.path, {**body, "preconditions": {"uid": self.body["metadata"]["uid"]}})

    async def kill(self) -> None:
        """End its processes at once."""
        for each in (*self.containers, *self.first):
            await each.kill()

    async def _fill(self) -> None:
        while True:
            try:
                await self.files.fill(self.body)
            except NotThereYet as missing:
                await asyncio.gather(*(each.wait_for("ContainerCreating", str(missing)) for each in self.containers))
                await asyncio.sleep(0.5)
            else:
                return

    async def _run(self, container: PodContainer, *, always: bool) -> None:
        policy = self.body["spec"].get("restartPolicy", "Always")
        if self._pretended:
            await container.pretend(ends=policy == "Never" or not always)
        else:
            again = policy == "Always" and always
            await container.run(
                lambda: self._begin(container),
                lambda code: not self._stopping and (again or (bool(code) and policy != "Never")),
            )

    async def _begin(self, container: PodContainer) -> Sandbox:
        spec, env = container.spec, None
        while env is None:
            try:
                env = await environment(self._api, self.body, spec, self.ip)
            except NotThereYet as missing:
                await container.wait_for("CreateContainerConfigError", str(missing))
                await asyncio.sleep(0.5)
        mounts = [(self._hosts, "/etc/hosts")]
        mounts += [(self.files.path(each["name"]), each["mountPath"]) for each in spec.get("volumeMounts") or ()]
        ports = {port.get("name"): port["containerPort"] for port in spec.get("ports") or ()}
        here = {LISTENERS[name]: f"{self.address}:{port}" for name, port in ports.items() if name in LISTENERS}
        here |= {"HOSTNAME": self.name, "CANARY_HOST": self.address}
        rights = Rights.of(self.body["spec"].get("securityContext") or {}, spec.get("securityContext") or {})
        words = [*spec.get("command", ()), *spec.get("args", ())]
        root, there = self._folder / f"{container.name}.root", spec.get("workingDir", "/")
        return await begin(
            words, mounts, rights=rights, env={**env, **here}, there=there, folder=root, log=container.log
        )

    # ── what it tells ──

    async def tell(self) -> None:
        """Its status, where it is another than the last."""
        status = self._status()
        if status != self._told:
            self._told = status
            await self._api.patch(f"{self.path}/status", {"status": status})

    def _status(self) -> dict[str, Any]:
        ended = [each.ended for each in self.containers]
        failed = any(each and each["exitCode"] for each in ended) or bool(self._reason)
        begun = any("waiting" not in each.status()["state"] for each in self.containers)
        phase = "Running" if begun else "Pending"
        if all(ended) or self._reason:
            phase = "Failed" if failed else "Succeeded"
        ready = all(each.ready for each in self.containers)
        holds = {"Initialized": begun, "ContainersReady": ready, "Ready": ready}
        return {
            "phase": phase, "reason": self._reason, "startTime": self._since,
            "hostIP": "127.0.0.1", "podIP": self.ip, "podIPs": [{"ip": self.ip}],
            "conditions": [
                {"type": kind, "status": str(value), "lastTransitionTime": self._since} for kind, value in holds.items()
            ],
            "initContainerStatuses": [each.status() for each in self.first],
            "containerStatuses": [each.status() for each in self.containers],
        }  # fmt: skip

    async def _report(self, reason: str, message: str) -> None:
        """An event, for `kubectl get events`."""
        about = {"kind": "Pod", "name": self.name, "namespace": self.namespace, "uid": self.body["metadata"]["uid"]}
        body = {
            "apiVersion": "v1", "kind": "Event", "type": "Warning", "reason": reason, "message": message,
            "metadata": {"generateName": f"{self.name}.", "namespace": self.namespace},
            "involvedObject": about, "firstTimestamp": now(), "lastTimestamp": now(), "count": 1,
        }  # fmt: skip
        await self._api.call("POST", f"/api/v1/namespaces/{self.namespace}/events", body)
