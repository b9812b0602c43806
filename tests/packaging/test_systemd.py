"""The unit of systemd: as closed as a network service can be, and with time enough to drain."""

import configparser
import re
import subprocess
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
    """The check before the start and the one before a reload request no other server, as a start needs none."""
    checks = [line for line in UNIT.read_text().splitlines() if "notifier check" in line]
    assert [line.partition("=")[0] for line in checks] == ["ExecStartPre", "ExecReload"]
    assert all("check --offline -c" in line for line in checks)


def test_it_waits_for_the_drain() -> None:
    """SIGTERM first, and SIGKILL only after the default of `shutdown_grace`, with ten seconds to spare."""
    service = unit()["Service"]
    assert service["KillSignal"] == "SIGTERM"
    assert float(service["TimeoutStopSec"]) >= Settings.model_fields["shutdown_grace"].default + 10
