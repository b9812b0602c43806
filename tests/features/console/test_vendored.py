"""The libraries of the console are those that npm has, byte for byte, and nothing loads what is not there."""

import hashlib
import json
import re
from pathlib import Path

from tools.vendor_console import CONSOLE, add_to_sbom, listed

SCRIPTS = sorted(path for path in CONSOLE.iterdir() if path.suffix in (".js", ".mjs"))
IMPORT = re.compile(r'^import (?:[^"]* from )?"([^"]+)";$|\bimport\(', re.MULTILINE)


def test_each_file_is_as_npm_has_it() -> None:
    """`vendored.json` names every script that is not ours, and its licence."""
    files = {name: file["sha256"] for library in listed() for name, file in library["files"].items()}
    assert files == {name: hashlib.sha256((CONSOLE / name).read_bytes()).hexdigest() for name in files}
    assert {path.name for path in SCRIPTS if path.suffix == ".mjs"} == {name for name in files if name.endswith(".mjs")}


def test_scripts_import_scripts_beside_them_alone() -> None:
    """And the page loads each of them at once, instead of one after another."""
    loaded = set(re.findall(r'<(?:link rel="modulepreload" href|script type="module" src)="([^"]+)"', html()))
    assert loaded == {path.name for path in SCRIPTS}
    for script in SCRIPTS:
        for name in IMPORT.findall(script.read_text()):
            assert (CONSOLE / name).is_file(), f"{script.name} imports {name}"


def test_nothing_makes_markup_of_text() -> None:
    """No script of ours knows `innerHTML` or its kin, and the page has no inline script and no style."""
    for script in SCRIPTS:
        if script.suffix == ".js":
            found = re.search(
                r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", script.read_text()
            )
            assert found is None, f"{script.name}: {found}"
    assert re.search(r"<script(?! type=\"module\" src=)|<style|\bon\w+=|style=", html()) is None


def test_they_are_in_the_sbom(tmp_path: Path) -> None:
    """With package, version, licence and hash."""
    path = tmp_path / "sbom.json"
    path.write_text('{"components": []}')
    add_to_sbom(path)
    components = json.loads(path.read_text())["components"]
    assert [each["purl"] for each in components] == ["pkg:npm/preact@11.2.0", "pkg:npm/htm@3.1.1"]
    assert all(len(each["externalReferences"][0]["hashes"][0]["content"]) == 128 for each in components)


def html() -> str:
    """The page."""
    return (CONSOLE / "index.html").read_text()
