"""Runs the commands of a document as they are printed. Only the broker, the ports and the programs' places differ."""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.system.command import ROOT, environment
from tests.system.waiting import until


def blocks(document: str, language: str) -> list[str]:
    """The fenced blocks of a document, in order."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)
    return [re.sub(f"^{indent}", "", text, flags=re.MULTILINE) for indent, text in found]


class Shell:
    """Runs blocks of commands in one folder. What ends with `&` goes on until the end."""

    def __init__(
        self, folder: Path, put_in: Mapping[str, str], settings: Mapping[str, str], programs: Mapping[str, str]
    ) -> None:
        """`put_in`: texts and what takes their place; `programs`: what else can be typed, and the words that run it."""
        self.folder = folder
        self._put_in = put_in
        place = folder / "bin"
        place.mkdir()
        ours = {"notifier": f"exec {sys.executable} -m notifier", "python": f"exec {sys.executable}"}
        for name, words in {**ours, **programs}.items():
            (place / name).write_text(f'#!/bin/sh\n{words} "$@"\n')
            (place / name).chmod(0o755)
        self._environment = environment({**settings, "PATH": f"{place}:{os.environ['PATH']}"})
        self._running: list[subprocess.Popen[bytes]] = []

    def as_here(self, text: str) -> str:
        """With what must differ put in."""
        return re.sub("|".join(map(re.escape, self._put_in)), lambda found: self._put_in[found[0]], text)

    def write(self, name: str, text: str, mode: str = "w") -> None:
        """Write a file, or append to it."""
        with (self.folder / name).open(mode) as file:
            file.write(self.as_here(text))

    async def run(self, block: str) -> str:
        """Return the output, after the last command has ended with 0."""
        before = re.findall(r"^.*&$", block, re.MULTILINE)
        output = ""
        if rest := re.sub(r"^.*&$", "", block, flags=re.MULTILINE).strip():
            done = await asyncio.to_thread(self._to_its_end, rest)
            output = done.stdout + done.stderr
            assert done.returncode == 0, output
        for line in before:
            self._begin(line.removesuffix("&").strip())
        return output

    def _to_its_end(self, text: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", self.as_here(text)],
            cwd=self.folder, env=self._environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def _begin(self, line: str) -> None:
        with (self.folder / f"{len(self._running)}.log").open("wb") as log:
            begun = subprocess.Popen(
                ["bash", "-c", self.as_here(line)], cwd=self.folder, env=self._environment,
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self._running.append(begun)

    async def until_output(self, nth: int, words: str, times: int = 1, patience: float = 30.0) -> None:
        """Wait until the nth background command has printed this so often."""

        async def read() -> str:
            return (self.folder / f"{nth}.log").read_text()

        await until(read, lambda text: text.count(words) >= times, patience)

    def end(self) -> None:
        """End the background commands."""
        for process in self._running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
