"""A private RabbitMQ node for tests, with private ports, cookie, epmd and data in a temporary folder.

Several run side by side on loopback; stopped or killed, they leave no files. NOTIFIER_TEST_RABBITMQ selects the version
(see rabbitmq_installation).
"""

import contextlib
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from tests.support.apt_programs import program
from tests.support.rabbitmq_installation import Installation, RabbitmqMissing, find_installation

__all__ = ["RabbitmqMissing", "RabbitmqNode", "rabbitmq_node"]

BOOT_SECONDS = 90.0  # about 8 s on an idle machine
TELLS_SOON = "[{rabbit, [{quorum_tick_interval, 500}]}]."  # ms: the management API lists a queue after 5 s by default
CLIENT_CA = "client-ca.pem"
CERTIFICATE = "certificate.pem"  # in the node's home, with its key


class RabbitmqNode:
    """One node. `rabbitmq_node` creates it.

    `beside`: the first node of a cluster, which this one joins at its first start, and whose epmd and cookie it shares.
    `advanced`: Erlang terms that rabbitmq.conf cannot express. `plugins`: the enabled plugins; `management` is the port
    of that plugin. `certificate`: a PEM file with key and certificate, for TLS on `tls_port`. `flags`: the enabled
    feature flags, if not all. `client_ca`: a PEM file of the authority of users who log in by certificate. `vhosts`:
    virtual hosts of `guest` beside `/`, from the first start: rabbitmqctl takes a second to create one.
    """

    def __init__(
        self,
        home: Path,
        installation: Installation,
        *,
        beside: "RabbitmqNode | None" = None,
        advanced: str = "[].",
        plugins: Sequence[str] = (),
        certificate: Path | None = None,
        flags: Sequence[str] = (),
        client_ca: Path | None = None,
        vhosts: Sequence[str] = (),
    ) -> None:
        self.port, self.tls_port, self._dist_port, ctl_port, epmd_port, management_port = free_ports(6)
        self.management = f"http://127.0.0.1:{management_port}"
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}/"
        self.name = f"test-{self.port}@localhost"
        self.version = installation.version
        self._home = home
        self._installation = installation
        self._beside = beside
        self._plugins = plugins
        self._vhosts = vhosts
        self._epmd_port: int = epmd_port if beside is None else beside._epmd_port
        self._cookie: str = secrets.token_hex(16) if beside is None else beside._cookie
        self._server: subprocess.Popen[bytes] | None = None
        self._epmd: subprocess.Popen[bytes] | None = None
        self._guards: list[subprocess.Popen[bytes]] = []
        if certificate is not None:
            shutil.copy(certificate, home / CERTIFICATE)
        if client_ca is not None:
            shutil.copy(client_ca, home / CLIENT_CA)
        self._environment = self._make_environment(ctl_port, advanced, management_port)
        if flags:
            self._environment["RABBITMQ_FEATURE_FLAGS"] = ",".join(flags)
        if not plugins:
            self._leave_plugins_out()
        (home / "enabled_plugins").write_text(f"[{','.join(plugins)}].\n")

    def __getstate__(self) -> dict[str, object]:
        """Return the state for another process, which may query and command the node but not end it."""
        return vars(self) | {"_server": None, "_epmd": None, "_guards": []}

    def _make_environment(self, ctl_port: int, advanced: str, management_port: int) -> dict[str, str]:
        home = self._home
        peers = [] if self._beside is None else [self._beside.name, self.name]
        configured = ["disk_free_limit.absolute = 100MB", "log.console = false"]
        configured += ["cluster_formation.peer_discovery_backend = classic_config"] if peers else []
        configured += [f"cluster_formation.classic_config.nodes.{nth} = {name}" for nth, name in enumerate(peers, 1)]
        if (home / CERTIFICATE).exists():
            path = self._installation.seen(home) / CERTIFICATE
            configured += [f"listeners.ssl.1 = 127.0.0.1:{self.tls_port}"]
            configured += [f"ssl_options.{half} = {path}" for half in ("certfile", "keyfile")]
        if (home / CLIENT_CA).exists():
            configured += [f"ssl_options.cacertfile = {self._installation.seen(home) / CLIENT_CA}"]
            configured += ["ssl_options.verify = verify_peer", "ssl_cert_login_from = common_name"]
            configured += ["auth_mechanisms.1 = PLAIN", "auth_mechanisms.2 = EXTERNAL"]
        if self._vhosts:
            (home / "definitions.json").write_text(json.dumps(_definitions("/", *self._vhosts)))
            configured += [f"load_definitions = {self._installation.seen(home) / 'definitions.json'}"]
        if "rabbitmq_management" in self._plugins:
            configured += ["management.tcp.ip = 127.0.0.1", f"management.tcp.port = {management_port}"]
        (home / "rabbitmq.conf").write_text("\n".join([*configured, ""]))
        (home / "advanced.config").write_text(f"{advanced}\n")
        (home / "rabbitmq-env.conf").write_text("")
        (home / ".erlang.cookie").write_text(self._cookie)
        (home / ".erlang.cookie").chmod(0o400)
        home = self._installation.seen(home)
        return {
            "PATH": f"{os.environ['PATH']}:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(home),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_CTL_DIST_PORT_MIN": str(ctl_port),
            "RABBITMQ_CTL_DIST_PORT_MAX": str(ctl_port),
            "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
            "RABBITMQ_LOG_BASE": str(home / "log"),
            "RABBITMQ_CONF_ENV_FILE": str(home / "rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(home / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(home / "config"),
            "RABBITMQ_PID_FILE": str(home / "pid"),
            # +sbwt… none: schedulers that spin while idle would use the cores that tests need.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} "
            "+sbwt none +sbwtdcpu none +sbwtdio none",
        }

    def _leave_plugins_out(self) -> None:
        """Hide disabled plugins: reading their schemas is a third of a start's CPU time."""
        folder = self._home / "plugins"
        folder.mkdir(exist_ok=True)
        for name, place in self._installation.applications():
            if not name.startswith("rabbitmq_") or name.startswith("rabbitmq_prelaunch"):
                (folder / name).symlink_to(place)
        self._environment["RABBITMQ_PLUGINS_DIR"] = str(self._installation.seen(self._home) / "plugins")

    def start(self) -> None:
        """Start the node with its existing data, and return once it has booted: it accepts connections before that."""
        if self._epmd is None and self._beside is None:
            # A private epmd in the foreground: one that the node starts would be a daemon that outlives it.
            self._epmd = self._spawn("epmd", "-port", str(self._epmd_port), "-address", "127.0.0.1")
            self._await(lambda: _is_open(self._epmd_port), f"open port {self._epmd_port}", self._epmd)
        boots = self._count_boots()
        self._server = self._spawn("rabbitmq-server")
        self._await(lambda: self._count_boots() > boots, "boot", self._server)

    def ctl(self, *arguments: str) -> str:
        """Return the output of `rabbitmqctl`. It blocks for about a second: in a coroutine,
        `asyncio.to_thread(node.ctl, …)`.
        """
        command = self._installation.command(self._home, "rabbitmqctl", "-n", self.name, "--quiet", *arguments)
        run = partial(
            subprocess.run, env=self._environment, cwd=self._home, capture_output=True, text=True, timeout=180
        )
        done = run(command)
        if "Distribution failed" in done.stdout + done.stderr:  # another rabbitmqctl has the same node name
            done = run(command)
        if done.returncode:
            raise RuntimeError(f"rabbitmqctl {arguments[0]} failed: {done.stdout}{done.stderr}")
        return done.stdout

    @property
    def logs(self) -> list[Path]:
        """Return the node's log and its programs' output."""
        return [*self._home.glob("*.log"), *self._home.glob("log/*.log")]

    @property
    def running(self) -> bool:
        """Return whether the node was started, and neither killed nor stopped."""
        return self._server is not None

    def kill(self) -> None:
        """Send SIGKILL, as a power cut does: clients receive no close."""
        if self._server is not None:
            _end(self._server, signal.SIGKILL)
            self._server = None
            self._await_closed(self.port)

    def freeze(self) -> None:
        """Send SIGSTOP: its sockets stay open, but it neither reads nor writes."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue a frozen node."""
        self._signal(signal.SIGCONT)

    def set_back(self, seconds: int) -> None:
        """Set the wall clock back from the next start on, by libfaketime. The monotonic clock stays true."""
        library = Path(program("faketime", "faketime")).resolve().parents[1].glob("lib/*/faketime/libfaketimeMT.so.1")
        shutil.copy(next(library), self._home / "libfaketime.so")
        self._environment |= {
            "LD_PRELOAD": str(self._installation.seen(self._home) / "libfaketime.so"),
            "FAKETIME": f"-{seconds}",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def certify(self, certificate: Path) -> None:
        """Use another certificate from now on."""
        shutil.copy(certificate, self._home / CERTIFICATE)
        self.ctl("eval", "ssl:clear_pem_cache().")

    def _signal(self, sign: signal.Signals) -> None:
        if self._server is not None:
            os.killpg(self._server.pid, sign)

    def stop(self) -> None:
        """Stop the node and its epmd."""
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

    def _spawn(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self._home / f"{program}.log").open("ab") as output:
            process = subprocess.Popen(
                self._installation.command(self._home, program, *arguments),
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
        """Wait for the old listener: the shell that leads the group ends before the emulator."""
        give_up = time.monotonic() + 20
        while time.monotonic() < give_up:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                return
            time.sleep(0.02)
        raise RuntimeError(f"port {port} is still open")

    def _count_boots(self) -> int:
        log = self._home / "log" / f"{self.name}.log"
        return log.read_text(errors="replace").count("Server startup complete") if log.exists() else 0

    def _await(self, reached: Callable[[], bool], goal: str, process: subprocess.Popen[bytes]) -> None:
        give_up = time.monotonic() + BOOT_SECONDS
        while time.monotonic() < give_up:
            if process.poll() is not None:
                break
            if reached():
                return
            time.sleep(0.05)  # another process's start cannot be awaited otherwise
        written = "".join(path.read_text(errors="replace")[-4000:] for path in self._home.glob("*.log"))
        raise RuntimeError(f"RabbitMQ did not {goal}: {written}")


def _is_open(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _definitions(*vhosts: str) -> dict[str, object]:
    """Return what a node has without definitions, and more virtual hosts."""
    everything = dict.fromkeys(("configure", "write", "read"), ".*")
    return {
        "users": [{"name": "guest", "password": "guest", "tags": "administrator"}],
        "vhosts": [{"name": name} for name in vhosts],
        "permissions": [{"user": "guest", "vhost": name, **everything} for name in vhosts],
    }


@contextlib.contextmanager
def rabbitmq_node(
    under: Path | None = None,
    *,
    plugins: Sequence[str] = (),
    certificate: Path | None = None,
    flags: Sequence[str] = (),
    client_ca: Path | None = None,
    vhosts: Sequence[str] = (),
) -> Iterator[RabbitmqNode]:
    """Run a node with its data in `under` or a temporary folder; delete the data at the end.

    Raise RabbitmqMissing with remedies.
    """
    installation = find_installation()
    with tempfile.TemporaryDirectory(prefix="notifier-rabbitmq-", dir=under, ignore_cleanup_errors=True) as home:
        advanced = TELLS_SOON if "rabbitmq_management" in plugins else "[]."
        node = RabbitmqNode(
            Path(home),
            installation,
            advanced=advanced,
            plugins=plugins,
            certificate=certificate,
            flags=flags,
            client_ca=client_ca,
            vhosts=vhosts,
        )
        try:
            node.start()
            yield node
        finally:
            node.kill()
            node.stop()


def free_ports(count: int) -> list[int]:
    """Return free ports below the kernel's ephemeral range, so that no outgoing connection takes the port of a killed
    node.
    """
    found: list[int] = []
    while len(found) < count:
        port = random.SystemRandom().randrange(15_000, 32_000)  # hypothesis seeds the other equally in every process
        with contextlib.suppress(OSError), socket.socket() as free:
            free.bind(("127.0.0.1", port))
            found += [] if port in found else [port]
    return found


def _guard(leader: int) -> subprocess.Popen[bytes]:
    """Kill the process group if this process dies: the guard waits for the end of a pipe held only by this process."""
    script = 'cat >/dev/null; kill -KILL "-$0"'
    return subprocess.Popen(
        ["/bin/sh", "-c", script, str(leader)], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )


def _end(process: subprocess.Popen[bytes], sign: signal.Signals) -> None:
    """Signal the whole group of `process`; kill the processes that remain after 20 s."""
    for each in (sign, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, each)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
            if each is signal.SIGKILL:
                return
