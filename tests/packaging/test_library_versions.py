"""The libraries whose internals notifier uses: with each version that was tried every hook is in use.

A version is installed into a folder, and a process examines it. Left out where no package index answers, unless
NOTIFIER_TEST_LIBRARIES=required.
"""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from notifier.network.http.aiohttp_hooks import TRIED_VERSIONS
from notifier.queues.rabbitmq.wire.aiormq_hooks import TRIED_AIORMQ, TRIED_PAMQP
from tests.support.installing import InstallFailed, run_installer

ROOT = Path(__file__).parents[2]
VERSIONS = {
    "aiohttp": (*(f"3.13.{patch}" for patch in range(6)), *(f"3.14.{patch}" for patch in range(6))),
    "aiormq": ("7.2.0", "7.2.1", "7.2.2", "7.2.3", "7.2.4"),
    "pamqp": ("4.0.0", "4.0.1"),
}
LOOK = """
from importlib.metadata import version
from notifier.network.http.aiohttp_hooks import examine_aiohttp
from notifier.queues.rabbitmq.wire.aiormq_hooks import install
hooks = [*examine_aiohttp().values(), *install().values()]
print(version("{library}"), [hook.reason for hook in hooks if hook.difference])
"""


PAIRS = [(library, version) for library, versions in VERSIONS.items() for version in versions]


def test_a_worker_names_the_versions_that_were_tried() -> None:
    """They start at the lowest permitted version, and newer ones are permitted up to the next major version."""
    allowed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    tried = {"aiohttp": TRIED_VERSIONS, "aiormq": TRIED_AIORMQ, "pamqp": TRIED_PAMQP}
    for library, versions in VERSIONS.items():
        assert tried[library] == f"{versions[0]} to {versions[-1]}"
        assert f"{library}>={versions[0].rpartition('.')[0]},<{int(versions[0][0]) + 1}" in allowed


@pytest.mark.parametrize(("library", "version"), PAIRS)
def test_a_version_fits(library: str, version: str, tmp_path: Path) -> None:
    """Installed before all others, in its own process. No hook is off."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    try:
        run_installer([*pip, "--no-deps", "--only-binary=:all:", f"--target={tmp_path}", f"{library}=={version}"])
    except InstallFailed as failed:
        if os.environ.get("NOTIFIER_TEST_LIBRARIES") == "required":
            raise
        pytest.skip(str(failed))
    done = subprocess.run(
        [sys.executable, "-c", LOOK.format(library=library)],
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}"}, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.stdout.strip(), done.stderr) == (f"{version} []", "")
