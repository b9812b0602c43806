"""Start a cluster, print the path of its kubeconfig, and run until a signal.

`python -m tests.cluster` runs it, `python -m tests.cluster build` builds what it is made of, and `… look` only looks
whether that is there. Its pods run nothing, and are ready.
"""

import asyncio
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import yaml

from tests.cluster.control_plane import control_plane
from tests.cluster.nodes import nodes
from tests.cluster.programs import ClusterMissing, Programs, build_programs, find_programs
from tests.support.go_modules import GoMissing


def found(*, build: bool = False) -> Programs:
    """What it is made of, built if need be and wanted. Raises ClusterMissing."""
    if shutil.which("setpriv") is None:
        raise ClusterMissing("setpriv not found: apt-get install util-linux")
    return build_programs() if build else find_programs()


async def serve(programs: Programs) -> None:
    """Run it until a signal comes."""
    over = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    with tempfile.TemporaryDirectory(prefix="notifier-cluster-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        async with control_plane(folder, programs) as plane, nodes(plane):
            async with plane.api() as api:
                for path in programs.crds.iterdir():
                    await api.define(yaml.safe_load(path.read_text()))
            print(plane.kubeconfig(), flush=True)  # noqa: T201
            await over.wait()


def main(what: str = "serve") -> None:
    """See the module."""
    try:
        programs = found(build=what == "build")
    except GoMissing as missing:
        sys.exit(f"no cluster: {missing}")
    if what == "serve":
        asyncio.run(serve(programs))


if __name__ == "__main__":
    main(*sys.argv[1:])
