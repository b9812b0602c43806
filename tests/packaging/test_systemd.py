"""The units of systemd: as closed as a network service can be, with time enough to drain, and run by systemd."""

import configparser
import hashlib
import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from notifier.settings.service_settings import Settings
from tests.support.apt_programs import program
from tests.support.systemd_machine import Machine, SystemdMissing, systemd_machine
from tests.tokens.key_folder import ISS, pem

UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "notifier.service"
TEMPLATE = UNIT.with_name("notifier@.service")
PAGE = UNIT.parents[2] / "docs/operating.md"


def unit() -> configparser.ConfigParser:
    """It, of each setting that is given more than once the last."""
    parsed = configparser.ConfigParser(strict=False, interpolation=None)
    parsed.optionxform = str  # type: ignore[assignment,method-assign]  # keys as they are written
    parsed.read_string(UNIT.read_text())
    return parsed


def settings(file: Path) -> list[str]:
    """The lines of a unit without comments."""
    return [line for line in file.read_text().splitlines() if line and not line.startswith("#")]


def test_the_template_differs_only_where_workers_do() -> None:
    """In its name and folder, in a file of its own settings, and in the credentials, which have one path for all."""
    plain, template = settings(UNIT), settings(TEMPLATE)
    assert [line for line in template if line not in plain] == [
        "Description=notifier, worker %i of this machine, delivers OpenID Connect Back-Channel Logout",
        "EnvironmentFile=/etc/notifier/%i.env",
        "BindReadOnlyPaths=%d:/run/credentials/notifier.service",
        "StateDirectory=notifier-%i",
        "WorkingDirectory=/var/lib/notifier-%i",
    ]
    assert [line.partition("=")[0] for line in plain if line not in template] == [
        "Description",
        "StateDirectory",
        "WorkingDirectory",
    ]


@pytest.mark.parametrize("file", [UNIT, TEMPLATE])
def test_its_exposure_is_below_two(file: Path) -> None:
    """By `systemd-analyze security`, out of ten; most services of a distribution have nine."""
    command = [program("systemd-analyze", "systemd"), "security", "--offline=true", str(file)]
    output = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    found = re.search(r"Overall exposure level for notifier(?:@i)?\.service: ([\d.]+)", output)
    assert found is not None, output
    assert float(found[1]) < 2


@pytest.mark.parametrize("file", [UNIT, TEMPLATE])
def test_every_setting_is_one_that_systemd_knows(file: Path) -> None:
    """A misspelt one would be ignored with a line in the journal, and protect nobody."""
    command = [program("systemd-analyze", "systemd"), "verify", "--man=no", str(file)]
    output = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stderr
    lines = [line for line in output.splitlines() if re.search(r"notifier(@\w*)?\.service:", line)]
    assert [line for line in lines if "not executable" not in line] == []


def test_it_starts_while_a_registry_source_is_unavailable() -> None:
    """The check before the start requests no other server, as a start needs none."""
    checks = [line for line in UNIT.read_text().splitlines() if "notifier check" in line]
    assert [line.partition("=")[0] for line in checks] == ["ExecStartPre"]
    assert all("check --offline -c" in line for line in checks)


def test_a_reload_needs_no_credentials() -> None:
    """systemd does not show them to its commands, so a check of the configuration there would always fail."""
    commands = [line.partition("=")[2] for line in UNIT.read_text().splitlines() if line.startswith("ExecReload=")]
    receiver = "import signal; print('up', flush=True); signal.sigwait([signal.SIGHUP])"
    blocked = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP]); " + receiver
    with subprocess.Popen([sys.executable, "-c", blocked], stdout=subprocess.PIPE) as worker:
        try:
            assert worker.stdout is not None
            worker.stdout.readline()
            for command in commands:
                subprocess.run(["/bin/sh", "-c", command], env={"MAINPID": str(worker.pid)}, timeout=60, check=True)
            assert worker.wait(60) == 0
        finally:
            worker.kill()


def test_it_waits_for_the_drain() -> None:
    """SIGTERM first, and SIGKILL only after the default of `shutdown_grace`, with ten seconds to spare."""
    service = unit()["Service"]
    assert service["KillSignal"] == "SIGTERM"
    assert float(service["TimeoutStopSec"]) >= Settings.model_fields["shutdown_grace"].default + 10


TO_A_FILE = "[Service]\nStandardOutput=append:/run/log.%n\nStandardError=append:/run/log.%n\n"
SECRETS = "/run/credentials/notifier.service/secrets_"


