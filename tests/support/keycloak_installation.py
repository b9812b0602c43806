"""Where Keycloak is: a distribution of Maven Central, unpacked and built once, and kept for the next run.

    NOTIFIER_TEST_KEYCLOAK_VERSION=26.4.5 pytest tests/features/registries/test_keycloak_server.py

It is kept in /var/cache/notifier-tests, or in the user's own cache where that cannot be written. Java and Maven come by
apt if need be. The first time takes half a minute more. Another copy is built for each jar that goes into `providers/`.
"""

import contextlib
import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tests.support.apt_programs import ProgramMissing, program
from tests.support.installing import InstallFailed, run_installer
from tests.support.made_whole import alone

NEWEST = "26.7.3"
DIGESTS = {
    "26.7.3": "77657f30b7e90d70f727712ce1c967f430fd6a5e9f458d32d8c6df0635345f47",
    "26.5.6": "fa3dd5df90b9ac006712c2f0991be4e8a6cb30ac538e0439ce2f45fc40f4c692",
    "26.4.5": "74fed80ab67607c86995824ad4b965f53cca0a706e2aeded45e173d3ccb0b24d",
}
"""SHA-256 of the archive of each version that is tried."""
SIGNALS = ("26.7.3",)
"""The versions that can be a transmitter of Shared Signals: an experimental feature, which is built in."""
PLACES = (Path("/var/cache/notifier-tests"), Path.home() / ".cache/notifier-tests")
JDK = "default-jdk-headless"
OLD = 86_400.0  # seconds: after this time unused, a copy with an added jar is deleted


class KeycloakMissing(Exception):  # noqa: N818  a state of the machine; the text says what is missing
    """Keycloak, Java or Maven cannot be installed here."""


def required() -> bool:
    """Return whether the tests must run rather than be skipped."""
    return os.environ.get("NOTIFIER_TEST_KEYCLOAK") == "required"


def environment(home: Path) -> Mapping[str, str]:
    """Return the environment for Keycloak's programs. They may write to `home`."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "JAVA_HOME")}
    return {**kept, "HOME": str(home), "LANG": "C.UTF-8"}


def keycloak_version() -> str:
    """Return the version under test."""
    return os.environ.get("NOTIFIER_TEST_KEYCLOAK_VERSION", NEWEST)


def find_keycloak(version: str | None = None) -> Path:
    """Return Keycloak's folder, created if missing. `version`: default is the version under test. Raise
    KeycloakMissing.
    """
    version = version or keycloak_version()
    with _translated(version):
        found = _stock(version)
        return _kept(found, lambda: _make(found, version, None, ("--db=dev-mem", *features(version))))


def find_keycloak_with(jar: Path | None, version: str, *options: str) -> Path:
    """Return a copy with this jar, if any, in `providers/`, built with these options of `kc.sh build`. Raise
    KeycloakMissing.
    """
    with _translated(version):
        digest = hashlib.sha256((jar.read_bytes() if jar else b"") + "\0".join(options).encode()).hexdigest()
        found = cache() / f"keycloak-{version}-jar-{digest[:12]}"
        _kept(found, lambda: _make(found, version, jar, options))
        found.touch()
        return found


def features(version: str) -> Sequence[str]:
    """Return the feature options of `kc.sh build`."""
    return ["--features=ssf"] if version in SIGNALS else []


def _stock(version: str) -> Path:
    return cache() / (f"keycloak-{version}-ssf" if version in SIGNALS else f"keycloak-{version}")


@contextlib.contextmanager
def _translated(version: str) -> Iterator[None]:
    if version not in DIGESTS:
        raise KeycloakMissing(f"Keycloak {version} is not one of {', '.join(DIGESTS)}")
    try:
        _check_java(program("java", JDK))
        yield
    except (ProgramMissing, InstallFailed) as missing:
        raise KeycloakMissing(str(missing)) from None
    except (OSError, subprocess.SubprocessError) as error:
        raise KeycloakMissing(f"Keycloak {version} cannot be had: {error}") from None


def _kept(found: Path, make: Callable[[], None]) -> Path:
    """Return the folder, created by a single process if missing."""
    if not found.exists():
        with alone(found):
            if not found.exists():
                make()
    return found


def _check_java(java: str) -> None:
    output = subprocess.run([java, "-XshowSettings:properties", "-version"], capture_output=True, text=True, check=True)
    words = next(line for line in output.stderr.splitlines() if "java.specification.version =" in line)
    version = words.rpartition("= ")[2]
    if not version.isdigit() or int(version) < 17:  # 1.8 is Java 8
        raise KeycloakMissing(f"Keycloak needs Java 17 or newer; {java} is {version}")


def cache() -> Path:
    """Return the first writable cache folder."""
    for place in PLACES:
        with contextlib.suppress(OSError):
            place.mkdir(parents=True, exist_ok=True)
            if os.access(place, os.W_OK):
                return place
    raise KeycloakMissing(f"neither {' nor '.join(map(str, PLACES))} can be written")


def _make(found: Path, version: str, jar: Path | None, options: Sequence[str]) -> None:
    """Build in a temporary folder and move it into place when complete, so that a partial copy is never used.

    Copy the installation without a jar if it exists, otherwise unpack: `build` writes into the existing files.
    """
    if jar:
        _forget(found)
    with tempfile.TemporaryDirectory(prefix=f"{found.name}.", dir=found.parent, ignore_cleanup_errors=True) as part:
        made = Path(part, f"keycloak-{version}")
        if _stock(version).exists():
            shutil.copytree(_stock(version), made, symlinks=True)
        else:
            _unpack(Path(part), version)
        if jar:
            shutil.copy(jar, made / "providers")
        run_installer([made / "bin/kc.sh", "build", *options], env=environment(Path(part)))
        made.rename(found)


def _forget(found: Path) -> None:
    """Delete unused copies with other jars."""
    for other in found.parent.glob(f"{found.name.rpartition('-')[0]}-*"):
        if other.is_dir() and time.time() - other.stat().st_mtime > OLD:
            shutil.rmtree(other, ignore_errors=True)


def _unpack(folder: Path, version: str) -> None:
    """Unpack the distribution that Maven downloads."""
    maven = [program("mvn", "maven"), "-q", "-B", f"-Dmaven.repo.local={folder / 'maven'}"]
    what = f"-Dartifact=org.keycloak:keycloak-quarkus-dist:{version}:tar.gz"
    run_installer([*maven, "dependency:copy", what, f"-DoutputDirectory={folder}"])
    archive = folder / f"keycloak-quarkus-dist-{version}.tar.gz"
    if hashlib.sha256(archive.read_bytes()).hexdigest() != DIGESTS[version]:
        raise KeycloakMissing(f"what Maven got is not Keycloak {version} as it was tried: another SHA-256")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
