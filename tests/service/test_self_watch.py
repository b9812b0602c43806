"""Test a worker's self checks: the loop's delay, the expiry of certificates, and the modes of secret files."""

import asyncio
import datetime as dt
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import cast

import pytest
from structlog.testing import capture_logs

from notifier.configuration.live_configuration import LiveConfiguration
from notifier.configuration.secret_files import find_exposed_files, secrets_of
from notifier.model.client import Client, Route, TlsFiles
from notifier.model.registry import Issuer, Registry
from notifier.network.listeners.certificates import find_presented_files, read_expiries
from notifier.service.self_watch import LAG_WINDOW_SECONDS, LoopLag, SelfWatch, Watchdog
from notifier.settings.service_settings import Settings
from tests.support.certificates import ODD_CERTIFICATES, authority, odd_certificate
from tests.system.waiting import until


def test_worst_delay_is_reported_until_every_scraper_has_seen_it() -> None:
    """It stays for LAG_WINDOW_SECONDS at least, and is removed after twice as long."""
    lag = LoopLag(100.0)
    lag.add(0.01, 100.5)
    assert lag.worst == 0.01
    lag.add(2.0, 101.0)
    lag.add(0.0, 101.0 + LAG_WINDOW_SECONDS)
    assert lag.worst == 2.0
    lag.add(0.0, 101.0 + 2 * LAG_WINDOW_SECONDS)
    assert lag.worst == 0.0


