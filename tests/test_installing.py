"""What cannot be installed says why, whichever program should have got it: here from a registry that nobody serves."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.apt_programs import ProgramMissing, program
from tests.installing import InstallFailed, run_installer
from tests.npm_modules import node_modules
from tests.rabbitmq_node import free_ports

POM = """<project><modelVersion>4.0.0</modelVersion><groupId>a</groupId><artifactId>a</artifactId><version>1</version>
<dependencies><dependency><groupId>none</groupId><artifactId>such</artifactId><version>1</version></dependency>
</dependencies></project>"""
MIRROR = """<settings><mirrors><mirror><id>nobody</id><mirrorOf>*</mirrorOf><url>{url}</url></mirror></mirrors>
</settings>"""
INTEGRITY = "sha512-" + "A" * 86 + "=="


def by_npm(folder: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    package = {"name": "a", "version": "1.0.0", "dependencies": {"none-such": "1.0.0"}}
    locked = {"": package, "node_modules/none-such": {"version": "1.0.0", "integrity": INTEGRITY}}
    (folder / "package.json").write_text(json.dumps(package))
    (folder / "package-lock.json").write_text(json.dumps({**package, "lockfileVersion": 3, "packages": locked}))
    for name, value in {"registry": url, "cache": str(folder / "cache"), "fetch_retries": "0"}.items():
        monkeypatch.setenv(f"npm_config_{name}", value)
    node_modules(folder, folder / "kept")


def by_apt(folder: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root installs by apt")
    (folder / "lists/partial").mkdir(parents=True)
    (folder / "sources.list").write_text(f"deb [trusted=yes] {url} none main\n")
    (folder / "apt.conf").write_text(
        f'Dir::Etc::sourcelist "{folder}/sources.list"; Dir::Etc::sourceparts "-"; Acquire::Retries "0";\n'
        f'Dir::State::lists "{folder}/lists"; Dir::Cache "{folder}"; APT::Sandbox::User "root";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(folder / "apt.conf"))
    program("none-such", "none-such")


def by_maven(folder: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "pom.xml").write_text(POM)
    (folder / "settings.xml").write_text(MIRROR.format(url=url))
    run_installer(
        [program("mvn", "maven"), "-q", "-B", "-s", "settings.xml", f"-Dmaven.repo.local={folder}/m2", "compile"],
        cwd=folder,
    )


@pytest.mark.parametrize(
    ("install", "why"),
    [
        (by_npm, "ECONNREFUSED"),
        (by_apt, "Unable to locate package none-such"),
        pytest.param(by_maven, "Connection refused", marks=pytest.mark.full),
    ],
)
def test_an_unreachable_registry_is_named(
    install: Callable[[Path, str, pytest.MonkeyPatch], None],
    why: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With its address, and what the program says of it."""
    [port] = free_ports(1)
    for proxy in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    with pytest.raises((InstallFailed, ProgramMissing), match=why) as failed:
        install(tmp_path, f"http://127.0.0.1:{port}", monkeypatch)
    assert f"127.0.0.1:{port}" in str(failed.value)


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (["sh", "-c", "echo on one; echo on the other >&2; exit 3"], "status 3.*: on one\non the other"),
        (["sh", "-c", "exit 3"], "status 3; it printed nothing"),
        (["sh", "-c", "exec sleep 60"], "did not end within 1 s"),
        (["/none/such"], "could not be run: .*No such file"),
    ],
)
def test_a_failure_says_how_it_ended_and_what_was_printed(command: list[str], why: str) -> None:
    """On either stream, and also where it hangs, or is not there."""
    with pytest.raises(InstallFailed, match=why):
        run_installer(command, seconds=1)
