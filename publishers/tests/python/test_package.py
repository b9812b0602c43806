"""The package stands alone: what it imports it asks for, and what pip installs is the package and nothing else."""

import ast
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from publishers.tests.python.server_process import ROOT

PACKAGE = ROOT / "publishers/python"
SOURCE = PACKAGE / "src/logout_notifier_publisher"
OPTIONAL = {"cryptography", "django", "aiohttp"}  # by the extras django and http
COLLECTOR = "prometheus_client"  # whoever shows metrics has it


def imported(path: Path) -> set[str]:
    """The names of all that a module imports, wherever in it, without those of Python itself."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module))
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {SOURCE.name}


def test_dependencies_match_the_imports() -> None:
    """And for no more: nothing of the service, and Django and the client for HTTP only where they are wanted."""
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = {line.partition(">")[0].lower() for line in project["dependencies"]}
    optional = {line.partition(">")[0].lower() for name in ("django", "http") for line in extras[name]}
    found = set().union(*(imported(path) for path in SOURCE.rglob("*.py")))
    assert (asked, optional) == (found - optional - {COLLECTOR}, OPTIONAL)


@pytest.mark.full
def test_a_wheel_holds_the_package_alone(tmp_path: Path) -> None:
    """With its types and its licence, as `make publishers` builds it."""
    made = shutil.copytree(PACKAGE, tmp_path / "python", ignore=shutil.ignore_patterns("*.egg-info", "build"))
    shutil.copy(ROOT / "LICENSE", made)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", tmp_path, made], check=True)
    [wheel] = tmp_path.glob("logout_notifier_publisher-*-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
    modules = {str(path.relative_to(SOURCE.parent)) for path in SOURCE.rglob("*") if path.suffix in (".py", ".typed")}
    assert {name for name in names if ".dist-info/" not in name} == modules
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