@pytest.mark.parametrize("abstract", [False, True])
def test_the_watchdog_of_systemd_is_fed(tmp_path: Path, *, abstract: bool) -> None:
    """Four times within the limit, if the limit is for this process; an unreachable socket is not an error."""
    name = f"@notifier-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as listener:
        listener.bind(name.replace("@", "\0"))
        environ = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "120000000"}
        watchdog = Watchdog({**environ, "WATCHDOG_PID": "7"}, 7)
        for now in (100.0, 129.0, 130.0, 131.0):
            watchdog.feed(now)
        assert [listener.recv(100) for _ in range(2)] == [b"WATCHDOG=1"] * 2
        for others in ({**environ, "WATCHDOG_PID": "8"}, {"NOTIFY_SOCKET": name}, {"WATCHDOG_USEC": "1"}, {}):
            Watchdog(others, 7).feed(100.0)
        with pytest.raises(BlockingIOError):
            listener.recv(100)
    Watchdog({**environ, "NOTIFY_SOCKET": str(tmp_path / "nobody")}, 7).feed(100.0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Create a folder that is accessible to all, as `/etc` is."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def secrets_in(folder: Path, mode: int) -> tuple[Settings, Registry]:
    """Create a configuration with every kind of secret file, all with this mode."""

    def secret(name: str) -> Path:
        file = folder / name
        file.write_text("secret")
        file.chmod(mode)
        return file

    tls = {"cert_file": secret("cert"), "key_file": secret("tls")}
    settings = Settings.model_validate(
        {
            "issuers": {"https://id.example.com": {"keys": [{"file": secret("k1")}, {"file": secret("k2")}]}},
            "queue": {"url": "amqps://localhost/", "username": "u", "password_file": secret("password"), "tls": tls},
            "api": {"listen": "127.0.0.1:0", "tokens_file": secret("tokens"), "tls": tls},
            "log": {"subject_key_file": secret("log")},
        }
    )
    route = Route(tls=TlsFiles(cert_file=folder / "cert", key_file=secret("client")))
    client = Client(iss="i", client_id="shop", backchannel_logout_uri="https://a/", route=route)
    return settings, Registry(issuers={"i": Issuer(iss="i")}, clients={"i": {"shop": client}})


@pytest.mark.parametrize(
    ("mode", "reported"), [(0o600, False), (0o440, False), (0o640, False), (0o644, True), (0o604, True)]
)
def test_secrets_that_others_may_read_are_reported(open_folder: Path, mode: int, *, reported: bool) -> None:
    """Each with its setting and the remedy; group access is intended, as in Kubernetes; certificates are public."""
    found = find_exposed_files(secrets_of(*secrets_in(open_folder, mode), ()))
    names = {"k1", "k2", "password", "tls", "tokens", "log", "client"}
    assert {each.path.name for each in found} == (names if reported else set())
    for each in found:
        assert f"(mode {mode:04o})" in each.text
        assert f"chmod 600 {each.path}" in each.advice


def test_secret_in_a_private_folder_is_not_reported(open_folder: Path) -> None:
    """For any mode of the file; a missing file is reported elsewhere."""
    inner = open_folder / "inner"
    inner.mkdir(mode=0o750)
    settings, registry = secrets_in(inner, 0o644)
    assert find_exposed_files(secrets_of(settings, registry, ())) == []
    (inner / "k1").unlink()
    inner.chmod(0o755)
    assert "k1" not in {each.path.name for each in find_exposed_files(secrets_of(settings, registry, ()))}


async def test_a_worker_warns_at_its_start(open_folder: Path) -> None:
    """Once per file."""
    settings, registry = secrets_in(open_folder, 0o644)
    live = SimpleNamespace(current=SimpleNamespace(settings=settings, registry=registry, parts=()))
    watch = SelfWatch(cast("LiveConfiguration", live))
    with capture_logs() as log:
        watching = asyncio.create_task(watch.watch_files())
        await until(lambda: _count(log), lambda count: count > 0)
        watch._warn_exposed(find_exposed_files(secrets_of(settings, registry, ())))
        watching.cancel()
    assert {line["setting"] for line in log if line["event"] == "secret_file_exposed"} >= {"queue.password_file"}
    assert len(log) == 7


@pytest.mark.parametrize("kind", ODD_CERTIFICATES)
async def test_an_odd_certificate_of_a_client_does_not_end_the_watch(tmp_path: Path, kind: str) -> None:
    """OpenSSL loads it, and another parser may not. The expiry of the other certificates is read."""
    (tmp_path / "odd.pem").write_text(odd_certificate(kind))
    good = authority(tmp_path).issue("localhost")
    watch = SelfWatch(_live_with(TlsFiles(cert_file=tmp_path / "odd.pem"), TlsFiles(cert_file=good)))
    watching = asyncio.create_task(watch.watch_files())
    await until(lambda: _count(watch.certificates), lambda count: count > 0 or watching.done())
    assert not watching.done()
    assert [file for _, file, _ in watch.certificates if file != str(tmp_path / "odd.pem")] == [str(good)]
    watching.cancel()


async def test_a_file_that_cannot_be_examined_does_not_end_the_watch(tmp_path: Path) -> None:
    """The fault is logged without its text, and the certificates that were read before keep their expiry."""
    good = authority(tmp_path).issue("localhost")
    watch = SelfWatch(_live_with(TlsFiles(cert_file=good, key_file=Path("a\0b"))))
    with capture_logs() as log:
        watching = asyncio.create_task(watch.watch_files())
        await until(lambda: _count(log), lambda count: count > 0 or watching.done())
        assert not watching.done()
        watching.cancel()
    assert log == [{"event": "own_files_failed", "error": "ValueError", "log_level": "error"}]
    assert [file for _, file, _ in watch.certificates] == [str(good)]


def _live_with(*files: TlsFiles) -> LiveConfiguration:
    """Return a configuration with a client for each of these TLS files."""
    clients = {
        name: Client(iss="i", client_id=name, backchannel_logout_uri="https://a/", route=Route(tls=each))
        for name, each in zip("abc", files, strict=False)
    }
    settings = Settings.model_validate({"queue": {"url": "amqps://localhost/"}})
    registry = Registry(issuers={"i": Issuer(iss="i")}, clients={"i": clients})
    current = SimpleNamespace(settings=settings, registry=registry, parts=())
    return cast("LiveConfiguration", SimpleNamespace(current=current))


async def _count(log: Sequence[object]) -> int:
    return len(log)


def test_own_certificates_have_their_expiry(tmp_path: Path) -> None:
    """The listeners', the broker's and each client's; an unreadable file is omitted, as are authorities in a chain."""
    pem = authority(tmp_path).issue_with_expired("localhost")
    settings = Settings.model_validate(
        {
            "queue": {"url": "amqps://localhost/", "tls": {"cert_file": pem, "key_file": pem}},
            "api": {"listen": "127.0.0.1:0", "tls": {"cert_file": pem, "key_file": pem}},
            "web": {"listen": "127.0.0.1:0", "tls": {"cert_file": pem, "key_file": pem}, "keys_file": pem},
        }
    )
    (tmp_path / "broken.pem").write_text("no certificate")

    def client(name: str, file: Path) -> Client:
        return Client(
            iss="i", client_id=name, backchannel_logout_uri="https://a/", route=Route(tls=TlsFiles(cert_file=file))
        )

    clients = {"shop": client("shop", pem), "mail": client("mail", tmp_path / "broken.pem")}
    found = read_expiries(
        find_presented_files(settings, Registry(issuers={"i": Issuer(iss="i")}, clients={"i": clients})).items()
    )
    assert sorted((use, file) for use, file, _ in found) == [
        (use, str(pem)) for use in ("api", "client", "queue", "web")
    ]
    tomorrow = dt.datetime.now(dt.UTC).timestamp() + 86_400
    assert all(abs(moment - tomorrow) < 3600 for _, _, moment in found)
