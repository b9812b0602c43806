"""The command line as a separate process, without this process's settings in its environment."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.rabbit_options import BUCKETS
from tests.system.loaded_program import run_loaded
from tests.system.site import Site

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Of the process: 80 columns, no colours, few buckets, no other setting but `more`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NOTIFIER_")}
    ours = {"PYTHONPATH": str(ROOT), "COLUMNS": "80", "NO_COLOR": "1", "NOTIFIER_QUEUE__BUCKETS": str(BUCKETS)}
    return kept | ours | dict(more or {})


def command(arguments: Sequence[str | Path]) -> list[str]:
    """The words that run `notifier` here."""
    return [sys.executable, "-m", "notifier", *map(str, arguments)]


def notifier(
    *arguments: str | Path, cwd: Path, stdin: str | bytes = b"", settings: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    done = run_loaded(
        [str(each) for each in arguments],
        cwd=cwd,
        env=environment(settings),
        stdin=stdin.encode() if isinstance(stdin, str) else stdin,
        timeout=PATIENCE,
    )
    assert b"Traceback" not in done.stderr
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


async def notifier_at(
    site: Site, *arguments: str, stdin: str = "", settings: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run it with the site's configuration."""
    words = (*arguments, "-c", str(site.file))
    return await asyncio.to_thread(notifier, *words, cwd=site.folder, stdin=stdin, settings=settings)
