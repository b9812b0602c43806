"""Runs systemd as process 1 of separate namespaces (processes, mounts, IPC, control groups), on the machine's network.

It has the units that a test gives it, and copies of /etc, /opt and /var/lib that go with it.
"""

import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
SYSTEMD = Path("/lib/systemd/systemd")
PATIENCE_SECONDS = 60.0
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
_TARGETS = ("basic", "network-online", "multi-user", "shutdown", "sysinit", "test")
# Under /opt, since the units hide /root, /home and /tmp, where a checkout and its Python may be.
_PROGRAM = f"""#!/bin/sh
export PYTHONHOME=/opt/python LD_LIBRARY_PATH=/opt/python/lib PYTHONPATH=/opt/notifier/tree:/opt/notifier/packages
exec /opt/python/bin/{PYTHON} -m notifier "$@"
"""
_BOOT = """
set -e
mount --make-rprivate /
mount -t proc proc /proc
mount --rbind /dev /dev
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
mount -t cgroup2 cgroup /sys/fs/cgroup
mkdir "/sys/fs/cgroup/$6"
echo 0 > "/sys/fs/cgroup/$6/cgroup.procs"
mkdir "$1/etc" "$1/opt"
cp -a /etc/. "$1/etc"
rm -rf "$1/etc/systemd/system"
cp -a "$1/added/." "$1/etc"
mount --bind "$1/etc" /etc
cp -a "$1/program/." "$1/opt"
mount --bind "$2" "$1/opt/notifier/tree"
mount --bind "$3" "$1/opt/notifier/packages"
mount --bind "$4" "$1/opt/python"
mount --rbind "$1/opt" /opt
mount -t tmpfs tmpfs /usr/lib/systemd/system
mount -t tmpfs -o mode=755 tmpfs /var/lib
mount -t tmpfs -o mode=755 tmpfs /run
mount --make-rshared /
export container=test
exec unshare --cgroup sh -c '
  umount /sys/fs/cgroup && mount -t cgroup2 cgroup /sys/fs/cgroup
  exec "$0" --system --unit=test.target --log-target=null --show-status=no
' "$5"
"""
_REMOVE_GROUP = """
mount --make-rprivate /
mount -t tmpfs cgroup /sys/fs/cgroup
mount -t cgroup2 cgroup /sys/fs/cgroup
find "/sys/fs/cgroup/$1" -depth -type d -exec rmdir {} +
"""


class SystemdMissing(Exception):  # noqa: N818  a state of the machine
    """systemd is not installed, or the machine does not let it start in namespaces."""


class Machine:
    """A running systemd. `etc`: its files below /etc."""

    def __init__(self, pid: int, folder: Path) -> None:
        self.pid = pid
        self.etc = folder / "etc"

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command on it."""
        inside = ["nsenter", "-t", str(self.pid), "--pid", "--mount", "--ipc", "--cgroup", *words]
        done = subprocess.run(inside, capture_output=True, text=True, timeout=PATIENCE_SECONDS * 2, check=False)
        assert done.returncode == 0 or not check, (words, done.stdout, done.stderr)
        return done

    def show(self, unit: str, name: str) -> str:
        """Return a property of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).stdout.strip()


@contextmanager
def systemd_machine(folder: Path, etc: Mapping[str, str]) -> Iterator[Machine]:
    """Start systemd with these files below /etc, and the program /opt/notifier/bin/notifier. Raises SystemdMissing."""
    if os.geteuid() != 0 or not SYSTEMD.exists():
        raise SystemdMissing("needs root and systemd")
    files = {f"added/{path}": text for path, text in etc.items()}
    files |= {f"added/systemd/system/{name}.target": "[Unit]\nDefaultDependencies=no\n" for name in _TARGETS}
    files["program/notifier/bin/notifier"] = _PROGRAM
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    (folder / "program/notifier/bin/notifier").chmod(0o755)
    for name in ("notifier/tree", "notifier/packages", "python"):
        (folder / "program" / name).mkdir()
    packages = Path(sysconfig.get_paths()["purelib"]).resolve()
    group = f"notifier-{folder.name}-{os.getpid()}"
    words = [str(folder), str(ROOT), str(packages), sys.base_prefix, str(SYSTEMD), group]
    started = ["unshare", "--pid", "--mount", "--ipc", "--fork", "--kill-child", "sh", "-c", _BOOT, "boot", *words]
    with (folder / "boot.log").open("w") as log, subprocess.Popen(started, stdout=log, stderr=log) as outer:
        machine = None
        try:
            machine = _until_running(outer, folder)
            yield machine
        finally:
            outer.send_signal(signal.SIGKILL)
            outer.wait()
            if machine is not None:
                _remove_group(group)


def _until_running(outer: subprocess.Popen[bytes], folder: Path) -> Machine:
    """Return the machine once systemctl reaches it."""
    until = time.monotonic() + PATIENCE_SECONDS
    while outer.poll() is None and time.monotonic() < until:
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
        for pid in map(int, children):
            machine = Machine(pid, folder)
            if "active" in machine.run("systemctl", "is-active", "test.target", check=False).stdout.split():
                return machine
    raise SystemdMissing(f"systemd did not start: {(folder / 'boot.log').read_text()[-500:]}")


def _remove_group(group: str) -> None:
    """Remove the control groups of a machine that was killed, once its processes are gone."""
    words = ["unshare", "--mount", "sh", "-c", _REMOVE_GROUP, "remove", group]
    until = time.monotonic() + PATIENCE_SECONDS
    while subprocess.run(words, capture_output=True, timeout=PATIENCE_SECONDS, check=False).returncode != 0:
        assert time.monotonic() < until, f"the control group {group} stays"
