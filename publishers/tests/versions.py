"""The versions of all that is released together. `python -m publishers.tests.versions` prints the one they have."""

import json
import re
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree as ET

from notifier import RELEASE

ROOT = Path(__file__).parents[2]
PACKAGES = ROOT / "publishers"
JAVA_MODULES = ("java-core/pom.xml", "keycloak/pom.xml", "spring/pom.xml", "spring/sample/pom.xml")


def versions() -> Mapping[str, str]:
    """By file."""
    lock = json.loads((PACKAGES / "oidc-provider/package-lock.json").read_text())
    props = (PACKAGES / "duende/Directory.Build.props").read_text()
    return {
        "notifier": RELEASE,
        "python/pyproject.toml": tomllib.loads((PACKAGES / "python/pyproject.toml").read_text())["project"]["version"],
        "pom.xml": _pom_version("pom.xml", "{*}version"),
        **{pom: _pom_version(pom, "{*}parent/{*}version") for pom in JAVA_MODULES},
        "oidc-provider/package.json": json.loads((PACKAGES / "oidc-provider/package.json").read_text())["version"],
        "oidc-provider/package-lock.json": lock["version"],
        "oidc-provider/package-lock.json, packages": lock["packages"][""]["version"],
        "duende/Directory.Build.props": " ".join(re.findall(r"<Version>(.*?)</Version>", props)),
    }


def _pom_version(pom: str, element: str) -> str:
    return str(ET.parse(PACKAGES / pom).getroot().findtext(element))


def main() -> None:
    """Print the version, or the files whose versions differ."""
    found = versions()
    if len(set(found.values())) != 1:
        sys.exit(f"the packages are not of one version: {dict(found)}")
    print(found["notifier"])  # noqa: T201  a command's answer


if __name__ == "__main__":
    main()
