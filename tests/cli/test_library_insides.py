"""A library with other internals: no start where no public way exists, and a start on the public way where one does."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from notifier.network.http.aiohttp_hooks import examine_aiohttp
from notifier.queues.rabbitmq.wire.aiormq_hooks import TRIED_PAMQP, install
from tests.cli.in_process import notifier
from tests.support.library_changes import all_hooks_off, decoding
from tests.tokens.key_folder import pem


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A configuration without a mistake, and a pamqp that cannot decode what any publisher wrote."""
    (tmp_path / "k.pem").write_bytes(pem("ES256"))
    settings = {
        "queue": {"url": "amqp://127.0.0.1:9/"},
        "issuers": {"https://id.example.com": {"keys": [{"file": "k.pem"}]}},
        "registry": {"file": "clients.yaml"},
    }
    (tmp_path / "n.yaml").write_text(yaml.safe_dump(settings))
    (tmp_path / "clients.yaml").write_text("[]")
    for examine in (install, examine_aiohttp):
        examine.cache_clear()
    decoding(monkeypatch.setattr)
    yield tmp_path
    monkeypatch.undo()
    for examine in (install, examine_aiohttp):
        examine.cache_clear()
    install()


@pytest.mark.parametrize("command", ["run", "check"])
def test_it_is_refused_with_the_versions_that_work(folder: Path, command: str) -> None:
    """Exit status 2, like a mistake in the configuration."""
    done = notifier(command, "-c", "n.yaml", cwd=folder)
    assert done.returncode == 2
    assert f"install one of {TRIED_PAMQP} (" in " ".join(done.stderr.split())


def test_a_script_reads_which_library_it_is(folder: Path) -> None:
    """Its path is the library's name."""
    done = notifier("check", "-c", "n.yaml", "--json", cwd=folder)
    assert [each["path"] for each in json.loads(done.stdout)["mistakes"]] == ["pamqp"]


def test_an_embedded_queue_does_not_need_it(folder: Path) -> None:
    """Nothing of it is used there."""
    done = notifier("check", "-c", "n.yaml", cwd=folder, settings={"NOTIFIER_QUEUE__URL": "sqlite:queue.db"})
    assert done.returncode == 0, done.stderr


def test_what_has_a_public_way_is_not_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all hooks off, a worker can start."""
    monkeypatch.undo()
    all_hooks_off(monkeypatch.setattr)
    done = notifier("check", "-c", "n.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
