"""README.md installs and runs notifier as it prints: from the clone, as a second worker, and by the chart.

`make test-image` does what `make image` does, `test_systemd.py` verifies the unit, `tests/system/test_tutorial.py`
walks the first logout.
"""

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from notifier import RELEASE
from tests.packaging.test_distribution_names import PARTS
from tests.support.apt_programs import program
from tests.support.installing import run_installer
from tests.support.rabbitmq_node import free_ports
from tests.system.command import ROOT
from tests.system.shell import Shell, blocks
from tests.system.waiting import until

README = (ROOT / "README.md").read_text()
SECTION = re.search(r"^## Install and run\n(.*?)^## ", README, re.MULTILINE | re.DOTALL)
PORTS = ("127.0.0.1:9464", "127.0.0.1:8080", "127.0.0.1:9465", "127.0.0.1:8081")


def printed(beginning: str) -> str:
    """Return the only command of the section that begins so."""
    command: str
    assert SECTION is not None
    [command] = [code for code in re.findall(r"`([^`]+)`", SECTION[1]) if code.startswith(beginning)]
    return command


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The files of a clone from which the distribution is built."""
    folder = tmp_path / "clone"
    folder.mkdir()
    for part in PARTS["logout-notifier"]:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, folder / part)
    return folder


def test_the_section_is_short_and_each_way_has_its_page() -> None:
    """At most 25 lines, of less than 1,000 words in all."""
    assert SECTION is not None
    assert len(SECTION[1].strip().splitlines()) <= 25
    assert len(README.split()) < 1000
    assert [way for way in SECTION[1].split("\n- ")[1:] if "](docs/" not in way and "](deploy/" not in way] == []


@pytest.mark.timeout(300)
def test_the_command_is_installed_from_a_clone(clone: Path) -> None:
    """Into a new virtual environment, with its dependencies."""
    run_installer([sys.executable, "-m", "venv", clone / "venv"])
    pip, *arguments = shlex.split(printed("pip"))
    run_installer([clone / "venv/bin" / pip, "--quiet", *arguments], cwd=clone)
    assert run_installer([clone / "venv/bin/notifier", "--version"]).split()[-1] == RELEASE


async def test_a_second_worker_runs_beside_the_first(tmp_path: Path, amqp_url: str, prefix: str) -> None:
    """With the configuration of the first logout: both consume, and the API of the second reports both."""
    put_in = {
        "amqp://guest:guest@localhost:5672": amqp_url,
        **{port: f"127.0.0.1:{free}" for port, free in zip(PORTS, free_ports(len(PORTS)), strict=True)},
    }
    for name in ("curl", "jq"):
        program(name, name)
    shell = Shell(tmp_path, put_in, {"NOTIFIER_QUEUE__PREFIX": prefix}, {})
    try:
        for line in blocks("README.md", "sh")[1].splitlines():
            if line.startswith(("notifier keys", "(umask")):
                await shell.run(line)
        for file in blocks("README.md", "yaml"):
            shell.write(file.splitlines()[0].removeprefix("# "), file)
        await shell.run(f"NOTIFIER_OPS__LISTEN={PORTS[0]} notifier run -c notifier.yaml &")
        await shell.until_output(0, "consuming")
        await shell.run(f"{printed('NOTIFIER_OPS__LISTEN')} &")
        await shell.until_output(1, "consuming")

        async def workers() -> str:
            return await shell.run(f"curl -sf http://{PORTS[3]}/v1/status | jq .workers.answered")

        await until(workers, lambda count: count.strip() == "2", 30.0)
        for ops in (PORTS[0], PORTS[2]):
            await shell.run(f"curl -sf http://{ops}/readyz")
    finally:
        shell.end()


def test_the_chart_renders_from_its_folder(tmp_path: Path) -> None:
    """With the values of docs/kubernetes.md."""
    (tmp_path / "helm").symlink_to(ROOT / "helm")
    (tmp_path / "values.yaml").write_text(blocks("docs/kubernetes.md", "yaml")[0])
    helm, verb, *arguments = shlex.split(printed("helm"))
    assert verb == "install"
    assert "kind: Deployment" in run_installer(
        [Path(sys.executable).parent / helm, "template", *arguments], cwd=tmp_path
    )
