"""Keycloaks that are not as the plug-in needs them: what it uses has another name, or another plug-in is there too."""

import os
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from publishers.tests.keycloak.plugin import plugin_jar
from tests.support.apt_programs import program
from tests.support.installing import run_installer
from tests.support.keycloak_installation import JDK, environment, find_keycloak

SERVICES = "META-INF/services"
STRANGER = """
package stranger;

public final class {name} extends {parent} {{
    @Override
    public int order() {{
        return 1_000;
    }}
}}
"""


def altered(
    folder: Path,
    version: str,
    build: Sequence[str],
    *,
    jars: Sequence[Path] = (),
    renamed: Mapping[str, str] | None = None,
) -> Path:
    """A copy with the plug-in and these jars. `renamed`: names in all classes, each by one of the same length."""
    made = folder / "altered"
    shutil.copytree(find_keycloak(version), made, symlinks=True)
    for jar in made.glob("lib/lib/main/org.keycloak.*.jar"):
        _rename(jar, {old.encode(): new.encode() for old, new in (renamed or {}).items()})
    for jar in (plugin_jar(), *jars):
        shutil.copy(jar, made / "providers")
    run_installer([made / "bin/kc.sh", "build", *build], env=environment(folder))
    return made


def _rename(jar: Path, renamed: Mapping[bytes, bytes]) -> None:
    with zipfile.ZipFile(jar) as packed:
        files = {name: packed.read(name) for name in packed.namelist()}
    if not any(old in content for old in renamed for content in files.values()):
        return
    for old, new in renamed.items():
        assert len(old) == len(new)
        files = {name.replace(old.decode(), new.decode()): text.replace(old, new) for name, text in files.items()}
    with zipfile.ZipFile(jar, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, text in files.items():
            packed.writestr(name, text)


def stands_before(folder: Path, version: str, service: str, parent: str) -> Path:
    """The jar of a plug-in whose factory of this service comes before all others."""
    sources, classes = folder / "stranger", folder / "classes"
    sources.mkdir()
    name = f"Before{parent.rpartition('.')[2]}"
    (sources / f"{name}.java").write_text(STRANGER.format(name=name, parent=parent))
    libraries = os.pathsep.join(map(str, find_keycloak(version).glob("lib/lib/main/*.jar")))
    run_installer([program("javac", JDK), "--release", "17", "-cp", libraries, "-d", classes, sources / f"{name}.java"])
    jar = folder / "stranger.jar"
    with zipfile.ZipFile(jar, "w") as packed:
        packed.write(classes / "stranger" / f"{name}.class", f"stranger/{name}.class")
        packed.writestr(f"{SERVICES}/{service}", f"stranger.{name}\n")
    return jar
