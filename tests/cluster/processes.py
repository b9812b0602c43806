"""Processes of a cluster: each in a session of its own, and gone when what started it is gone, however that ends."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

TIED = ("setpriv", "--pdeathsig", "KILL", "--")
"""Before a command: the kernel kills it with its parent."""


async def start(words: Sequence[str | Path], *, env: Mapping[str, str], log: Path) -> asyncio.subprocess.Process:
    """Start it. What it writes goes to the end of `log`."""
    with log.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            *TIED, *map(str, words), env=dict(env), cwd="/", stdin=asyncio.subprocess.DEVNULL,
            stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip


async def end(process: asyncio.subprocess.Process) -> None:
    """Kill it with all that it has started, and wait for its end."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def first_child(pid: int) -> int | None:
    """The process that it has started, if there is one."""
    with contextlib.suppress(OSError):
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(found[0]) if found else None
    return None
