"""`notifier` as a process that need not load its code, which is most of the cost of a short command.

multiprocessing's fork server loads the code once for a test run, and forks a process for each command. That process has
the arguments, folder, environment, streams and exit of one started by a shell. The shell itself starts every command of
the documents in `test_document_commands.py`, `test_tutorial.py` and `test_readme.py`.

The first argument can be a program that changes the command, a file `….py`.
"""

import asyncio
import atexit
import contextlib
import multiprocessing
import os
import runpy
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from multiprocessing.reduction import DupFd
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired
from typing import Any, TextIO

from notifier.cli.application import COMMANDS

LOADED = ["notifier.cli", "notifier.service.service", "notifier.queues.sqlite.queue", __name__]
LOADED += (each.module for each in COMMANDS)
_ONE = threading.Lock()
"""Held where multiprocessing looks for processes that have ended: two looks at once lose an exit code."""


def run_loaded(
    arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str], stdin: bytes, timeout: float
) -> CompletedProcess[bytes]:
    """Run a command to its end, as `subprocess.run` does."""
    (its_in, feed), (out, its_out), (err, its_err) = os.pipe(), os.pipe(), os.pipe()
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(3) as threads:
        ours = [stack.enter_context(os.fdopen(end, mode)) for end, mode in ((feed, "wb"), (out, "rb"), (err, "rb"))]
        process = start_with(arguments, cwd, env, (its_in, its_out, its_err))
        feeding = threads.submit(_feed, ours[0], stdin)
        stdout, stderr = (threads.submit(each.read) for each in ours[1:])
        if not wait([process.sentinel], timeout):
            process.kill()
            raise TimeoutExpired(list(arguments), timeout)
        feeding.result()
        return CompletedProcess(list(arguments), _exit_code(process) or 0, stdout.result(), stderr.result())


def _feed(pipe: Any, content: bytes) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody reads it
        pipe.write(content)
    with contextlib.suppress(BrokenPipeError):
        pipe.close()


class LoadedProcess:
    """One that goes on. Made by `start_loaded`. What asyncio's Process has."""

    def __init__(self, process: ForkServerProcess, stderr: asyncio.StreamReader) -> None:
        self.pid = process.pid or 0
        self.stderr = stderr
        self.returncode: int | None = None
        self._process = process
        self._ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(process.sentinel, self._end)

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._process.sentinel)
        self.returncode = _exit_code(self._process)
        self._ended.set()

    async def wait(self) -> int:
        """Its exit code, once it has one."""
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def kill(self) -> None:
        """By SIGKILL."""
        self._process.kill()


async def start_loaded(arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str], limit: int) -> LoadedProcess:
    """Start a command and read its stderr, in lines of up to `limit` bytes."""
    err, its_err = os.pipe()
    streams = os.open(os.devnull, os.O_RDONLY), os.open(os.devnull, os.O_WRONLY), its_err
    stderr = asyncio.StreamReader(limit=limit)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stderr), os.fdopen(err, "rb", buffering=0))
    return LoadedProcess(await asyncio.to_thread(start_with, arguments, cwd, env, streams), stderr)


@contextlib.contextmanager
def begun(arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> Iterator[tuple[ForkServerProcess, TextIO]]:
    """One that goes on, and its stdout. Its stderr goes to the file `errors` there. It must end within a minute."""
    out, its_out = os.pipe()
    err = os.open(cwd / "errors", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    process = start_with(arguments, cwd, env, (os.open(os.devnull, os.O_RDONLY), its_out, err))
    try:
        with os.fdopen(out) as stdout:
            yield process, stdout
        assert wait([process.sentinel], 60), f"{arguments} goes on"
    finally:
        with _ONE:
            if process.is_alive():  # its pid may be another's otherwise
                process.kill()
            process.join()


def start_with(
    arguments: Sequence[str], cwd: Path, env: Mapping[str, str], streams: Sequence[int]
) -> ForkServerProcess:
    """Start one with these as stdin, stdout and stderr. Our copies of them are closed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)
    process = context.Process(target=_Command(arguments, cwd, env, streams), daemon=True)
    try:
        with _ONE:
            process.start()
    finally:
        for end in streams:
            os.close(end)
    return process


def _exit_code(process: ForkServerProcess) -> int | None:
    with _ONE:
        return process.exitcode


class _Command:
    """What the forked process runs. Its descriptors become those of that process on their way to it."""

    def __init__(self, arguments: Sequence[str], cwd: Path, env: Mapping[str, str], streams: Sequence[int]) -> None:
        self._given: tuple[list[str], str, dict[str, str], Sequence[Any]]
        self._given = [*arguments], str(cwd), dict(env), streams

    def __getstate__(self) -> Any:
        *rest, streams = self._given
        return (*rest, [DupFd(end) for end in streams])

    def __setstate__(self, given: Any) -> None:
        self._given = given

    def __call__(self) -> None:
        arguments, cwd, env, streams = self._given
        for number, stream in enumerate(streams):
            end = stream.detach()
            os.dup2(end, number)
            os.close(end)
        sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")
        sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace")
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(env)
        time.tzset()
        # Started in the background by a shell, the tests themselves ignore SIGINT, and would hand that down.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            if arguments[0].endswith(".py"):
                sys.argv = [*arguments]
                runpy.run_path(arguments[0], run_name="__main__")
            else:
                from notifier.cli import main  # noqa: PLC0415  whoever asks for the command has no need of it

                sys.argv = ["notifier", *arguments]
                main()
        except Exception:  # noqa: BLE001  as Python does at the end of a program
            sys.excepthook(*sys.exc_info())
            sys.exit(1)
        finally:
            atexit._run_exitfuncs()
