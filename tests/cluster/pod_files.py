"""The volumes and the environment of a pod: what a kubelet makes of ConfigMaps, Secrets and `emptyDir`."""

import base64
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.cluster.api import Api

SOURCES = {"configMap": ("configmaps", "name"), "secret": ("secrets", "secretName")}
"""Of a volume: where the API has it, and the member that names it."""

EMPTY = ("emptyDir", "projected")
"""Kinds that are an empty folder here: nothing reads the token of the API that Kubernetes projects."""


class NotThereYet(Exception):  # noqa: N818  a state, that the pod's status tells
    """What the pod names does not exist; its containers wait for it."""


class Volume:
    """A folder that shows a ConfigMap or a Secret, and turns over to the new at one stroke, as a kubelet's does."""

    def __init__(self, folder: Path, source: Mapping[str, Any], group: int) -> None:
        self._folder = folder
        self._mode = int(source.get("defaultMode", 0o644))
        self._paths: dict[str, str] = {item["key"]: item["path"] for item in source.get("items") or ()}
        self._group = group
        self._shown: dict[str, bytes] | None = None

    def show(self, data: Mapping[str, bytes]) -> None:
        """Lay the files down anew beside the old ones, and turn `..data` over."""
        chosen = {self._paths[key]: data[key] for key in self._paths} if self._paths else dict(data)
        if chosen == self._shown:
            return
        self._shown = chosen
        fresh = self._folder / f"..{time.time_ns()}"
        fresh.mkdir(parents=True)
        for name, content in chosen.items():
            (fresh / name).write_bytes(content)
            (fresh / name).chmod(self._mode)
            os.chown(fresh / name, 0, self._group)
            if not (self._folder / name).is_symlink():
                (self._folder / name).symlink_to(f"..data/{name}")
        self._turn_over(fresh)
        for path in self._folder.iterdir():
            if not path.name.startswith("..") and path.name not in chosen:
                path.unlink()

    def _turn_over(self, fresh: Path) -> None:
        data = self._folder / "..data"
        old = self._folder / data.readlink() if data.is_symlink() else None
        (self._folder / "..tmp").symlink_to(fresh.name)
        (self._folder / "..tmp").rename(data)
        if old is not None:
            shutil.rmtree(old)


class PodFiles:
    """The volumes of one pod, by their names. `fill` brings them up to date."""

    def __init__(self, api: Api, folder: Path) -> None:
        self._api = api
        self._folder = folder
        self._volumes: dict[str, Volume] = {}

    def path(self, volume: str) -> Path:
        """Where it lies."""
        return self._folder / volume

    async def fill(self, body: Mapping[str, Any]) -> None:
        """Make and refresh what the pod names. Raises NotThereYet."""
        group = int(body["spec"].get("securityContext", {}).get("fsGroup") or 0)
        for volume in body["spec"].get("volumes") or ():
            [kind] = volume.keys() - {"name"}
            if kind in EMPTY:
                self._empty(volume["name"], group)
            elif kind in SOURCES:
                await self._show(volume["name"], kind, volume[kind], group, body["metadata"]["namespace"])
            else:
                raise NotThereYet(f"a volume of the kind {kind} cannot be had here")

    def _empty(self, name: str, group: int) -> None:
        if not self.path(name).exists():
            self.path(name).mkdir(parents=True)
            os.chown(self.path(name), 0, group)
            self.path(name).chmod(0o2777)

    async def _show(self, name: str, kind: str, source: Mapping[str, Any], group: int, namespace: str) -> None:
        plural, member = SOURCES[kind]
        found = await self._api.get(f"/api/v1/namespaces/{namespace}/{plural}/{source[member]}")
        if found is None and not source.get("optional"):
            raise NotThereYet(f'MountVolume.SetUp failed for volume "{name}": {plural} "{source[member]}" not found')
        data = (found or {}).get("data") or {}
        shown = {key: base64.b64decode(text) if kind == "secret" else text.encode() for key, text in data.items()}
        self._volumes.setdefault(name, Volume(self.path(name), source, group)).show(shown)


async def environment(api: Api, body: Mapping[str, Any], container: Mapping[str, Any], ip: str) -> dict[str, str]:
    """What `env` of a container says. Raises NotThereYet."""
    fields = {
        "metadata.name": body["metadata"]["name"],
        "metadata.namespace": body["metadata"]["namespace"],
        "spec.nodeName": body["spec"].get("nodeName", ""),
        "status.podIP": ip,
    }
    found: dict[str, str] = {}
    for item in container.get("env") or ():
        source = item.get("valueFrom", {})
        if "secretKeyRef" in source:
            found[item["name"]] = await _of_secret(api, body["metadata"]["namespace"], source["secretKeyRef"])
        elif "fieldRef" in source:
            found[item["name"]] = fields[source["fieldRef"]["fieldPath"]]
        else:
            found[item["name"]] = item.get("value", "")
    return found


async def _of_secret(api: Api, namespace: str, wanted: Mapping[str, Any]) -> str:
    secret = await api.get(f"/api/v1/namespaces/{namespace}/secrets/{wanted['name']}")
    try:
        return base64.b64decode((secret or {})["data"][wanted["key"]]).decode()
    except KeyError:
        raise NotThereYet(f'secret "{wanted["name"]}" or its key "{wanted["key"]}" not found') from None
