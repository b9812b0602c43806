"""A private Keycloak on a free loopback port. Its database is in memory unless a test names another."""

import contextlib
import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.support.keycloak_installation import SIGNALS, environment, find_keycloak, keycloak_version
from tests.support.rabbitmq_node import _guard, free_ports

STARTING = 240.0  # seconds; 16 on two idle cores
TOKEN_LIFE = 30.0  # half of Keycloak's default
ADMIN = "admin"
_PUSHING = (
    "--spi-ssf-transmitter--default--allow-insecure-push-targets=true",
    "--spi-ssf-transmitter--default--outbox-drainer-interval=1s",
)
_PUSH = "urn:ietf:rfc:8935"
_REVOKED = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Keycloak:
    """A running server. `signals`: it can be a Shared Signals transmitter."""

    def __init__(self, port: int, management: int, log: Path, *, signals: bool) -> None:
        self.port = port
        self.management = management
        self.url = f"http://127.0.0.1:{port}"
        self.metrics = f"http://127.0.0.1:{management}/metrics"
        self.signals = signals
        self.log = log
        self._token, self._token_until = "", 0.0

    def admin(self, method: str, path: str, body: object = None) -> Any:
        """Call the Admin API, below /admin/realms, as administrator."""
        if time.monotonic() > self._token_until:
            form = {"grant_type": "password", "client_id": "admin-cli", "username": ADMIN, "password": ADMIN}
            url = f"{self.url}/realms/master/protocol/openid-connect/token"
            self._token = _ask("POST", url, urlencode(form).encode())["access_token"]
            self._token_until = time.monotonic() + TOKEN_LIFE
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        sent = None if body is None else json.dumps(body).encode()
        return _ask(method, f"{self.url}/admin/realms{path}", sent, headers)

    def push_signals(self, realm: str, client_id: str, secret: str, endpoint: str) -> None:
        """Make a realm push the end of each session, as a client that may manage streams."""
        form = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": secret}
        url = f"{self.url}/realms/{realm}/protocol/openid-connect/token"
        token = _ask("POST", url, urlencode(form | {"scope": "ssf.manage"}).encode())
        headers = {"Authorization": f"Bearer {token['access_token']}", "Content-Type": "application/json"}
        stream = {"delivery": {"method": _PUSH, "endpoint_url": endpoint}, "events_requested": [_REVOKED]}
        _ask("POST", f"{self.url}/realms/{realm}/ssf/transmitter/streams", json.dumps(stream).encode(), headers)


class KeycloakServer(Keycloak):
    """One server. `home`: a folder for its log.

    `installation`: default is the version under test. `options`: more for `kc.sh start`, `settings`: more environment
    variables. `port`: a stopped server's port; default is a free one. `signals`: the installation was built for them.
    After `kill` or `terminate` it may be started again at the same address.
    """

    def __init__(
        self,
        home: Path,
        installation: Path | None = None,
        *,
        options: Sequence[str] = (),
        settings: Mapping[str, str] | None = None,
        port: int = 0,
        signals: bool | None = None,
    ) -> None:
        free, management = free_ports(2)
        if signals is None:
            signals = installation is None and keycloak_version() in SIGNALS
        super().__init__(port or free, management, home / "keycloak.log", signals=signals)
        self._home = home
        self._command = [
            str((installation or find_keycloak()) / "bin/kc.sh"), "start", "--optimized", "--cache=local",
            "--http-enabled=true", "--hostname-strict=false", "--http-host=127.0.0.1", f"--http-port={self.port}",
            f"--http-management-port={management}",
            *(_PUSHING if self.signals else ()), *(options or ("--log-level=warn",)),
        ]  # fmt: skip
        self._settings = {
            **environment(home),
            "KC_BOOTSTRAP_ADMIN_USERNAME": ADMIN,
            "KC_BOOTSTRAP_ADMIN_PASSWORD": ADMIN,
            "JAVA_OPTS_KC_HEAP": "-Xms128m -Xmx512m",
            "JAVA_OPTS_APPEND": "-XX:TieredStopAtLevel=1",  # compiles quickly rather than well: runs for a minute
            **(settings or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server. It answers only some time later."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._settings, cwd=self._home, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        self._guard = _guard(self._process.pid)

    def wait(self) -> None:
        """Wait until the server answers."""
        assert self._process is not None
        until = time.monotonic() + STARTING
        while time.monotonic() < until and self._process.poll() is None:
            with contextlib.suppress(OSError):
                _OPENER.open(f"{self.url}/realms/master", timeout=10).close()
                return
            time.sleep(0.1)
        raise AssertionError(f"Keycloak did not start: {self.log.read_text(errors='replace')[-2000:]}")

    def kill(self) -> None:
        """Send SIGKILL to the server's script and its Java process."""
        self._end(signal.SIGKILL)

    def terminate(self) -> None:
        """Send SIGTERM, as an operator does."""
        self._end(signal.SIGTERM)

    def _end(self, sign: signal.Signals) -> None:
        if self._process is None:
            return
        java = self._java()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, sign)
        self._process.wait(60)
        while java and Path(f"/proc/{java}").exists():  # the script may have ended before
            time.sleep(0.01)
        self._guard.kill()
        self._guard.communicate()
        self._process = None

    def _java(self) -> int | None:
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        with contextlib.suppress(OSError):
            return next((int(child) for child in children.read_text().split()), None)
        return None

    @property
    def pid(self) -> int:
        """Return the id of the Java process that the script started."""
        java = self._java()
        assert java is not None
        return java


def _ask(method: str, url: str, body: bytes | None, headers: dict[str, str] | None = None) -> Any:
    try:
        with _OPENER.open(urllib.request.Request(url, body, headers or {}, method=method), timeout=STARTING) as answer:
            text = answer.read()
            return json.loads(text) if text else None
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{method} {url}: {error.code} {error.read()[:500]!r}") from None
