"""kubectl and Helm as a person types them, against the cluster of the tests."""

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.programs import Programs

SECONDS = 240.0
RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}


@dataclass(frozen=True, slots=True)
class Done:
    """What a command did."""

    words: Sequence[str]
    code: int
    out: str
    err: str

    def good(self) -> "Done":
        """Itself, where it has succeeded."""
        assert self.code == 0, str(self)
        return self

    @property
    def warnings(self) -> list[str]:
        """What the API server or Helm warned of."""
        return [line for line in self.err.splitlines() if "warn" in line.lower()]

    def __str__(self) -> str:
        return f"{' '.join(self.words)} ended with {self.code}:\n{self.out}{self.err}"


@dataclass(frozen=True, slots=True)
class Commands:
    """They find the API by this kubeconfig."""

    programs: Programs
    kubeconfig: Path

    async def run(self, name: str, *words: str | Path, stdin: str = "") -> Done:
        """Run one of the programs to its end."""
        env = {"PATH": os.environ["PATH"], "HOME": str(self.kubeconfig.parent), "NO_COLOR": "1", "COLUMNS": "80"}
        process = await asyncio.create_subprocess_exec(
            self.programs[name], *words, env=env | {"KUBECONFIG": str(self.kubeconfig)}, cwd=self.kubeconfig.parent,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(SECONDS):
                out, err = await process.communicate(stdin.encode())
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode is not None
        return Done([name, *map(str, words)], process.returncode, out.decode(), err.decode())

    async def kubectl(self, *words: str | Path, stdin: str = "") -> Done:
        """kubectl."""
        return await self.run("kubectl", *words, stdin=stdin)

    async def get(self, namespace: str, kind: str) -> list[dict[str, Any]]:
        """The objects of a kind."""
        done = await self.kubectl("-n", namespace, "get", kind, "-o", "json")
        return list(json.loads(done.good().out)["items"])

    async def apply(self, *objects: Mapping[str, Any]) -> None:
        """Create or change objects."""
        listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        (await self.kubectl("apply", "-f", "-", stdin=json.dumps(listed))).good()

    async def make_namespace(self, name: str) -> None:
        """One that takes none but pods of the standard *restricted*."""
        await self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}})

    async def make_secret(self, namespace: str, name: str, **files: str) -> None:
        """A Secret of these files."""
        meta = {"name": name, "namespace": namespace}
        await self.apply({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": files})

    async def delete_namespace(self, name: str) -> None:
        """With all that is in it; returns once no pod is left."""
        words = ["-n", name, "delete", "deployments,statefulsets,cronjobs,jobs,pods", "--all", "--timeout=60s"]
        await self.kubectl(*words)
        await self.kubectl("delete", "namespace", name, "--wait=false")
