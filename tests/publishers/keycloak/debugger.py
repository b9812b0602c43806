"""A Java process, stopped whole where it comes to a method: by jdb, so that a kill hits one moment and no other."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tests.apt_programs import program
from tests.keycloak_installation import JDK
from tests.system.waiting import PATIENCE

HIT, SET = b"Breakpoint hit", b"breakpoint"


def debugged(port: int) -> str:
    """Java's options that let jdb in, on loopback."""
    return f"-agentlib:jdwp=transport=dt_socket,server=y,suspend=n,address=127.0.0.1:{port}"


class Stop:
    """Made by `stop_in`."""

    def __init__(self, jdb: asyncio.subprocess.Process) -> None:
        self._jdb = jdb
        self.said = b""

    async def until(self, words: bytes) -> None:
        """That jdb has said this."""
        assert self._jdb.stdout is not None
        try:
            async with asyncio.timeout(PATIENCE):
                while words not in self.said:
                    read = await self._jdb.stdout.read(4096)
                    assert read, f"jdb has ended: {self.said.decode()}"
                    self.said += read
        except TimeoutError:
            raise AssertionError(f"jdb does not say {words!r}: {self.said.decode()}") from None

    async def reached(self) -> None:
        """No thread of the process runs any more."""
        await self.until(HIT)


@contextlib.asynccontextmanager
async def stop_in(port: int, method: str) -> AsyncIterator[Stop]:
    """The first thread that comes to this method, as jdb names it, stops the process. It goes on at the end."""
    jdb = await asyncio.create_subprocess_exec(
        program("jdb", JDK), "-attach", f"127.0.0.1:{port}",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    assert jdb.stdin is not None
    try:
        made = Stop(jdb)
        jdb.stdin.write(f"stop in {method}\n".encode())
        await made.until(SET)  # "Set breakpoint …", or "Deferring breakpoint …" until the class is there
        yield made
    finally:
        with contextlib.suppress(ProcessLookupError):
            jdb.kill()
        await jdb.wait()
