"""Test the recipe of the image; `make test-image` builds and runs it."""

import json
import re
import subprocess
import sys
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from threading import Thread

import pytest

from notifier import RELEASE

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile").read_text()
STAGES = TEXT.split("\nFROM ")[1:]


def instructions(stage: str, word: str) -> list[str]:
    """Return the arguments of an instruction, once for each use; continued lines are joined."""
    lines = stage.replace("\\\n", " ").splitlines()
    return [line.removeprefix(f"{word} ").strip() for line in lines if line.startswith(f"{word} ")]


def test_all_that_is_copied_is_there_and_nothing_else_is_sent() -> None:
    """.dockerignore excludes everything except the files of the recipe: no key is copied into a layer by accident."""
    copied = [source for each in instructions(STAGES[0], "COPY") for source in each.split()[:-1]]
    assert all((ROOT / source).exists() for source in copied)
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    assert {line.removeprefix("!") for line in lines if line.startswith("!")} == set(copied)


def test_what_is_installed_is_locked() -> None:
    """By hash, as wheels, and for the package itself without dependencies."""
    installs = re.findall(r"pip install ([^&\n]*)", "\n".join(instructions(STAGES[0], "RUN")))
    assert len(installs) == 2
    assert "--require-hashes" in installs[0]
    assert "--only-binary :all:" in installs[0]
    assert "--no-deps" in installs[1]


def pinned(name: str) -> dict[str, str]:
    """Return the versions of a lock file."""
    return dict(re.findall(r"(?m)^([a-z0-9-]+)==(\S+)", (ROOT / "deploy" / name).read_text()))


def test_what_is_installed_is_what_is_tested() -> None:
    """The image's packages, of the same versions, are among those of the tests."""
    image = pinned("requirements-image.txt")
    assert len(image) > 40
    assert image.items() <= pinned("requirements-dev.txt").items()
    assert pinned("requirements.txt").items() <= image.items()


def test_it_runs_as_nobody_and_stops_by_a_drain() -> None:
    """A numeric user, which Kubernetes can distinguish from root."""
    final = STAGES[-1]
    assert instructions(final, "USER") == ["65532:65532"]
    assert instructions(final, "STOPSIGNAL") == ["SIGTERM"]
    assert instructions(final, "ENTRYPOINT") == ['["notifier"]']
    assert instructions(final, "HEALTHCHECK")
    assert f"VERSION={RELEASE}" in instructions(final, "ARG")


def test_a_build_that_is_no_release_has_its_commit() -> None:
    """As an argument, in the place where the package looks for it. `make image` gives it."""
    assert "COMMIT=" in instructions(STAGES[0], "ARG")
    assert 'mkdir /src/.git && echo "${COMMIT}" > /src/.git/HEAD' in instructions(STAGES[0], "RUN")
    assert '--build-arg COMMIT="$$commit"' in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("variable", ["MALLOC_ARENA_MAX=1", "MALLOC_TRIM_THRESHOLD_=131072"])
def test_the_heap_is_returned_to_the_system(variable: str) -> None:
    """Otherwise each thread that reads many clients keeps a heap: 530 MB where the chart allows 512 MiB.

    And large buffers, as of TLS connections, stay in it: 185 instead of 152 MiB after four floods of 950 connections.
    """
    unit = (ROOT / "deploy" / "systemd" / "notifier.service").read_text()
    assert variable in " ".join(instructions(STAGES[-1], "ENV")).split()
    assert variable in " ".join(re.findall(r"(?m)^Environment=(.*)", unit)).split()


def test_the_base_is_named_once_for_all_stages() -> None:
    """So that a release, which names it by digest, builds and runs on the same."""
    assert [stage.split()[0] for stage in STAGES] == ["${PYTHON_IMAGE}"] * 2


def test_the_health_check_uses_no_proxy() -> None:
    """The address is of the container itself, and its environment may name a proxy for others."""
    [check] = instructions(STAGES[-1], "HEALTHCHECK")
    _, *arguments = json.loads(check[check.index("[") :])
    with HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        Thread(target=server.handle_request, daemon=True).start()
        environment = {"LIVEZ": f"http://127.0.0.1:{server.server_port}/", "http_proxy": "http://127.0.0.1:1"}
        subprocess.run([sys.executable, *arguments], env=environment, check=True, timeout=60)
