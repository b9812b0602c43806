"""The plug-in for Keycloak: built by Maven once for each state of its sources, and kept.

The first build on a machine gets some 60 MB from Maven Central; they are kept too.
"""

from pathlib import Path

from publishers.tests.maven import PUBLISHERS, copied_sources, run_maven, sources_digest
from tests.support.keycloak_installation import cache
from tests.support.made_whole import alone

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
    place, digest = cache(), sources_digest(MODULES)
    jar, report = place / f"notifier-keycloak-{digest}.jar", place / f"notifier-keycloak-tests-{digest}.txt"
    with alone(place / "notifier-keycloak"):
        if not (jar.exists() and report.exists()):
            _make(jar, report)
    return jar, report


def _make(jar: Path, report: Path) -> None:
    """Build both; moved to their places when whole. A unit test that fails holds up no other test."""
    with copied_sources(MODULES, jar.parent / "notifier-keycloak") as copy:
        printed = run_maven(copy, jar.parent / "maven-keycloak", "-Dmaven.test.failure.ignore=true", "package")
        [made] = copy.glob("keycloak/target/notifier-keycloak-*.jar")
        made.rename(jar)
        (copy / "report").write_text(printed)
        (copy / "report").rename(report)
