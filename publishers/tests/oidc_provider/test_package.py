"""The package's own tests and types, run by Node as a contributor runs them, with a real broker and a real Redis."""

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from publishers.tests.oidc_provider.installed import NODE, NPM, PACKAGE, npm_folder, packed_files

pytestmark = pytest.mark.full
PATIENCE = 120.0
OWN = ("src", "test", "index.d.ts", "package.json", "tsconfig.json", "README.md")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package with its tests, as in a clone after `npm ci`."""
    folder = tmp_path_factory.mktemp("clone") / "oidc-provider"
    folder.mkdir()
    for name in OWN:
        copy = shutil.copytree if (PACKAGE / name).is_dir() else shutil.copyfile
        copy(PACKAGE / name, folder / name)
    (folder / "node_modules").symlink_to(npm_folder() / "node_modules")
    return folder


def run(folder: Path, *command: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(NODE), *command],
        cwd=folder,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


NAMES = sorted(path.name for path in (PACKAGE / "test").glob("*.test.js"))


@pytest.mark.parametrize("name", NAMES)
def test_the_tests_of_the_package_pass(name: str, package: Path, amqp_url: str, redis: str) -> None:
    """None is left out: broker and Redis are there."""
    done = run(
        package,
        *("--test", "--test-reporter=tap", f"test/{name}"),
        environment={"AMQP_URL": amqp_url.rstrip("/"), "REDIS_URL": redis},
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    left_out = [line for line in done.stdout.splitlines() if "# SKIP" in line and "only root" not in line]
    assert left_out == []


def test_the_types_hold(package: Path) -> None:
    """The code against its own types, and a program in TypeScript against what npm gives it, for both versions."""
    done = run(package, "node_modules/typescript/bin/tsc", "--project", str(package))
    assert done.returncode == 0, done.stdout
    with consumer() as folder:
        done = run(folder, "node_modules/typescript/bin/tsc", "--project", str(folder))
        assert done.returncode == 0, done.stdout


@contextlib.contextmanager
def consumer() -> Iterator[Path]:
    """A project in TypeScript that uses the package."""
    folder = npm_folder() / f"consumer-{os.getpid()}"
    shutil.copytree(Path(__file__).parent / "consumer", folder)
    (folder / "node_modules").symlink_to(npm_folder() / "node_modules")
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def test_npm_packs_what_the_tests_install(package: Path, tmp_path: Path) -> None:
    """Without tests and settings of ours; and its version is notifier's."""
    done = run(package, str(NPM), "pack", "--dry-run", "--json", environment={"npm_config_cache": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    (packed,) = json.loads(done.stdout)
    assert {file["path"] for file in packed["files"]} == {str(path.relative_to(PACKAGE)) for path in packed_files()}
