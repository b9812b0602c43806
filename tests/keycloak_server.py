"""A Keycloak of our own on a free port of loopback. Its database is in memory: nothing is left."""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.keycloak_installation import SIGNALS, environment, find_keycloak, keycloak_version
from tests.rabbitmq_node import _guard, free_ports

STARTING = 240.0  # seconds; 16 on two idle cores
ADMIN = "admin"
_PUSHING = (
    "--spi-ssf-transmitter--default--allow-insecure-push-targets=true",
    "--spi-ssf-transmitter--default--outbox-drainer-interval=1s",
)
_PUSH = "urn:ietf:rfc:8935"
_REVOKED = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class KeycloakServer:
    """One that runs. `home`: a folder for its log."""

    def __init__(self, home: Path) -> None:
        [port] = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self.signals = keycloak_version() in SIGNALS
        self._log = home / "keycloak.log"
        command = [
            str(find_keycloak() / "bin/kc.sh"), "start", "--optimized", "--cache=local", "--http-enabled=true",
            "--hostname-strict=false", "--http-host=127.0.0.1", f"--http-port={port}", "--log-level=warn",
            *(_PUSHING if self.signals else ()),
        ]  # fmt: skip
        env = {
            **environment(home),
            "KC_BOOTSTRAP_ADMIN_USERNAME": ADMIN,
            "KC_BOOTSTRAP_ADMIN_PASSWORD": ADMIN,
            "JAVA_OPTS_KC_HEAP": "-Xms128m -Xmx512m",
            "JAVA_OPTS_APPEND": "-XX:TieredStopAtLevel=1",  # compiles quickly rather than well: it lives for a minute
        }
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, env=env, cwd=home, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._guard = _guard(self._process.pid)

    def wait(self) -> None:
        """Until it answers."""
        until = time.monotonic() + STARTING
        while time.monotonic() < until and self._process.poll() is None:
            with contextlib.suppress(OSError):
                _OPENER.open(f"{self.url}/realms/master", timeout=10).close()
                return
            time.sleep(0.1)
        raise AssertionError(f"Keycloak did not start: {self._log.read_text(errors='replace')[-2000:]}")

    def stop(self) -> None:
        """Kill it, with the Java that its script started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(30)
        self._guard.kill()
        self._guard.communicate()

    def admin(self, method: str, path: str, body: object = None) -> Any:
        """Ask the Admin API, below /admin/realms, as its administrator."""
        form = {"grant_type": "password", "client_id": "admin-cli", "username": ADMIN, "password": ADMIN}
        token = _ask("POST", f"{self.url}/realms/master/protocol/openid-connect/token", urlencode(form).encode())
        headers = {"Authorization": f"Bearer {token['access_token']}", "Content-Type": "application/json"}
        sent = None if body is None else json.dumps(body).encode()
        return _ask(method, f"{self.url}/admin/realms{path}", sent, headers)

    def push_signals(self, realm: str, client_id: str, secret: str, endpoint: str) -> None:
        """Have a realm push the end of each session, in the name of a client that may manage streams."""
        form = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": secret}
        url = f"{self.url}/realms/{realm}/protocol/openid-connect/token"
        token = _ask("POST", url, urlencode(form | {"scope": "ssf.manage"}).encode())
        headers = {"Authorization": f"Bearer {token['access_token']}", "Content-Type": "application/json"}
        stream = {"delivery": {"method": _PUSH, "endpoint_url": endpoint}, "events_requested": [_REVOKED]}
        _ask("POST", f"{self.url}/realms/{realm}/ssf/transmitter/streams", json.dumps(stream).encode(), headers)


def _ask(method: str, url: str, body: bytes | None, headers: dict[str, str] | None = None) -> Any:
    try:
        with _OPENER.open(urllib.request.Request(url, body, headers or {}, method=method), timeout=60) as answer:
            text = answer.read()
            return json.loads(text) if text else None
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{method} {url}: {error.code} {error.read()[:500]!r}") from None


@contextlib.contextmanager
def keycloak_server() -> Iterator[KeycloakServer]:
    """One that answers, and is killed afterwards. Raises KeycloakMissing."""
    with tempfile.TemporaryDirectory(prefix="keycloak.", ignore_cleanup_errors=True) as home:
        server = KeycloakServer(Path(home))
        try:
            server.wait()
            yield server
        finally:
            server.stop()
