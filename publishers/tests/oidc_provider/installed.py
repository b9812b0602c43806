"""The package notifier-oidc-provider as its users have it: in node_modules, beside what the tests need.

npm gets everything else once, as package-lock.json has it, into build/publishers. The package itself is copied there
again for each state of its files.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.support.made_whole import made_whole
from tests.support.npm_modules import NODE, NPM, node_modules

__all__ = ["NODE", "NPM", "PACKAGE", "npm_folder", "packed_files"]

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "publishers/oidc-provider"
KEPT = ROOT / "build/publishers"
NAME = "notifier-oidc-provider"


def npm_folder() -> Path:
    """A folder whose node_modules has this package, oidc-provider 9 and `oidc-provider-8`, ioredis, jose and express.

    A program in the folder, or in one with a link to its node_modules, imports them by name.
    """
    modules_of_npm = node_modules(PACKAGE, KEPT)
    files = list(packed_files())
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(PACKAGE)}\n".encode() + path.read_bytes())
    folder = modules_of_npm.with_name(f"package-{digest.hexdigest()[:12]}")
    if not folder.exists():
        with made_whole(folder) as part:
            modules = part / "node_modules"
            modules.mkdir()
            for found in modules_of_npm.iterdir():
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
