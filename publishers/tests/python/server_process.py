"""Web servers as users run them: gunicorn, which loads the application and then forks its workers."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[3]


@contextlib.asynccontextmanager
async def gunicorn(
    application: str, log: Path, environment: Mapping[str, str], *, workers: int = 2, cwd: Path = ROOT
) -> AsyncIterator[str]:
    """Its URL. `log` gets what it writes; it is ended with all its workers."""
    log.touch()  # noqa: ASYNC240  a test's file
    before = log.stat().st_size  # noqa: ASYNC240  likewise
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gunicorn", "--preload", "--workers", str(workers), "--bind", "127.0.0.1:0",
            "--graceful-timeout", "5", "--log-level", "info", application,
            stdout=output, stderr=output, cwd=cwd, env={**os.environ, **environment}, start_new_session=True,
        )  # fmt: skip
    try:
        async with asyncio.timeout(90):
            while True:
                text = (await asyncio.to_thread(log.read_text))[before:]
                if "Listening at: " in text and "Booting worker" in text.rpartition("Listening at: ")[2]:
                    break
                assert process.returncode is None, text[-3000:]
                await asyncio.sleep(0.02)
        yield text.rpartition("Listening at: ")[2].split()[0]
    finally:
        if process.returncode is None:
            process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), 15)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
