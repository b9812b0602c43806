"""The commands of docs/kubernetes.md that look into a cluster and act on it, typed as they stand there."""

import asyncio
import os
import re
from pathlib import Path

import pytest

from tests.cluster.commands import Commands
from tests.cluster.release import Release
from tests.faults.rig import Rig
from tests.system.command import ROOT

SECTION = "## Look and act"
DEAD = 7  # every seventh event is refused by one client
SAYS = {  # by the command: what it must say
    "status ": "refusing",
    "doctor ": "healthy",
    "clients list": "flaky",
    "logs ": '"event_id":"7"',
    "dead-letters list": "refusing",
    "explain ": "rejected_token",
    "--dry-run": "2",
}
MAY_FAIL = ("doctor ",)  # the issuer of the tests publishes no keys


def typed() -> list[str]:
    """Of the section, but for what goes on until it is interrupted."""
    section = (ROOT / "docs/kubernetes.md").read_text().partition(f"\n{SECTION}")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("kubectl ")]
    return [line for line in lines if "--watch" not in line]


def as_here(line: str, namespace: str) -> str:
    """With the names of this test put in, and without a terminal."""
    put_in = {
        "-n logout ": f"-n {namespace} ",
        "-it ": "",
        "discard ": "discard --yes ",
        "EVENT_ID": '\'"event_id":"7"\'',
        "shop": "refusing",
        "malformed_event": "refused",
    }
    return re.sub("|".join(put_in), lambda found: put_in[found[0]], line)


async def shell(commands: Commands, line: str, folder: Path) -> tuple[int, str]:
    """Type one line."""
    (folder / "bin").mkdir(exist_ok=True)
    if not (link := folder / "bin/kubectl").exists():
        link.symlink_to(commands.programs["kubectl"])
    env = {"PATH": f"{link.parent}:{os.environ['PATH']}", "KUBECONFIG": str(commands.kubeconfig), "USER": "alice"}
    process = await asyncio.create_subprocess_shell(
        line, env=env, cwd=folder, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


@pytest.mark.parametrize("helm", ["helm4"], indirect=True)
@pytest.mark.timeout(300)
async def test_every_command_works_as_it_stands(
    commands: Commands, release: Release, made: Rig, tmp_path: Path
) -> None:
    """In a pod of a worker, with what the chart puts into its environment."""
    (await release.install("--wait", "--timeout", "3m")).good()
    await made.publisher.publish(range(1, 2 * DEAD + 1), rate=100)
    await made.until_settled()
    lines = typed()
    assert len(lines) > 8
    for line in lines:
        own = as_here(line, release.namespace)
        code, said = await shell(commands, own, tmp_path)
        print(f"$ {own}\n{said}")  # noqa: T201  what `pytest -s` and a failed run show
        assert code == 0 or any(word in line for word in MAY_FAIL), said
        for word, wanted in SAYS.items():
            if word in line:
                assert wanted in re.sub(r"\s+", " ", said), line
    assert (tmp_path / "letters.jsonl").read_text().count("\n") == 2
