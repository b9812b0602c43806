"""The plug-in for Keycloak: built by Maven once for each state of its sources, and kept.

Maven comes by apt if need be. The first build on a machine gets some 60 MB from Maven Central; they are kept too.
"""

import hashlib
import shutil
import tempfile
from pathlib import Path

from tests.support.apt_programs import program
from tests.support.installing import run_installer
from tests.support.keycloak_installation import cache
from tests.support.made_whole import alone

PUBLISHERS = Path(__file__).parents[3] / "publishers"
SOURCES = PUBLISHERS / "keycloak"
MODULES = ("java-core", "keycloak")
"""The jar contains both."""


def plugin_jar() -> Path:
    """The jar for Keycloak's `providers/`, of the sources as they are."""
    return _built()[0]


def unit_tests_report() -> str:
    """Return Maven's report of the unit tests from the build of the jar."""
    return _built()[1].read_text()


def _built() -> tuple[Path, Path]:
    """By one run of Maven. Another state of the sources, other files."""
    place, digest = cache(), _digest()
    jar, report = place / f"notifier-keycloak-{digest}.jar", place / f"notifier-keycloak-tests-{digest}.txt"
    with alone(place / "notifier-keycloak"):
        if not (jar.exists() and report.exists()):
            _make(jar, report)
    return jar, report


def _make(jar: Path, report: Path) -> None:
    """In a copy of the sources; moved to their places when whole. A unit test that fails holds up no other test."""
    with tempfile.TemporaryDirectory(prefix="notifier-keycloak.", dir=jar.parent, ignore_cleanup_errors=True) as part:
        copy = Path(part, "publishers")
        for module in MODULES:
            shutil.copytree(PUBLISHERS / module, copy / module, ignore=shutil.ignore_patterns("target"))
        shutil.copy(PUBLISHERS / "pom.xml", copy)
        maven = [program("mvn", "maven"), "-B", "-ntp", f"-Dmaven.repo.local={jar.parent / 'maven-keycloak'}"]
        printed = run_installer([*maven, "-Dmaven.test.failure.ignore=true", "package"], cwd=copy)
        [made] = copy.glob("keycloak/target/notifier-keycloak-*.jar")
        made.rename(jar)
        (copy / "report").write_text(printed)
        (copy / "report").rename(report)


def _digest() -> str:
    digest = hashlib.sha256()
    sources = (path for module in MODULES for path in sorted((PUBLISHERS / module / "src").rglob("*")))
    for path in [PUBLISHERS / "pom.xml", *(PUBLISHERS / module / "pom.xml" for module in MODULES), *sources]:
        if path.is_file():
            digest.update(f"{path.relative_to(PUBLISHERS)}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
