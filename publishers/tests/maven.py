"""Builds packages in Java by Maven, in a copy of their sources.

Maven comes by apt if need be. The first build on a machine gets libraries from Maven Central; they are kept.
"""

import contextlib
import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.apt_programs import program
from tests.support.installing import SECONDS, run_installer

PUBLISHERS = Path(__file__).parents[2] / "publishers"


@contextlib.contextmanager
def copied_sources(modules: Sequence[str], kept: Path) -> Iterator[Path]:
    """A copy of these folders beside publishers/pom.xml, near `kept`, to which the caller moves what was built."""
    with tempfile.TemporaryDirectory(prefix=f"{kept.name}.", dir=kept.parent, ignore_cleanup_errors=True) as part:
        copy = Path(part, "publishers")
        for module in modules:
            shutil.copytree(PUBLISHERS / module, copy / module, ignore=shutil.ignore_patterns("target"))
        shutil.copy(PUBLISHERS / "pom.xml", copy)
        yield copy


def run_maven(copy: Path, repository: Path, *words: str, seconds: float = SECONDS) -> str:
    """Run Maven in the copy. Return its output. `repository`: where its libraries are kept."""
    maven = [program("mvn", "maven"), "-B", "-ntp", f"-Dmaven.repo.local={repository}"]
    return run_installer([*maven, *words], cwd=copy, seconds=seconds)


def passed_tests(report: str, *, modules: int) -> list[int]:
    """Return how many tests of each module passed. Fails with Maven's lines about the others."""
    passed = re.findall(r"^.*Tests run: (\d+), Failures: 0, Errors: 0, Skipped: 0$", report, re.MULTILINE)
    others = re.findall(r"^.*(?:ERROR|FAIL|Skipped: [1-9]).*$", report, re.MULTILINE)
    assert len(passed) == modules, "\n".join(["not all tests pass", *others[:60]])
    return [*map(int, passed)]


def sources_digest(modules: Sequence[str]) -> str:
    """Return a name for the state of the sources."""
    digest = hashlib.sha256()
    sources = (path for module in modules for path in sorted((PUBLISHERS / module).rglob("*")))
    for path in [PUBLISHERS / "pom.xml", *sources]:
        parts = path.relative_to(PUBLISHERS).parts
        if path.is_file() and (path.name == "pom.xml" or "src" in parts) and "target" not in parts:
            digest.update(f"{path.relative_to(PUBLISHERS)}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
