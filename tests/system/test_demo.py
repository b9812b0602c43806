"""`notifier demo` plays the whole story with the real service."""

import re
import time
from pathlib import Path

from tests.system.command import notifier


def test_the_demo_accounts_for_every_delivery(tmp_path: Path) -> None:
    """Under 30 s, exit 0, nothing on stderr, no settings of the environment, and nothing left behind."""
    started = time.monotonic()
    settings = {"NOTIFIER_QUEUE__URL": "amqp://nobody.invalid/", "TMPDIR": str(tmp_path)}
    done = notifier("demo", "--events", "8", cwd=tmp_path, settings=settings)
    assert time.monotonic() - started < 30
    assert (done.returncode, done.stderr) == (0, "")
    text = " ".join(done.stdout.split())
    assert "40 deliveries = 24 delivered + 16 dead letters (8 expired, 8 rejected_token)" in text
    assert "every one is accounted for." in text
    assert re.search(r"forum +flaky +8 +8 +\d+ +0 ", done.stdout)
    assert not list(tmp_path.iterdir())
