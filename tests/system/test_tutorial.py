"""The first logout of README.md and docs/tutorial.md, walked as they are printed: each command, in order, in a shell.

Only what must differ here is put in: the broker, the ports, and where `notifier` and `python` are.
"""

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.system.command import environment
from tests.system.waiting import until

ROOT = Path(__file__).parents[2]
PRINTED = ("9000", "9001", "8080")  # ports
RETRY = 90.0  # seconds: a client that was down is tried again after 2 s, 6 s and a circuit's 30 s


def blocks(document: str, language: str) -> list[str]:
    """The fenced blocks of a document, in order."""
    text = (ROOT / document).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


class Shell:
    """Runs blocks of commands in one folder. What ends with `&` goes on until the end."""

    def __init__(self, folder: Path, put_in: Mapping[str, str], settings: Mapping[str, str]) -> None:
        self.folder = folder
        self._put_in = put_in
        programs = folder / "bin"
        programs.mkdir()
        for name, words in (("notifier", "-m notifier"), ("python", "")):
            (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {words} "$@"\n')
            (programs / name).chmod(0o755)
        self._environment = environment({**settings, "PATH": f"{programs}:{os.environ['PATH']}"})
        self._running: list[subprocess.Popen[bytes]] = []

    def as_here(self, text: str) -> str:
        """With what must differ put in."""
        return re.sub("|".join(map(re.escape, self._put_in)), lambda found: self._put_in[found[0]], text)

    def write(self, name: str, text: str, mode: str = "w") -> None:
        """Write a file, or append to it."""
        with (self.folder / name).open(mode) as file:
            file.write(self.as_here(text))

    async def run(self, block: str) -> str:
        """What it says, after its last command has ended with 0."""
        before = re.findall(r"^.*&$", block, re.MULTILINE)
        said = ""
        if rest := re.sub(r"^.*&$", "", block, flags=re.MULTILINE).strip():
            done = await asyncio.to_thread(self._to_its_end, rest)
            said = done.stdout + done.stderr
            assert done.returncode == 0, said
        for line in before:
            self._begin(line.removesuffix("&").strip())
        return said

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

    async def told(self, nth: int, words: str, times: int = 1, patience: float = 30.0) -> None:
        """Wait until the nth of those that go on has said it so often."""

        async def read() -> str:
            return (self.folder / f"{nth}.log").read_text()

        await until(read, lambda text: text.count(words) >= times, patience)

    def end(self) -> None:
        """End what goes on."""
        for process in self._running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def free_ports(count: int) -> list[str]:
    """Ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [str(each.getsockname()[1]) for each in sockets]


@pytest.fixture
def shell(tmp_path: Path, amqp_url: str, prefix: str) -> Iterator[Shell]:
    """In an empty folder beside `docs`, as after `mkdir try && cd try`."""
    folder = tmp_path / "try"
    folder.mkdir()
    put_in = {
        "amqp://guest:guest@localhost:5672": amqp_url,
        **dict(zip(PRINTED, free_ports(len(PRINTED)), strict=True)),
    }
    settings = {"NOTIFIER_QUEUE__PREFIX": prefix, "NOTIFIER_OPS__LISTEN": "127.0.0.1:0"}
    made = Shell(folder, put_in, settings)
    receiver = tmp_path / "docs/examples/receiver.py"
    receiver.parent.mkdir(parents=True)
    receiver.write_text(made.as_here((ROOT / "docs/examples/receiver.py").read_text()))
    yield made
    made.end()


@pytest.mark.timeout(240)
async def test_the_walk_leads_where_it_says(shell: Shell) -> None:
    """A logout arrives; one for a client that is down arrives once it is up; one that was refused, once replayed."""
    _, set_up, start, sign_out = blocks("README.md", "sh")
    await shell.run(next(line for line in set_up.splitlines() if line.startswith("notifier keys")))
    for file in blocks("README.md", "yaml"):
        shell.write(file.splitlines()[0].removeprefix("# "), file)
    assert "no mistakes" in (said := await shell.run(start)) or "1 client" in said, said
    receiver, worker = 0, 1
    await shell.told(worker, "consuming")
    await shell.run(sign_out)
    await shell.told(receiver, '"sid":"08a5019c"')

    down, wrong = blocks("docs/tutorial.md", "yaml")
    publish, status, come_back, refused, replay = blocks("docs/tutorial.md", "sh")
    shell.write("clients.yaml", down, "a")
    await shell.told(worker, "reloaded")
    said = await shell.run(publish)
    assert re.search(r"shop\b.*delivered|delivered.*shop\b", said), said
    assert re.search(r"mail\b.*retrying|retrying.*mail\b", said), said
    said = await shell.run(status)
    assert "mail" in said
    assert "delayed" in said
    await shell.run(come_back)
    await shell.told(2, '"sid":"08a5019c"', patience=RETRY)

    shell.write("clients.yaml", wrong, "a")
    await shell.told(worker, "reloaded", 2)
    said = await shell.run(refused)
    assert "refused" in said
    assert "will not answer otherwise" in said
    clients = shell.folder / "clients.yaml"
    uris = re.findall(r"backchannel_logout_uri: (\S+)", clients.read_text())
    clients.write_text(clients.read_text().replace(uris[-1], uris[0]))
    await shell.told(worker, "reloaded", 3)
    await shell.run(replay)
    await shell.told(receiver, '"sid":"08a5019c"', 3)
    assert "wiki" not in await shell.run("notifier dead-letters list -c notifier.yaml")
