"""The programs that the README and the page print run unchanged."""

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from publishers.tests.oidc_provider.installed import NODE, PACKAGE, ROOT, npm_folder

README = (PACKAGE / "README.md").read_text()
PAGE = (ROOT / "docs/identity-servers/oidc-provider.md").read_text()
PATIENCE = 30.0
NOTIFIER = (sys.executable, "-m", "notifier")
STEPS = re.findall(r"^```(?:sh|yaml)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
RSA = {"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "notifier", "alg": "RS256", "use": "sig"}


def blocks(text: str) -> list[str]:
    return re.findall(r"^```js\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@contextlib.contextmanager
def running(code: str, folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A program that is printed, with places of this machine; and where it listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (folder / "password").write_text("secret\n")
    (folder / "jwks.json").write_text(json.dumps({"keys": [RSA]}))
    (folder / "configuration.json").write_text(json.dumps({"clients": [], "features": {"devInteractions": {}}}))
    places = {
        "amqps://idp@rabbitmq.example.com:5671/": "amqp://idp@127.0.0.1:9/",
        "/run/secrets/rabbitmq-password": str(folder / "password"),
        "/var/lib/idp/notifier": str(folder / "outbox"),
        "/etc/idp/notifier-jwks.json": str(folder / "jwks.json"),
        "/etc/idp/configuration.json": str(folder / "configuration.json"),
        "listen(3000)": f"listen({port}, '127.0.0.1')",
    }
    for printed, here in places.items():
        code = code.replace(printed, here)
    with tempfile.NamedTemporaryFile("w", suffix=".mjs", dir=npm_folder()) as program:
        program.write(code)
        program.flush()
        process = subprocess.Popen([NODE, program.name], text=True, stderr=subprocess.STDOUT, stdout=subprocess.PIPE)
        try:
            yield f"http://127.0.0.1:{port}", process
        finally:
            process.kill()
            process.communicate()


def ask(url: str, process: subprocess.Popen[str]) -> Any:
    """What it answers, once it does."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
                return json.load(answer)
        except OSError:
            assert process.poll() is None, process.stdout and process.stdout.read()
            assert time.monotonic() < end, url
            time.sleep(0.05)  # its port opens


def within_patience(holds: Callable[[], object]) -> bool:
    """Whether it holds in the end."""
    end = time.monotonic() + PATIENCE
    while not holds() and time.monotonic() < end:
        time.sleep(0.05)
    return bool(holds())


def test_the_key_and_its_file_come_before_what_reads_them(tmp_path: Path) -> None:
    """The page's configuration has the line that `keys generate` prints, and `keys jwks` reads it."""
    generate, _, jwks = (step.split(" #")[0].strip() for step in STEPS[:3])
    written = subprocess.run(
        [*NOTIFIER, *generate.split()[1:]], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "{file: notifier.pem, not_before: " in written.stdout.replace('"', "")
    assert "{file: notifier.pem, not_before: " in STEPS[1]
    (tmp_path / "notifier.yaml").write_text(STEPS[1])
    shown = subprocess.run([*NOTIFIER, *jwks.split()[1:5]], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert len(json.loads(shown.stdout)["keys"]) == 1


@pytest.mark.full
@pytest.mark.parametrize(("text", "counted"), [(README, True), (PAGE, False)], ids=["README", "page"])
def test_the_program_that_is_printed_runs(text: str, counted: bool, tmp_path: Path) -> None:
    """It shows notifier's key and its counters, and ends with SIGTERM."""
    with running(blocks(text)[0], tmp_path) as (url, process):
        assert "notifier" in [key["kid"] for key in ask(f"{url}/jwks", process)["keys"]]
        if counted:
            assert ask(f"{url}/logouts", process)["waiting"] == 0
        assert within_patience(lambda: list((tmp_path / "outbox").glob("*")))  # claimed by and by
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    assert list((tmp_path / "outbox").iterdir()) == []
