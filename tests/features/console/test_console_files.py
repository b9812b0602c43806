"""The files of the console: anybody may fetch them, under a strict policy, and nothing else."""

import hashlib
import json
import re
from pathlib import Path

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from notifier import RELEASE
from notifier.features.console.console_files import HEADERS, console_files
from notifier.model.trouble import Trouble, TroubleKind
from notifier.network.listeners.authorization import Authorization
from notifier.network.listeners.problem import answer_refusals
from tools.vendor_console import CONSOLE, add_to_sbom, listed


def files(tokens: tuple[()] | None = None) -> TestClient[web.Request, web.Application]:
    """A listener that serves the files, guarded as the API is."""
    app = web.Application(middlewares=[answer_refusals, Authorization(lambda: tokens).local])
    app.add_routes(console_files())
    return TestClient(TestServer(app))


async def test_each_file_has_the_policy() -> None:
    """And a browser asks again whether it has changed, so that no release meets scripts of another."""
    async with files() as client:
        for route in console_files():
            answer = await client.get(route.path, allow_redirects=False, headers={"Origin": "http://localhost"})
            assert answer.status == (308 if route.path == "/console" else 200), route.path
            assert {name: answer.headers[name] for name in HEADERS} == dict(HEADERS)
            if answer.status == 200:
                again = await client.get(route.path, headers={"If-None-Match": answer.headers["ETag"]})
                assert (again.status, await again.read()) == (304, b"")


def test_counts_of_problems_have_the_words_of_status() -> None:
    """`deliveries deferred`, unless the console lists the kind."""
    rows = re.findall(
        r'^  (\w+): \["(\w+)", "(\w+)", "(\w+)"\],$', (CONSOLE / "overview_page.js").read_text(), re.MULTILINE
    )
    listed_kinds = {kind: (f"1 {one} {verb}", f"2 {many} {verb}") for kind, one, many, verb in rows}
    assert len(listed_kinds) > 3
    for kind in TroubleKind:
        words = tuple(Trouble(kind=kind, text="", count=count).format_count() for count in (1, 2))
        assert words == listed_kinds.get(kind, ("1 delivery deferred", "2 deliveries deferred")), kind


async def test_nothing_else_is_a_file() -> None:
    """No part of a path is used as one."""
    async with files() as client:
        for path in ("console_files.py", "..%2f__init__.py", "%2e%2e/feature.py", "vendored.json", "app.js/"):
            assert (await client.get(f"/console/{path}")).status == 404, path


async def test_packed_or_not_it_is_the_same() -> None:
    """Files are packed once, when the worker starts."""
    async with files(()) as client:
        packed = await client.get("/console/app.js")
        plain = await client.get("/console/app.js", headers={"Accept-Encoding": "identity"})
        assert (packed.headers["Content-Encoding"], plain.headers.get("Content-Encoding")) == ("gzip", None)
        assert await packed.read() == await plain.read()


# ── The libraries of the console equal npm's, byte for byte, and no script loads a missing file ───────────────────


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
    path.write_text('{"components": [], "metadata": {"component": {"name": "logout-notifier"}}}')
    add_to_sbom(path)
    document = json.loads(path.read_text())
    assert document["metadata"]["component"] == {"name": "logout-notifier", "version": RELEASE}
    components = document["components"]
    assert [each["purl"] for each in components] == ["pkg:npm/preact@11.2.0", "pkg:npm/htm@3.1.1"]
    assert all(len(each["externalReferences"][0]["hashes"][0]["content"]) == 128 for each in components)


def html() -> str:
    """The page."""
    return (CONSOLE / "index.html").read_text()
