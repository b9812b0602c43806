"""A private RabbitMQ node for tests: its own ports, cookie, epmd and data in a temporary folder.

Several run side by side, everything listens on loopback alone, and nothing is left behind, whether stopped or killed.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

SCRIPTS = Path("/usr/lib/rabbitmq/bin")
BOOT_SECONDS = 90.0  # about 8 s on an idle machine
WAYS_OUT = """RabbitMQ is needed for these tests and was not found. Three ways out:
  1. point NOTIFIER_TEST_AMQP_URL at a broker that may be used: amqp://guest:guest@127.0.0.1:5672/
  2. install it: apt-get install -y --no-install-recommends rabbitmq-server
     (it need not run as a service: the tests start a node of their own)
  3. run it: docker run --rm -p 127.0.0.1:5672:5672 rabbitmq:4, and set NOTIFIER_TEST_AMQP_URL as in 1."""


class RabbitmqMissing(Exception):  # noqa: N818  a state of the machine; the text says what to do
    """RabbitMQ can be neither found nor installed here."""


class RabbitmqNode:
    """One node. Made by `rabbitmq_node`."""

    def __init__(self, home: Path) -> None:
        self.port, self._dist_port, ctl_port, self._epmd_port = _free_ports(4)
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}/"
        self._home = home
        self._server: subprocess.Popen[bytes] | None = None
        self._epmd: subprocess.Popen[bytes] | None = None
        self._guards: list[subprocess.Popen[bytes]] = []
        self._environment = self._make_environment(ctl_port)

    def _make_environment(self, ctl_port: int) -> dict[str, str]:
        home = self._home
        (home / "rabbitmq.conf").write_text("disk_free_limit.absolute = 100MB\nlog.console = false\n")
        (home / "enabled_plugins").write_text("[].\n")
        (home / "rabbitmq-env.conf").write_text("")
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(home),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"test-{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_CTL_DIST_PORT_MIN": str(ctl_port),
            "RABBITMQ_CTL_DIST_PORT_MAX": str(ctl_port),
            "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
            "RABBITMQ_LOG_BASE": str(home / "log"),
            "RABBITMQ_CONF_ENV_FILE": str(home / "rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(home / "config"),
            "RABBITMQ_PID_FILE": str(home / "pid"),
            # +sbwt none: schedulers that spin while idle would take the cores from the tests.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none",
        }

    def start(self) -> None:
        """Start the node, with the data it had before, and return once it takes connections."""
        if self._epmd is None:
            # Our own, in the foreground: one that the node starts would be a daemon that outlives it.
            self._epmd = self._spawn(["epmd", "-port", str(self._epmd_port), "-address", "127.0.0.1"], "epmd.log")
            self._await_port(self._epmd_port, self._epmd)
        self._server = self._spawn([str(SCRIPTS / "rabbitmq-server")], "server.log")
        self._await_port(self.port, self._server)

    def ctl(self, *arguments: str) -> str:
        """What `rabbitmqctl` prints. It blocks for about a second: in a coroutine, `asyncio.to_thread(node.ctl, …)`."""
        command = [str(SCRIPTS / "rabbitmqctl"), "-n", self._environment["RABBITMQ_NODENAME"], "--quiet", *arguments]
        done = subprocess.run(
            command, env=self._environment, cwd=self._home, capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode:
            raise RuntimeError(f"rabbitmqctl {arguments[0]} failed: {done.stdout}{done.stderr}")
        return done.stdout

    def kill(self) -> None:
        """SIGKILL, as a power cut: nothing is said to anybody."""
        if self._server is not None:
            _end(self._server, signal.SIGKILL)
            self._server = None
            self._await_closed(self.port)

    def freeze(self) -> None:
        """SIGSTOP: its sockets stay open, and nothing is read from them or said on them."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on, as if nothing had been."""
        self._signal(signal.SIGCONT)

    def _signal(self, sign: signal.Signals) -> None:
        if self._server is not None:
            os.killpg(self._server.pid, sign)

    def stop(self) -> None:
        """End the node and its epmd."""
        if self._server is not None:
            _end(self._server, signal.SIGTERM)
            self._server = None
            self._await_closed(self.port)
        if self._epmd is not None:
            _end(self._epmd, signal.SIGKILL)
            self._epmd = None
        while self._guards:
            guard = self._guards.pop()
            guard.kill()
            guard.communicate()

    def _spawn(self, command: list[str], log: str) -> subprocess.Popen[bytes]:
        with (self._home / log).open("ab") as output:
            process = subprocess.Popen(
                command,
                env=self._environment,
                cwd=self._home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._guards.append(_guard(process.pid))
        return process

    def _await_closed(self, port: int) -> None:
        """The shell that leads the group is gone before the emulator: a start at once would find the old listener."""
        give_up = time.monotonic() + 20
        while time.monotonic() < give_up:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                return
            time.sleep(0.02)
        raise RuntimeError(f"port {port} is still open")

    def _await_port(self, port: int, process: subprocess.Popen[bytes]) -> None:
        give_up = time.monotonic() + BOOT_SECONDS
        while time.monotonic() < give_up:
            if process.poll() is not None:
                break
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return
            time.sleep(0.05)  # another process's start cannot be awaited otherwise
        written = "".join(path.read_text(errors="replace")[-4000:] for path in self._home.glob("*.log"))
        raise RuntimeError(f"RabbitMQ did not open port {port}: {written}")


@contextlib.contextmanager
def rabbitmq_node(under: Path | None = None) -> Iterator[RabbitmqNode]:
    """A running node, gone with all its data at the end; they lie `under` that folder, or with other temporary files.

    Raises RabbitmqMissing with the ways out.
    """
    _ensure_installed()
    with tempfile.TemporaryDirectory(prefix="notifier-rabbitmq-", dir=under, ignore_cleanup_errors=True) as home:
        node = RabbitmqNode(Path(home))
        try:
            node.start()
            yield node
        finally:
            node.kill()
            node.stop()


def _ensure_installed() -> None:
    if (SCRIPTS / "rabbitmq-server").exists():
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}  # installed, not started
        install = ["apt-get", "install", "-y", "--no-install-recommends", "rabbitmq-server"]
        for command in (["apt-get", "update"], install):
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(command, env=environment, capture_output=True, timeout=600, check=False)
    if not (SCRIPTS / "rabbitmq-server").exists():
        raise RabbitmqMissing(WAYS_OUT)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def _guard(leader: int) -> subprocess.Popen[bytes]:
    """Kills the process group should we die without a word: it waits for the end of a pipe that only we hold."""
    script = 'cat >/dev/null; kill -KILL "-$0"'
    return subprocess.Popen(
        ["/bin/sh", "-c", script, str(leader)], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )


def _end(process: subprocess.Popen[bytes], sign: signal.Signals) -> None:
    """Signal the whole group that `process` leads, and kill what has not gone after 20 s."""
    for each in (sign, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, each)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
            if each is signal.SIGKILL:
                return
