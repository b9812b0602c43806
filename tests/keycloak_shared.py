"""One Keycloak for a whole run, whichever process of it asks first: a start takes 20 s and as many of a core.

It has our plug-in, which leaves all realms alone but those of `PLUGGED`, and looks for RabbitMQ where nobody is until
a test leads `broker_port` to its own. A process of its own keeps it, and ends it once the last who used it is gone,
however: each holds a lock that the kernel takes away from the dead.

    with shared_keycloak(folder_of_the_run) as shared: shared.keycloak.admin("POST", "", realm)
"""

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.apt_programs import ProgramMissing
from tests.keycloak_installation import (
    SIGNALS,
    KeycloakMissing,
    features,
    find_keycloak_with,
    keycloak_version,
    required,
)
from tests.keycloak_server import Keycloak, KeycloakServer
from tests.made_whole import alone
from tests.publishers.keycloak.plugin import plugin_jar
from tests.publishers.keycloak.plugin_settings import plugin_options, plugin_settings
from tests.rabbitmq_node import free_ports

PLUGGED = ("shop-plugged", "brief", "doomed")
"""The realms whose endings the plug-in tells."""
PREFIX = "test-shared-keycloak"
PATIENCE = 900.0  # seconds: at the first time on a machine Keycloak is got and built, beside other tests


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedKeycloak:
    """It answers. Each test has realms of its own."""

    keycloak: Keycloak
    broker_port: int


def folder_of_the_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for all processes of a run, and for no other run."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@contextlib.contextmanager
def shared_keycloak(folder: Path) -> Iterator[SharedKeycloak]:
    """Started if nobody has. Skips the test where it cannot be had, or fails it where it must be."""
    home = folder / "keycloak-shared"
    home.mkdir(exist_ok=True)
    with (home / "used").open("w") as used:
        with alone(home / "start"):
            fcntl.flock(used, fcntl.LOCK_SH)
            said = _said(home)
        assert "failed" not in said, said["failed"]
        if "missing" in said:
            (pytest.fail if required() else pytest.skip)(said["missing"])
        keycloak = Keycloak(said["port"], said["management"], home / "keycloak.log", signals=said["signals"])
        yield SharedKeycloak(keycloak=keycloak, broker_port=said["broker_port"])


def _said(home: Path) -> dict[str, Any]:
    """What its keeper says of it, once there is one."""
    said = home / "said.json"
    if not said.exists():
        start = ["sh", "-c", 'exec "$@" >keeper.log 2>&1 &', "sh", sys.executable, "-m", "tests.keycloak_shared", "."]
        here = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        subprocess.run(start, cwd=home, env=here, check=True, stdin=subprocess.DEVNULL, start_new_session=True)
        until = time.monotonic() + PATIENCE
        while not said.exists():
            assert time.monotonic() < until, f"Keycloak's keeper is silent: {(home / 'keeper.log').read_text()[-3000:]}"
            time.sleep(0.1)
    return dict(json.loads(said.read_text()))


def keep(home: Path) -> None:
    """Start it, say where it is, and end it when nobody uses it any more."""
    said, part = home / "said.json", home / "said.part"
    with contextlib.ExitStack() as stack:
        try:
            about = _started(home, stack)
        except (KeycloakMissing, ProgramMissing) as missing:
            about = {"missing": str(missing)}
        except Exception:  # noqa: BLE001  whoever waits is told
            about = {"failed": traceback.format_exc()}
        part.write_text(json.dumps(about))
        part.rename(said)
        with (home / "used").open("w") as used:
            fcntl.flock(used, fcntl.LOCK_EX)
            said.unlink()  # whoever comes now starts another


def _started(home: Path, stack: contextlib.ExitStack) -> dict[str, Any]:
    version = keycloak_version()
    built = find_keycloak_with(plugin_jar(), version, "--db=dev-mem", "--metrics-enabled=true", *features(version))
    [broker_port] = free_ports(1)
    url = f"amqp://guest:guest@127.0.0.1:{broker_port}/"
    settings = plugin_settings(url, PREFIX, home, include_client_metadata="true", realms=",".join(PLUGGED))
    options = ("--log-level=warn,dev.notifier:info", *plugin_options(settings))
    server = KeycloakServer(home, built, options=options, signals=version in SIGNALS)
    stack.callback(server.kill)
    server.start()
    server.wait()
    return {
        "port": server.port, "management": server.management, "signals": server.signals, "broker_port": broker_port,
    }  # fmt: skip


if __name__ == "__main__":
    keep(Path(sys.argv[1]).resolve())
