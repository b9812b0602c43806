"""Runs npm, Maven and apt, and reports the cause of a failure from their output."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

SECONDS = 600.0
LAST = 3000  # characters of the output: the cause is at the end
LOUD_NPM = ("--loglevel=error", "--no-audit", "--no-fund", "--ignore-scripts")  # with --silent it prints no cause
APT = ("apt-get", "-o", "DPkg::Lock::Timeout=300")
STRICT = ("-o", "APT::Update::Error-Mode=any")  # otherwise `update` succeeds although no mirror answered


class InstallFailed(AssertionError):  # noqa: N818  the text says what failed
    """An installer failed: the command, its exit status and the end of its output."""


def run_installer(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    seconds: float = SECONDS,
) -> str:
    """Return the output on both streams. Raise InstallFailed."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words, env=env, cwd=cwd, timeout=seconds, check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise InstallFailed(_told(words, f"did not end within {seconds:.0f} s", error.output)) from None
    except OSError as error:
        raise InstallFailed(_told(words, f"could not be run: {error}", None)) from None
    if done.returncode:
        raise InstallFailed(_told(words, f"failed with status {done.returncode}", done.stdout))
    return done.stdout.decode(errors="replace")


def _told(words: Sequence[str], how: str, output: bytes | None) -> str:
    printed = (output or b"").decode(errors="replace").strip()[-LAST:]
    return f"{' '.join(words)[:500]} {how}; {f'it printed: {printed}' if printed else 'it printed nothing'}"


def apt_install(packages: str, *, seconds: float = SECONDS) -> str:
    """Install packages without starting services. Return a failure's cause, if any; the caller checks the result."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    failed = []
    for arguments in ((*STRICT, "update"), ("install", "-y", "--no-install-recommends", *packages.split())):
        try:
            run_installer([*APT, *arguments], env=environment, seconds=seconds)
        except InstallFailed as error:
            failed.append(str(error))
    return "; ".join(failed)
