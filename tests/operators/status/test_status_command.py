"""`notifier status` where there is nothing to ask."""

import json
import socket
import time
from pathlib import Path

import pytest

from tests.cli.in_process import notifier


def test_without_a_file_there_is_nothing_to_show(tmp_path: Path) -> None:
    """Looking makes none."""
    done = notifier("status", cwd=tmp_path, settings={"NOTIFIER_QUEUE__URL": "sqlite:q.db"})
    assert done.returncode == 1
    assert "there is no queue file" in done.stderr
    assert not list(tmp_path.iterdir())


def test_without_a_configuration_it_says_how_to_name_one(tmp_path: Path) -> None:
    """And which file it looked for."""
    done = notifier("status", cwd=tmp_path)
    assert done.returncode == 2
    assert all(word in done.stderr for word in (str(tmp_path / "notifier.db"), "-c FILE", "NOTIFIER_CONFIG"))
    assert not list(tmp_path.iterdir())


def test_a_broker_that_is_away_is_told(tmp_path: Path) -> None:
    """Exit 1, with what to do, within 2 s; also by a broker that is silent."""
    done = notifier("status", cwd=tmp_path, settings={"NOTIFIER_QUEUE__URL": "amqp://127.0.0.1:1/"})
    assert done.returncode == 1
    assert done.stderr.startswith("notifier: 127.0.0.1:1")
    assert "notifier explain NotifierQueueDisconnected" in done.stderr
    assert "notifier status --from http://" in done.stderr


@pytest.mark.parametrize(
    ("api", "advice"),
    [
        ({}, "http://127.0.0.1:8080"),
        ({"listen": "127.0.0.1:18080", "tls": {"cert_file": "c.pem", "key_file": "k.pem"}}, "https://127.0.0.1:18080"),
        ({"listen": "0.0.0.0:8080", "tokens_file": "t.yaml"}, "http://127.0.0.1:8080 --token-file FILE"),
        (
            {"listen": "[::]:8443", "tls": {"cert_file": "c.pem"}, "tokens_file": "t"},
            "https://127.0.0.1:8443 --token-file FILE",
        ),
        ({"listen": "[::1]:8080"}, "http://[::1]:8080"),
        ({"listen": 5}, "http://HOST:PORT of its API"),
        (None, "http://HOST:PORT of its API"),
    ],
)
def test_the_advice_names_the_api_as_it_can_be_asked(tmp_path: Path, api: object, advice: str) -> None:
    """From this machine: its scheme, an address that answers, and the token that it wants."""
    (tmp_path / "n.yaml").write_text(json.dumps({"queue": {"url": "amqp://127.0.0.1:1/"}, "api": api}))
    done = notifier("status", "-c", "n.yaml", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(f": notifier status --from {advice}")


@pytest.mark.parametrize("url", ["127.0.0.1:18080", "localhost", "ftp://127.0.0.1", "http://[::"])
def test_an_address_that_is_none_is_a_mistake(tmp_path: Path, url: str) -> None:
    """Of whoever typed it; the answer says what is missing."""
    done = notifier("status", "--from", url, cwd=tmp_path)
    assert done.returncode == 2
    assert ("is no address" if url.startswith("http") else "must begin with http:// or https://") in done.stderr


def test_a_broker_that_is_silent_is_told_within_two_seconds(tmp_path: Path) -> None:
    """It takes the connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"amqp://127.0.0.1:{silent.getsockname()[1]}/"
        began = time.monotonic()
        done = notifier("status", cwd=tmp_path, settings={"NOTIFIER_QUEUE__URL": url})
        assert time.monotonic() - began < 2
    assert done.returncode == 1
    assert "did not answer within 1.2 s" in done.stderr
