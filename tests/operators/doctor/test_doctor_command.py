"""`notifier doctor` asked for what cannot be."""

from pathlib import Path

from tests.cli.in_process import notifier
from tests.system.site import Site


def test_a_canary_for_nobody_is_wrong_use(tmp_path: Path) -> None:
    """Exit 2, and nothing is looked at; likewise a canary that may not connect."""
    site = Site(tmp_path, "sqlite:queue.db")
    done = notifier("doctor", "-c", site.file, "--canary", "nobody", cwd=tmp_path)
    assert done.returncode == 2
    assert "nobody" in done.stderr
    assert not done.stdout
    assert notifier("doctor", "-c", site.file, "--canary", "x", "--offline", cwd=tmp_path).returncode == 2
