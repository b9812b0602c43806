"""Where a container's process runs: files, processes and a host name of its own, the user it is given, no rights.

Its files are those of this machine, under an overlay, with the container's volumes over them. It has no image, no
network of its own, and no limits.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.processes import end, first_child, start
from tests.system.command import ROOT

# $1 root, $2 "ro" or "rw", $3 folders that anybody may walk through, pairs of file and place up to "--", the command
PREPARE = r"""
set -e; root=$1 mode=$2 open=$3; shift 3; hostname "$HOSTNAME"
mount -t tmpfs tmpfs "$root"; mkdir "$root/up" "$root/work" "$root/all"
mount -t overlay overlay -o "lowerdir=/,upperdir=$root/up,workdir=$root/work" "$root/all"
for folder in $open; do chmod o+rx "$root/all$folder"; done
mount -t proc proc "$root/all/proc"
for name in dev sys; do mount --rbind /$name "$root/all/$name"; done
while [ "$1" != -- ]; do
  if [ -d "$1" ]; then mkdir -p "$root/all$2"; else mkdir -p "$root/all${2%/*}"; touch "$root/all$2"; fi
  mount --bind "$1" "$root/all$2"; shift 2
done; shift
[ "$mode" = rw ] || mount -o remount,ro "$root/all"
exec /usr/sbin/chroot "$root/all" "$@"
"""
OWN = ("unshare", "--mount", "--propagation", "private", "--uts", "--pid", "--fork", "--kill-child")
PATH = f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BASE = {"PATH": PATH, "HOME": "/", "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """As whom it runs, and whether it may write to its root."""

    user: int
    group: int
    groups: int
    read_only: bool

    @classmethod
    def of(cls, pod: Mapping[str, object], container: Mapping[str, object]) -> "Rights":
        """From the security contexts of both."""
        given = {**pod, **container}
        user, group = (int(str(given.get(name) or 0)) for name in ("runAsUser", "runAsGroup"))
        groups = int(str(given.get("fsGroup") or group))
        return cls(user=user, group=group, groups=groups, read_only=bool(given.get("readOnlyRootFilesystem")))

    def words(self) -> list[str]:
        """What gives them to the command that follows."""
        ids = ["--reuid", str(self.user), "--regid", str(self.group), "--groups", str(self.groups)]
        return ["setpriv", *ids, "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all", "--"]


class Sandbox:
    """One process and what it starts. Made by `begin`."""

    def __init__(self, process: asyncio.subprocess.Process, rights: Rights, env: Mapping[str, str]) -> None:
        self._process = process
        self._rights = rights
        self._env = env

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.returncode is None

    @property
    def code(self) -> int:
        """Its exit status, as a container's."""
        code = self._process.returncode or 0
        return 128 - code if code < 0 else code

    @property
    def init(self) -> int | None:
        """Its first process, as this machine sees it."""
        return first_child(self._process.pid)

    def signal(self, number: signal.Signals) -> None:
        """Signal its first process."""
        if self.running and (pid := self.init) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    async def ended(self) -> None:
        """Return once it has ended."""
        await self._process.wait()

    async def kill(self) -> None:
        """End it and all that it has started."""
        await end(self._process)

    async def execute(self, words: Sequence[str]) -> asyncio.subprocess.Process:
        """Start another command in it, as the same user, with pipes."""
        inside = ["nsenter", "--target", str(self.init), "--mount", "--uts", "--pid", "--root", "--wd"]
        return await asyncio.create_subprocess_exec(
            *inside, *self._rights.words(), *words, env=dict(self._env), stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip


async def begin(
    words: Sequence[str],
    mounts: Sequence[tuple[Path, str]],
    *,
    rights: Rights,
    env: Mapping[str, str],
    there: str,
    folder: Path,
    log: Path,
) -> Sandbox:
    """Run a command `there`; each of `mounts` is seen at its place. `folder` is where its root is laid."""
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    full = {**BASE, **env}
    found = shutil.which(words[0], path=full["PATH"]) or words[0]
    pairs = [str(part) for pair in mounts for part in pair]
    prepared = [
        *OWN,
        "sh",
        "-c",
        PREPARE,
        "sh",
        folder,
        "ro" if rights.read_only else "rw",
        " ".join(_way_in()),
        *pairs,
        "--",
    ]
    moved = ["env", f"--chdir={there}", found, *words[1:]]
    return Sandbox(await start([*prepared, *rights.words(), *moved], env=full, log=log), rights, full)


def _way_in() -> list[str]:
    """The folders that lead to Python and to this repository: a container's user may have to walk through /root."""
    ends = (ROOT, Path(sys.executable).parent, Path(sys.executable).resolve().parent)
    return sorted({str(folder) for path in ends for folder in (path, *path.parents) if folder != Path("/")})
