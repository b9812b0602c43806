"""A library that is inside another than the versions tried: a worker does not start, and `check` says why before."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from notifier.network.http.aiohttp_hooks import demand_aiohttp
from notifier.queues.rabbitmq.wire.aiormq_hooks import TRIED_AIORMQ, install
from tests.cli.in_process import notifier
from tests.queues.rabbitmq.aiormq_changes import writing
from tests.tokens.key_folder import pem


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A configuration without a mistake, and an aiormq that keeps other books."""
    (tmp_path / "k.pem").write_bytes(pem("ES256"))
    settings = {
        "queue": {"url": "amqp://127.0.0.1:9/"},
        "issuers": {"https://id.example.com": {"keys": [{"file": "k.pem"}]}},
        "registry": {"file": "clients.yaml"},
    }
    (tmp_path / "n.yaml").write_text(yaml.safe_dump(settings))
    (tmp_path / "clients.yaml").write_text("[]")
    for looked in (install, demand_aiohttp):
        looked.cache_clear()
    writing(monkeypatch)
    yield tmp_path
    install.cache_clear()


@pytest.mark.parametrize("command", ["run", "check"])
def test_it_is_refused_with_the_version_to_install(folder: Path, command: str) -> None:
    """Exit status 2, like a mistake in the configuration."""
    done = notifier(command, "-c", "n.yaml", cwd=folder)
    assert done.returncode == 2
    assert f"install {TRIED_AIORMQ} (" in " ".join(done.stderr.split())


def test_a_script_reads_which_library_it_is(folder: Path) -> None:
    """Its path is the library's name."""
    done = notifier("check", "-c", "n.yaml", "--json", cwd=folder)
    assert [each["path"] for each in json.loads(done.stdout)["mistakes"]] == ["aiormq"]


def test_an_embedded_queue_does_not_ask_for_it(folder: Path) -> None:
    """Nothing of aiormq is used there."""
    done = notifier("check", "-c", "n.yaml", cwd=folder, settings={"NOTIFIER_QUEUE__URL": "sqlite:queue.db"})
    assert done.returncode == 0, done.stderr
