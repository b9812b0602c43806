"""The starter for Spring Authorization Server, and its sample server: built by Maven, once for each state of sources.

    NOTIFIER_TEST_SPRING_BOOT=3.5 pytest publishers/conformance --publisher spring

The first build on a machine gets some 200 MB from Maven Central; they are kept.
"""

import os
from pathlib import Path

from publishers.tests.maven import PUBLISHERS, copied_sources, run_maven, sources_digest
from tests.support.apt_programs import program
from tests.support.keycloak_installation import cache
from tests.support.made_whole import alone

SOURCES = PUBLISHERS / "spring"
MODULES = ("java-core", "spring")
COPIED = (*MODULES, "keycloak")
"""The parent's pom.xml names all."""
BOOTS = ("4.1", "4.0", "3.5")
"""The lines of Spring Boot for which the sample server is built. The starter's jar is the same for all."""
TESTING = 1800.0  # seconds
BUILT = ("-pl", "java-core,spring,spring/sample")


def boot_under_test() -> str:
    """Return the line of Spring Boot under test."""
    return os.environ.get("NOTIFIER_TEST_SPRING_BOOT", BOOTS[0])


def starter_jar() -> Path:
    """Return the starter's jar of the current sources."""
    return _built(boot_under_test())[0]


def sample_jar(boot: str) -> Path:
    """Return the sample server's jar, which contains the starter."""
    return _built(boot)[1]


def unit_tests_report(boot: str) -> str:
    """Run the starter's tests on this line of Spring Boot. Return Maven's output."""
    program("redis-server", "redis-server")  # without it some are skipped
    with alone(cache() / "notifier-spring"), copied_sources(COPIED, cache() / "notifier-spring") as copy:
        words = ("-Dmaven.test.failure.ignore=true", f"-Dboot={boot}", "verify")
        return run_maven(copy, cache() / "maven-spring", *BUILT, *words, seconds=TESTING)


def _built(boot: str) -> tuple[Path, Path]:
    place, digest = cache(), sources_digest(MODULES)
    starter, sample = (place / f"notifier-spring-{name}-{digest}.jar" for name in ("starter", boot))
    if starter.exists() and sample.exists():
        return starter, sample  # without waiting for the unit tests, which hold the lock for minutes
    with alone(place / "notifier-spring"):
        if not (starter.exists() and sample.exists()):
            with copied_sources(COPIED, place / "notifier-spring") as copy:
                run_maven(copy, place / "maven-spring", *BUILT, "-DskipTests", f"-Dboot={boot}", "package")
                [made] = (copy / "spring/target").glob("notifier-spring-boot-starter-*.jar")
                made.rename(starter)
                (copy / f"spring/sample/target/{boot}/notifier-spring-sample-{boot}.jar").rename(sample)
    return starter, sample
