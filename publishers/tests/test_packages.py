"""What the packages for identity servers have in common: their version, their licence, and how they are built."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from notifier import RELEASE
from publishers.tests.versions import PACKAGES, ROOT, versions
from tools.package_links import led_away


def test_all_have_the_service_s_version() -> None:
    """They are released together."""
    assert set(versions().values()) == {RELEASE}


def test_all_have_the_service_s_licence() -> None:
    """As each ecosystem writes it."""
    licence = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"]
    assert tomllib.loads((PACKAGES / "python/pyproject.toml").read_text())["project"]["license"] == licence
    assert json.loads((PACKAGES / "oidc-provider/package.json").read_text())["license"] == licence
    assert f"<name>{licence}</name>" in (PACKAGES / "pom.xml").read_text()
    props = (PACKAGES / "duende/Directory.Build.props").read_text()
    assert f"<PackageLicenseExpression>{licence}<" in props


def test_no_lock_file_names_a_registry() -> None:
    """The user chooses the registry; the digest identifies the package."""
    for lock in (*PACKAGES.rglob("package-lock.json"),):
        if "node_modules" not in lock.parts:
            packages = json.loads(lock.read_text())["packages"]
            assert [name for name, package in packages.items() if "resolved" in package] == []
            assert [name for name, package in packages.items() if name and "integrity" not in package] == []


README = (PACKAGES / "README.md").read_text()


def test_each_promise_names_its_cases() -> None:
    """And they are there."""
    named = re.findall(r"`(?:(\w+\.py))?(?:::(test_\w+))?`", README)
    file, found = "", 0
    for module, case in named:
        file = module or file
        if module:
            assert (PACKAGES / "conformance/cases" / module).exists(), module
        if case:
            assert f"def {case}(" in (PACKAGES / "conformance/cases" / file).read_text(), (file, case)
            found += 1
    assert found > 15


READMES = [*PACKAGES.glob("*/README.md")]
CODE = re.compile(r"^ *```.*?^ *```$|`[^`\n]+`(?!\])", re.MULTILINE | re.DOTALL)


def blocks_of(text: str) -> list[str]:
    """What is printed as code."""
    return [code for code in CODE.findall(text) if "\n" in code]


@pytest.mark.parametrize("readme", [PACKAGES / "README.md", *READMES], ids=lambda path: path.parent.name)
def test_every_link_leads_somewhere(readme: Path) -> None:
    """To a file that is there, and to a heading that is there."""
    for target in re.findall(r"\]\((?!https:)([^)]+)\)", CODE.sub("", readme.read_text())):
        file, _, anchor = target.partition("#")
        there = readme.parent / file if file else readme
        assert there.exists(), target
        headings = re.findall(r"^#+ (.+)$", there.read_text(), re.MULTILINE) if anchor else []
        anchors = {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}
        assert not anchor or anchor in anchors, target


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_a_packed_readme_leads_to_the_repository(readme: Path) -> None:
    """There its neighbours are not beside it. Where the repository is unknown its words stay, and no dead link."""
    folder = str(readme.parent.relative_to(ROOT))
    away = led_away(readme.read_text(), folder, "https://code.example.com/notifier/blob/v1")
    led = re.findall(r"\]\(https://code\.example\.com/notifier/blob/v1/([^)#]+)", away)
    assert led
    assert [path for path in led if not (ROOT / path).exists()] == []
    for text in (away, led_away(readme.read_text(), folder, None)):
        assert re.findall(r"\]\((?!https?:|#)[^)]*\)", CODE.sub("", text)) == []
        assert blocks_of(text) == blocks_of(readme.read_text())
