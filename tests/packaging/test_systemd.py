"""The unit of systemd: as closed as a network service can be, and with time enough to drain."""

import configparser
import re
import subprocess
import sys
from pathlib import Path

from notifier.settings.service_settings import Settings
from tests.support.apt_programs import program

UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "notifier.service"


def unit() -> configparser.ConfigParser:
    """It, of each setting that is given more than once the last."""
    parsed = configparser.ConfigParser(strict=False, interpolation=None)
    parsed.optionxform = str  # type: ignore[assignment,method-assign]  # keys as they are written
    parsed.read_string(UNIT.read_text())
    return parsed


def test_its_exposure_is_below_two() -> None:
    """By `systemd-analyze security`, out of ten; most services of a distribution have nine."""
    command = [program("systemd-analyze", "systemd"), "security", "--offline=true", str(UNIT)]
    output = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    found = re.search(r"Overall exposure level for notifier\.service: ([\d.]+)", output)
    assert found is not None, output
    assert float(found[1]) < 2


def test_every_setting_is_one_that_systemd_knows() -> None:
    """A misspelt one would be ignored with a line in the journal, and protect nobody."""
    command = [program("systemd-analyze", "systemd"), "verify", "--man=no", str(UNIT)]
    output = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stderr
    assert [line for line in output.splitlines() if "notifier.service:" in line and "not executable" not in line] == []


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