def free_port() -> int:
    """A port of loopback that nothing has."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def token_line(token: str) -> str:
    """A file of tokens with this one, which may read."""
    digest = hashlib.sha256(token.encode()).hexdigest()
    return yaml.safe_dump([{"name": "operator", "token_sha256": digest, "scopes": ["read"]}])


def status_of(port: int, path: str, token: str = "") -> int:
    """The status of a GET; 0 if nothing answers."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    asked = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Authorization": f"Bearer {token}"})
    try:
        with opener.open(asked, timeout=10) as answer:
            status: int = answer.status
            return status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def unit_of_a_command() -> str:
    """Return the unit that the page's `systemd-run` makes. It needs a bus, which this machine does not have."""
    [command] = re.findall(r"^systemd-run .*?\n```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    words = shlex.split(command.removesuffix("```").replace("\\\n", " "))
    properties = [value for option, value in pairwise(words) if option == "-p"]
    program = shlex.join(words[words.index(properties[-1]) + 1 :])
    lines = ["[Service]", "Type=oneshot", f"ExecStart={program}", "StandardOutput=file:/run/printed", *properties]
    return "\n".join(lines)


def until(condition: Callable[[], bool], machine: Machine) -> None:
    """Wait until the condition holds, for a minute at most."""
    end = time.monotonic() + 60
    while not condition():
        said = machine.run("sh", "-c", "tail -n 5 /run/log.*; systemctl --no-pager status 'notifier*'", check=False)
        assert time.monotonic() < end, said.stdout + said.stderr


@pytest.mark.full
@pytest.mark.timeout(600)
def test_systemd_runs_workers_beside_each_other(tmp_path: Path, amqp_url: str, prefix: str) -> None:
    """As process 1: it starts two, reloads one by SIGHUP, passes changed credentials at a restart, and stops them."""
    ports = {name: {"OPS": free_port(), "API": free_port()} for name in ("a", "b", "plain")}
    config = {
        "queue": {"url": amqp_url, "prefix": prefix},
        "ops": {"listen": f"127.0.0.1:{ports['plain']['OPS']}"},
        "api": {"listen": f"127.0.0.1:{ports['plain']['API']}", "tokens_file": f"{SECRETS}tokens.yaml"},
        "issuers": {ISS: {"keys": [{"file": f"{SECRETS}key.pem"}]}},
        "registry": {"file": "clients.yaml"},
    }
    etc = {
        "notifier/notifier.yaml": yaml.safe_dump(config),
        "notifier/clients.yaml": "[]",
        "notifier/secrets/key.pem": pem("ES256").decode(),
        "notifier/secrets/tokens.yaml": token_line("first"),
        "systemd/system/command.service": unit_of_a_command(),
        "systemd/system/check.service": unit_of_a_command().replace(" status ", " check "),
        **{f"systemd/system/{file.name}": file.read_text() for file in (UNIT, TEMPLATE)},
        **{f"systemd/system/{file.name}.d/log.conf": TO_A_FILE for file in (UNIT, TEMPLATE)},
        **{
            f"notifier/{name}.env": "".join(f"NOTIFIER_{part}__LISTEN=127.0.0.1:{port}\n" for part, port in own.items())
            for name, own in ports.items()
        },
    }
    try:
        with systemd_machine(tmp_path, etc) as machine:
            machine.run("chmod", "-R", "go=", "/etc/notifier/secrets")
            machine.run("systemctl", "start", "notifier@a", "notifier@b", "notifier")
            for own in ports.values():
                until(lambda port=own["OPS"]: status_of(port, "/readyz") == 200, machine)  # type: ignore[misc]
                until(lambda port=own["API"]: status_of(port, "/v1/status", "first") == 200, machine)  # type: ignore[misc]
            assert len({machine.show(f"notifier@{name}", "MainPID") for name in "ab"}) == 2
            (machine.etc / "notifier/clients.yaml").write_text("[{client_id: shop}]")
            machine.run("systemctl", "reload", "notifier@a")
            until(lambda: '"reloaded"' in machine.run("cat", "/run/log.notifier@a.service").stdout, machine)
            (machine.etc / "notifier/secrets/tokens.yaml").write_text(token_line("second"))
            machine.run("systemctl", "restart", "notifier@b", "notifier")
            for name in ("b", "plain"):
                until(lambda port=ports[name]["API"]: status_of(port, "/v1/status", "second") == 200, machine)  # type: ignore[misc]
            assert status_of(ports["b"]["API"], "/v1/status", "first") == 401
            assert status_of(ports["a"]["API"], "/v1/status", "first") == 200  # not restarted
            machine.run("systemctl", "start", "command")
            assert "3 of 3 workers answered" in machine.run("cat", "/run/printed").stdout
            machine.run("systemctl", "stop", "notifier@a", "notifier@b", "notifier")
            machine.run("systemctl", "start", "check")
            for each in ("notifier@a", "notifier@b", "notifier"):
                assert machine.show(each, "Result") == "success"
    except SystemdMissing as missing:
        pytest.skip(str(missing))
