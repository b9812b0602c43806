"""The contract and the HTTP transport's tests with the newest versions that `pyproject.toml` allows, and without hooks.

They are installed into a folder that stands before the environment. Which hooks are in use is printed and not judged:
the tests must pass by the public ways too. Left out where no package index answers, unless
NOTIFIER_TEST_LIBRARIES=required.
"""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.installing import InstallFailed, run_installer

ROOT = Path(__file__).parents[2]
LIBRARIES = ("aio-pika", "aiohttp", "aiormq", "pamqp")
SECONDS = 1200
LOOK = f"""
from importlib.metadata import version
from notifier.network.http.aiohttp_hooks import examine_aiohttp
from notifier.queues.rabbitmq.wire.aiormq_hooks import install
print(*(f"{{name}} {{version(name)}}" for name in {LIBRARIES}), sep=", ")
for hook in (*examine_aiohttp().values(), *install().values()):
    print("hook", hook.name, "is in use" if hook.difference is None else f"is off: {{hook.reason}}")
"""


@pytest.fixture(scope="module")
def newest(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the environment of a process that imports them and their dependencies first."""
    folder = tmp_path_factory.mktemp("newest")
    allowed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    wanted = [each for each in allowed if each.partition(">")[0] in LIBRARIES]
    assert len(wanted) == len(LIBRARIES)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--upgrade"]
    try:
        run_installer([*pip, "--only-binary=:all:", f"--target={folder}", *wanted])
    except InstallFailed as failed:
        if os.environ.get("NOTIFIER_TEST_LIBRARIES") == "required":
            raise
        pytest.skip(str(failed))
    outer = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return {**outer, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize("hooks", ["on", "off"])
def test_the_contract_and_the_transport_pass(newest: dict[str, str], hooks: str) -> None:
    """By the hooks that fit and the public ways for the rest; and by the public ways alone."""
    newest = {**newest, "NOTIFIER_TEST_HOOKS": hooks}
    look = subprocess.run(
        [sys.executable, "-c", LOOK], env=newest, cwd=ROOT, capture_output=True, text=True, check=True
    )
    print(look.stdout)  # noqa: T201  `pytest -s`, and the report of a failure
    words = ["-m", "pytest", "-q", "tests/contract", "tests/network/http", "-k", "not sqlite", "-m", "not alone"]
    words += ["--ignore=tests/network/http/test_http_hooks.py", "--numprocesses", "2", "--dist", "loadfile"]
    done = subprocess.run([sys.executable, *words], env=newest, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:]
