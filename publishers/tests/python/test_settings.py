"""All errors in the settings are reported together, each with its name and remedy, and never with the password."""

import errno
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from logout_notifier_publisher import PublisherSettings, SettingsError
from logout_notifier_publisher.address import AddressError, read_address
from logout_notifier_publisher.publisher_settings import format_error_without_user_data

PASSWORD = "p%40ss-word"


@pytest.mark.parametrize(
    ("url", "hosts", "vhost"),
    [
        ("amqps://idp@a.example.com", ["a.example.com:5671"], "/"),
        ("amqp://idp@a:1,b,[::1]:3/", ["a:1", "b:5672", "::1:3"], "/"),
        ("AMQPS://idp@a/shop", ["a:5671"], "shop"),
        ("amqps://idp@a/%2Fshop%2F", ["a:5671"], "/shop/"),
    ],
)
def test_a_brokers_address(url: str, hosts: list[str], vhost: str) -> None:
    """Hosts of one cluster, and its virtual host."""
    server = read_address(url)
    assert ([str(host) for host in server.hosts], server.vhost, server.user) == (hosts, vhost, "idp")


@pytest.mark.parametrize(
    "url",
    [
        "", 7, None, "rabbit", "redis://x", "amqps://host", "amqps://:x@host", "amqps://idp@", "amqps://idp@h:0",
        "amqps://idp@h:x", "amqps://idp@h:70000", "amqps://idp@a,,b", "amqps://idp@h/a/b", "amqps://idp@h?heartbeat=1", "amqps://idp@[x]",
        "amqps://idp@h h", "https://", "https://idp:x@h", "https://h/v1/events", "https://h/v1/events/okta",
        "https://h?x=1", "https://h:x",
        "https://a,b",
    ],
)  # fmt: skip
def test_an_invalid_address_is_refused(url: object) -> None:
    """Each raises an error with the reason."""
    with pytest.raises(AddressError):
        read_address(url)


def test_all_mistakes_are_listed(tmp_path: Path) -> None:
    """Of names, of values, of files that cannot be read."""
    given: dict[str, Any] = {
        "URL": f"amqps://idp:{PASSWORD}@h:x",
        "secret_file": tmp_path / "none",
        "outbox": tmp_path / "file" / "below",
        "outbox_max_events": 0,
        "publish_limit": "10",
        "exchange": "",
        "key_file": tmp_path / "none",
        "exchnage": "x",
    }
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError) as caught:
        PublisherSettings.from_mapping(given)
    named = {name for name, _ in caught.value.mistakes}
    assert named == {
        "url",
        "secret_file",
        "outbox",
        "outbox_max_events",
        "publish_limit",
        "exchange",
        "key_file",
        "exchnage",
    }
    assert PASSWORD not in str(caught.value)


def test_the_tls_files_must_go_together(tmp_path: Path) -> None:
    """And be of use."""
    (tmp_path / "ca.pem").write_text("no certificate")
    ours: dict[str, Any] = {"outbox": tmp_path, "secret": "x", "ca_file": tmp_path / "ca.pem"}
    assert PublisherSettings(url="amqps://idp@h", **ours).find_mistakes()[0][0] == "ca_file"
    ((name, text),) = PublisherSettings(url="amqp://idp@h", **ours).find_mistakes()
    assert (name, "requires TLS" in text) == ("ca_file", True)


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("HTTPS://Notifier.example.com/", "https://notifier.example.com"),
        ("http://[::1]:8080/at/", "http://[::1]:8080/at"),
    ],
)
def test_an_apis_address(url: str, base: str) -> None:
    """What its paths begin with."""
    server = read_address(url)
    assert (server.protocol, server.tls, server.base) == ("http", base.startswith("https"), base)


def test_an_api_needs_aiohttp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is not installed, the error names the extra to install. A broker needs none."""
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    ((name, text),) = PublisherSettings(url="https://h", outbox=tmp_path).find_mistakes()
    assert (name, text.partition(": ")[2]) == ("url", "pip install 'logout-notifier-publisher[http]'")
    assert PublisherSettings(url="amqps://idp@h", outbox=tmp_path, secret="x").find_mistakes() == []


def test_the_package_is_light() -> None:
    """Importing it starts nothing, and imports no client library, no Django and nothing of the service."""
    script = "import sys, threading, logout_notifier_publisher; print(threading.active_count(), *sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    threads, *modules = done.stdout.split()
    heavy = {"aio_pika", "aiormq", "aiohttp", "django", "prometheus_client", "structlog", "uvloop", "cryptography"}
    assert threads == "1"
    assert not heavy & set(modules)
    assert [name for name in modules if name.partition(".")[0] == "notifier"] == []


def test_the_cause_of_a_loss_has_the_systems_text_and_no_other() -> None:
    """The text of another error may name the user, and so may a file, except one of the outbox."""
    full = OSError(errno.ENOSPC, "any text", "/var/outbox/a")
    assert format_error_without_user_data(full, with_file=True) == "No space left on device: /var/outbox/a"
    assert format_error_without_user_data(full) == "No space left on device"
    assert (
        format_error_without_user_data(socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
        == "Name or service not known"
    )
    for error in (OSError("alice", "alice"), OSError(2**70, "alice"), OSError(-1, "alice"), ssl.SSLError("alice")):
        assert format_error_without_user_data(error, with_file=True) == type(error).__name__
    assert format_error_without_user_data(RuntimeError("alice")) == "RuntimeError"
    assert format_error_without_user_data(ConnectionResetError("alice")) == "ConnectionResetError"
