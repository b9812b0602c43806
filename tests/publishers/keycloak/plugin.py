"""The plug-in for Keycloak: built by Maven once for each state of its sources, and kept.

Maven comes by apt if need be. The first build on a machine gets some 60 MB from Maven Central; they are kept too.
"""

import hashlib
import shutil
import tempfile
from pathlib import Path

from tests.apt_programs import program
from tests.installing import run_installer
from tests.keycloak_installation import cache
from tests.made_whole import alone

SOURCES = Path(__file__).parents[3] / "publishers/keycloak"


def plugin_jar() -> Path:
    """The jar for Keycloak's `providers/`, of the sources as they are."""
    return _made("notifier-keycloak", ".jar", ["-DskipTests", "package"], "target/notifier-keycloak-*.jar")


def unit_tests_report() -> str:
    """What Maven says of the unit tests. An AssertionError if one fails."""
    return _made("notifier-keycloak-tests", ".txt", ["test"], None).read_text()


def _made(name: str, ending: str, goals: list[str], result: str | None) -> Path:
    """Another state of the sources, another file."""
    place = cache()
    kept = place / f"{name}-{_digest()}{ending}"
    with alone(place / name):
        if not kept.exists():
            _make(kept, goals, result)
    return kept


def _make(kept: Path, goals: list[str], result: str | None) -> None:
    """In a copy of the sources; moved to its place when whole."""
    with tempfile.TemporaryDirectory(prefix="notifier-keycloak.", dir=kept.parent, ignore_cleanup_errors=True) as part:
        copy = Path(part, "keycloak")
        shutil.copytree(SOURCES, copy, ignore=shutil.ignore_patterns("target"))
        maven = [program("mvn", "maven"), "-B", "-ntp", f"-Dmaven.repo.local={kept.parent / 'maven-keycloak'}"]
        printed = run_installer([*maven, *goals], cwd=copy)
        whole = Path(part, "whole")
        if result is None:
            whole.write_text(printed)
        else:
            [made] = copy.glob(result)
            shutil.copy(made, whole)
        whole.rename(kept)


def _digest() -> str:
    digest = hashlib.sha256()
    for path in [SOURCES / "pom.xml", *sorted((SOURCES / "src").rglob("*"))]:
        if path.is_file():
            digest.update(f"{path.relative_to(SOURCES)}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
