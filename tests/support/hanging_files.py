"""Files that hang whoever opens them, as on a network file system whose server is gone."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path


@contextmanager
def hanging(*paths: Path) -> Iterator[None]:
    """Make FIFOs without a writer at these paths. At the end, wait until no thread hangs at them, and remove them."""
    for path in paths:
        os.mkfifo(path, 0o600)
    before = {*threading.enumerate()}
    try:
        yield
    finally:
        readers = [
            thread for thread in {*threading.enumerate()} - before if "files" in thread.name or "read" in thread.name
        ]
        writers = [os.open(path, os.O_RDWR | os.O_NONBLOCK) for path in paths]  # lets all who open the files go on
        for writer in writers:
            os.write(writer, b"late")
        for reader in readers:
            reader.join(0.1)
        for path in paths:
            path.unlink()  # first: who opened it between the two would hang for ever
        for writer in writers:
            os.close(writer)
        for reader in readers:
            reader.join(30)


@asynccontextmanager
async def being_read(path: Path, within: float = 20.0) -> AsyncIterator[None]:
    """Wait until a thread has opened this FIFO. Until the end it hangs there."""
    writer = None
    async with asyncio.timeout(within):
        while writer is None:
            with suppress(OSError):  # nobody has opened it yet
                writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
            await asyncio.sleep(0.01)
    try:
        yield
    finally:
        os.close(writer)
