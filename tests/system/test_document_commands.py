"""Every command of every document runs against a private installation, or is listed here with the reason why not.

`test_tutorial.py` walks through README.md and docs/tutorial.md, whose commands rest on each other.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.apt_programs import program
from tests.support.rabbitmq_node import free_ports
from tests.system.command import ROOT
from tests.system.shell import Shell, blocks
from tests.system.site import OTHER, Site

pytestmark = pytest.mark.full

WALKED = {"README.md": 1, "docs/tutorial.md": 0}
"""Documents that are walked through elsewhere, from this block on."""
NOT_RUN = {
    "notifier sources try": "tests/features/sources/test_sources_command.py runs it with recorded messages",
    "notifier dead-letters show -c n.yaml --json ID": "tests/features/sources/test_source_examples.py cuts by it",
    "aws": "needs an account at AWS",
    "notifier demo --console": "tests/browsers/test_console_demo.py runs it, and drives it",
    "curl -si https://login.example.com/connect/checksession": "tests/browsers asks behind a real nginx",
    "notifier reload": "tests/system/test_reload.py runs it, beside a worker",
    "java": "tests/samples runs the sample",
    "softhsm2-util": "tests/system/test_hsm.py runs the block",
    "vault": "tests/vault/vault_process.py makes the same key and policy by HTTP",
    "kubectl": "needs a cluster",
    "docker": "needs a Docker engine and a registry",
    "rabbitmqctl set_permissions": "tests/system/test_readme.py runs it",
    "rabbitmqctl -q list_queues": "needs a broker with this name on this host",
    "rabbitmq-plugins": "tests/faults/test_moving.py moves messages by shovels",
    "rabbitmqctl set_parameter shovel": "tests/faults/test_moving.py sets the same parameter",
    "npm": "publishers/tests/oidc_provider installs the package and runs its checks and tests",
    "AMQP_URL=": "publishers/tests/oidc_provider/test_package.py runs the package's tests",
    "mvn": "tests/samples/languages.py gets the client",
    "cp build/": "what `make publishers` has built is not there",
    "git checkout COMMIT": "stands for the version that the reader chooses",
    "python3 -m venv /opt/notifier-COMMIT": "tests/packaging/test_first_page.py installs the command",
    "/opt/notifier-COMMIT/bin/notifier": "as above",
    "kcadm.sh": "publishers/tests/keycloak/plugin_settings.py makes the same component",
    "ID=$(kcadm.sh": "tests/features/registries/keycloak_upstream.py sets the same attributes",
    "dotnet": "needs .NET: .github/workflows/publisher-duende.yaml builds and tests the packages",
    "pip install": "tests/packaging installs what is built from here",
    "python -m pytest": "runs tests",
    "systemd-run": "tests/packaging/test_systemd.py runs it as a unit of systemd",
}
PLACES = (
    "*.md", "docs/*.md", "docs/configuration/*.md", "deploy/**/*.md", "helm/**/*.md", "benchmarks/*.md",
    "publishers/*.md", "publishers/*/*.md",
)  # fmt: skip
DOCUMENTS = sorted(str(path.relative_to(ROOT)) for pattern in PLACES for path in ROOT.glob(pattern))
PROGRAMS = {
    "helm": f'[ "$1" = install ] || [ "$1" = upgrade ] && shift && set -- template "$@" || set -- "$@" --help\n'
    f"exec {Path(sys.executable).parent}/helm",
    "make": f"has() {{ grep -q ^$1: {ROOT}/Makefile; }}; has",
}
"""Charts are rendered, of other commands helm only reads the options, and of make only the goal is looked up."""
PUT_IN = {
    " ID  ": ' "$(notifier dead-letters list --json --rows | jq -r .id)"  ',
    "discard -c": "discard --yes -c",  # nobody is there to be asked
    "replay -c": "replay --wait 0s -c",  # the client is unknown, so the dead letter is given up again
    "/var/lib/idp/notifier/0": ".",
}


EVENT = '{"iss": "https://id.example.com", "sub": "alice", "clients": ["shop"]}'


def pause_end() -> str:
    """The end of a pause in the documents, which is in the past some day."""
    (end,) = re.findall(r"--until (20\S+)", (ROOT / "docs/waiting.md").read_text())
    return str(end)


def commands(document: str) -> list[str]:
    """The commands of its blocks, one by one: a command ends at the first line at which the shell can read it."""
    found = []
    for block in blocks(document, "sh")[: WALKED.get(document)]:
        text = ""
        for line in block.splitlines():
            text += line + "\n"
            if not line.endswith("\\") and readable(text):
                found.append(text.strip())
                text = ""
        assert not text, f"{document}: the shell cannot read {text}"
    return [text for text in found if text and not text.startswith("#")]


def readable(text: str) -> bool:
    return subprocess.run(["bash", "-n", "-c", text], capture_output=True, check=False).returncode == 0


def listed(command: str, names: dict[str, str]) -> str | None:
    """The name in the list that the command begins with, or that a line of it begins with."""
    return next((name for name in names if re.search(rf"^\s*{re.escape(name)}\b", command, re.MULTILINE)), None)


@pytest.fixture
def shell(tmp_path: Path, amqp_url: str, prefix: str) -> Iterator[Shell]:
    """An installation whose dead letters hold one of `shop`, and an embedded queue beside it."""
    for name in ("curl", "jq", "sqlite3"):
        program(name, name)
    (port,) = free_ports(1)
    for name, url in (
        ("old.yaml", amqp_url), ("embedded.yaml", "sqlite:notifier.db"), ("notifier.yaml", amqp_url),
    ):  # fmt: skip
        site = Site(tmp_path, url, prefix if name == "notifier.yaml" else f"{prefix}-old")
        del site.config["issuers"][OTHER]
        site.config["registry"]["inline"] = "allow"  # so an unknown client does not fail a command
        site.config |= {"api": {"listen": f"127.0.0.1:{port}"} if name == "notifier.yaml" else None, "outcomes": "all"}
        site.write()
        site.file.rename(tmp_path / name)
    (tmp_path / "n.yaml").symlink_to("notifier.yaml")
    (tmp_path / "keys").mkdir()
    (tmp_path / "helm").symlink_to(ROOT / "helm")
    for lane in ("events", "bulk"):  # set aside by a publisher
        (tmp_path / f"{lane}.expired").write_text(f'{{"lane": "{lane}", "event": {EVENT}}}')
    (tmp_path / "values.yaml").write_text(blocks("docs/kubernetes.md", "yaml")[0])
    settings = {"NOTIFIER_CONFIG": "notifier.yaml", "TOKEN": "nobody asks for one on loopback"}
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat(timespec="seconds")
    put_in = {"127.0.0.1:8080": f"127.0.0.1:{port}", pause_end(): soon, **PUT_IN}
    made = Shell(tmp_path, put_in, settings, PROGRAMS)
    yield made
    made.end()


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if "```sh" in (ROOT / name).read_text()])
async def test_every_command_runs(document: str, shell: Shell) -> None:
    """In order, each to its end with 0."""
    wanted = [command for command in commands(document) if listed(command, NOT_RUN) is None]
    if any(re.search("notifier dead-letters|curl|sqlite3", command) for command in wanted):
        for nth, file in enumerate(("notifier.yaml", "embedded.yaml")):
            await shell.run(f"notifier run -c {file} &")
            await shell.until_output(nth, "consuming")
            await shell.run(f"echo '{EVENT}' | notifier publish -c {file}")
            await shell.until_output(nth, "dead_letter")
        await shell.run("until sqlite3 notifier.db .tables | grep outcomes; do sleep 0.1; done")
    if any("notifier pause" in command for command in wanted):
        client = {"client_id": "shop", "backchannel_logout_uri": "https://shop.example.com/logout"}
        (shell.folder / "clients.yaml").write_text(json.dumps([client]))
    for command in wanted:
        await shell.run(command)


def test_lists_have_only_documented_commands() -> None:
    """Each reason is still needed."""
    every = [command for document in DOCUMENTS for command in commands(document)]
    assert {listed(command, NOT_RUN) for command in every} >= set(NOT_RUN)
