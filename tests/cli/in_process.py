"""The command line as a function in this process, for tests without the cost of a process.

They test the output, the refusals and the files of a command. Tests that need a process are in tests/system: signals,
terminals, broken pipes, a worker beside it. Not for an asynchronous test: a command starts an event loop.
"""

import contextlib
import io
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import structlog

from notifier.cli import main
from tests.system.command import environment


def notifier(
    *arguments: str | Path, cwd: Path, stdin: str | bytes = b"", settings: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with the working directory, the environment and the streams of a process."""
    words = [str(each) for each in arguments]
    fed = io.TextIOWrapper(io.BytesIO(stdin.encode() if isinstance(stdin, str) else stdin), encoding="utf-8")
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    with _kept(), contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        sys.argv, sys.stdin = ["notifier", *words], fed
        os.environ.clear()
        os.environ.update(environment(settings))
        code = _exit_code()
    printed, complained = (stream.buffer.getvalue().decode() for stream in (out, err))
    assert "Traceback" not in complained
    return subprocess.CompletedProcess(words, code, printed, complained)


def _exit_code() -> int:
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except Exception:  # noqa: BLE001  as Python does at the end of a program
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


@contextlib.contextmanager
def _kept() -> Iterator[None]:
    """Restore what a command changes in its process: arguments, environment, logging, the exception hook."""
    words, stdin, hook, settings = sys.argv, sys.stdin, sys.excepthook, dict(os.environ)
    root, own_logger = logging.getLogger(), logging.getLogger("notifier")
    handlers, level = [*root.handlers], root.level
    structlog.reset_defaults()
    try:
        yield
    finally:
        sys.argv, sys.stdin, sys.excepthook = words, stdin, hook
        os.environ.clear()
        os.environ.update(settings)
        root.handlers[:] = handlers
        root.setLevel(level)
        own_logger.setLevel(logging.NOTSET)
        logging.captureWarnings(capture=False)
        structlog.reset_defaults()
