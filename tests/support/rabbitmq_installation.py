"""Where RabbitMQ's programs are: this machine's own (3.10 on Debian 12), or 4.x in a root file system of Debian trixie.

    NOTIFIER_TEST_RABBITMQ=4 pytest tests/contract     # the tests' own nodes are of 4.x
    python -m tests.support.rabbitmq_installation      # makes what 4.x needs, or says in a line why it cannot be had

The root file system is made once, by debootstrap from the mirror that this machine's apt uses, and kept in
NOTIFIER_TEST_RABBITMQ4_ROOT. Programs run in it by chroot, in a mount namespace that ends with them: nothing is left.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.debian_mirror import NoMirror, debian_mirror
from tests.support.installing import InstallFailed, apt_install, run_installer
from tests.support.made_whole import alone

PROGRAMS = Path("/usr/lib/rabbitmq")
ROOT_OF_4 = Path("/var/cache/notifier-tests/rabbitmq-4")
MAKING_SECONDS = 1200
WAYS_OUT = """RabbitMQ is needed for these tests and was not found. Three ways out:
  1. point NOTIFIER_TEST_AMQP_URL at a broker that may be used: amqp://guest:guest@127.0.0.1:5672/
  2. install it: apt-get install -y --no-install-recommends rabbitmq-server
     (it need not run as a service: the tests start a node of their own)
  3. run it: docker run --rm -p 127.0.0.1:5672:5672 rabbitmq:4, and set NOTIFIER_TEST_AMQP_URL as in 1."""
WAYS_TO_4 = (
    "be root on Debian and where mounting is allowed, set NOTIFIER_TEST_RABBITMQ4_ROOT to a Debian root file system "
    "with rabbitmq-server 4.x, or point NOTIFIER_TEST_AMQP_URL at a broker of 4.x"
)
UNSHARED = ("unshare", "--mount", "--propagation", "private")
# $0: the root. $1: the node's home, seen as INSIDE. A tmpfs on /tmp, so that the root stays as it was made.
ENTER = """set -e
mount --rbind /proc "$0/proc"
mount --rbind /dev "$0/dev"
mount -t tmpfs tmpfs "$0/tmp"
mount --bind "$1" "$0/mnt"
shift
exec chroot "$0" env --chdir=/mnt "$@"
"""
INSIDE = Path("/mnt")


class RabbitmqMissing(Exception):  # noqa: N818  a state of the machine; the text says what to do
    """RabbitMQ is not installed and cannot be installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """Programs of one version. `root`: their root file system, None for the machine's own."""

    root: Path | None = None

    @property
    def version(self) -> str:
        """Return the version, such as 3.10.8; empty if it cannot be read."""
        return next((found.name.partition("-")[2] for found in self._programs.glob("lib/rabbitmq_server-*")), "")

    @property
    def _programs(self) -> Path:
        return PROGRAMS if self.root is None else self.root / PROGRAMS.relative_to("/")

    def applications(self) -> Iterator[tuple[str, Path]]:
        """Return name with version, and path as its programs see it, of the server and its plugins."""
        for found in self._programs.glob("lib/rabbitmq_server-*/plugins/*"):
            yield found.name, found if self.root is None else Path("/") / found.relative_to(self.root)

    def seen(self, home: Path) -> Path:
        """Return a node's folder as its programs see it."""
        return home if self.root is None else INSIDE

    def command(self, home: Path, program: str, *arguments: str) -> list[str]:
        """Return the command to run in `home`."""
        path = PROGRAMS / "bin" / program
        words = [str(path) if program.startswith("rabbitmq") else program, *arguments]
        return words if self.root is None else [*UNSHARED, "sh", "-c", ENTER, str(self.root), str(home), *words]


def find_installation() -> Installation:
    """Return the installation that NOTIFIER_TEST_RABBITMQ selects, created if missing. Raise RabbitmqMissing."""
    match os.environ.get("NOTIFIER_TEST_RABBITMQ", ""):
        case "":
            return _own()
        case "4":
            return version_4()
        case other:
            raise RabbitmqMissing(
                f"NOTIFIER_TEST_RABBITMQ is {other!r}; it may be 4, or left out for this machine's own"
            )


def _own() -> Installation:
    found = Installation()
    why = "" if found.version else _apt_install("rabbitmq-server")
    if not found.version:
        raise RabbitmqMissing(f"{WAYS_OUT}\n{why}".strip())
    return found


def version_4() -> Installation:
    """Return 4.x in its root file system, which takes two minutes to create. Raise RabbitmqMissing."""
    root = Path(os.environ.get("NOTIFIER_TEST_RABBITMQ4_ROOT") or ROOT_OF_4)
    if os.geteuid() != 0:
        raise _no_4("we are not root")
    if subprocess.run([*UNSHARED, "true"], capture_output=True, check=False).returncode:
        raise _no_4("mounting is not allowed here")
    if not root.exists():
        with alone(root):
            if not root.exists():
                _make(root)
    found = Installation(root=root)
    if not found.version.startswith("4."):
        raise _no_4(f"what {root} holds is not RabbitMQ 4.x")
    return found


def _no_4(why: str) -> RabbitmqMissing:
    return RabbitmqMissing(f"RabbitMQ 4.x cannot be had: {why}; ways out: {WAYS_TO_4}")


def _make(root: Path) -> None:
    """Build in a temporary folder and move it into place when complete, so that a partial root is never used."""
    mirror = _mirror()
    why = "" if shutil.which("debootstrap") else _apt_install("debootstrap")
    if shutil.which("debootstrap") is None:
        raise _no_4(f"debootstrap cannot be installed: {why}")
    with tempfile.TemporaryDirectory(prefix=f"{root.name}.", dir=root.parent, ignore_cleanup_errors=True) as part:
        made = Path(part, "root")
        # In separate namespaces: if the process is killed, its mounts and child processes end with it.
        command = [
            *UNSHARED, "--pid", "--fork", "--kill-child",
            "debootstrap", "--variant=minbase", "--include=rabbitmq-server", "trixie", str(made), mirror,
        ]  # fmt: skip
        try:
            run_installer(command, env=_environment(), seconds=MAKING_SECONDS)
        except InstallFailed as failed:
            raise _no_4(str(failed)) from None
        for package in made.glob("var/cache/apt/archives/*.deb"):
            package.unlink()
        (made / "etc" / "hosts").write_text("127.0.0.1 localhost\n")
        made.chmod(0o755)
        made.rename(root)


def _mirror() -> str:
    try:
        return debian_mirror()
    except NoMirror as why:
        raise _no_4(str(why)) from None


def _environment() -> dict[str, str]:
    """Return the environment with apt's proxy, if any, for debootstrap."""
    proxy = _said(["apt-config", "dump", "--format", "%v%n", "Acquire::http::Proxy"]).strip()
    return {**os.environ, **({"http_proxy": proxy} if proxy else {})}


def _said(command: Sequence[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def _apt_install(package: str) -> str:
    """Install by apt if permitted. Return the cause of a failure; the caller checks the result."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return "apt installs nothing: we are not root, or this is not Debian"
    return apt_install(package)


def main() -> None:
    """Create 4.x, or print why it cannot be created."""
    try:
        found = version_4()
    except RabbitmqMissing as missing:
        sys.exit(f"Not tested on 4.x. {missing}")
    print(f"RabbitMQ {found.version} in {found.root}")  # noqa: T201  a command's answer


if __name__ == "__main__":
    main()
