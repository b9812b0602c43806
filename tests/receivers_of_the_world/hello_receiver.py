"""Hellō's package for relying parties, from npm and unmodified, behind Node's http.

It verifies command tokens by introspection at the issuer, and knows a fixed list of issuers. One of them is
http://127.0.0.1:3333.
"""

import asyncio
import contextlib
import json
import os
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from tests.support.npm_modules import NODE, node_modules
from tests.system.waiting import PATIENCE

FOLDER = Path(__file__).parent / "hello"
ISSUER_PORT = 3333
ISSUER = f"http://127.0.0.1:{ISSUER_PORT}"
CLIENT = "hello"


class HelloReceiver:
    """A running one. It prints the claims of each command that it has carried out."""

    def __init__(self, process: Process, port: int) -> None:
        self._process = process
        self.url = f"http://127.0.0.1:{port}/api/hellocoop"

    async def next_ended(self) -> Mapping[str, Any]:
        """Return the claims of the next command that it carries out."""
        return dict((await read_line(self._process))["ended"])


async def read_line(process: Process) -> dict[str, Any]:
    """Return the next line of its output."""
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        return dict(json.loads(await process.stdout.readline()))


@contextlib.asynccontextmanager
async def hello_receiver(*users: str) -> AsyncIterator[HelloReceiver]:
    """Run it with these active users; without users as it is published, which supports `metadata` alone."""
    environment = {**os.environ, "NODE_PATH": str(node_modules(FOLDER)), "HELLO_COOKIE_SECRET": "ab" * 32}
    process = await asyncio.create_subprocess_exec(
        NODE, FOLDER / "receiver.cjs", CLIENT, *users, env=environment, stdout=PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield HelloReceiver(process, (await read_line(process))["port"])
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
