"""`notifier keys web`: the keys by which the URLs of pages are sealed, and their renewal."""

from pathlib import Path

from cryptography.fernet import Fernet

from tests.cli.in_process import notifier
from tests.system.site import Site


def test_a_key_is_made_for_a_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    """It is never overwritten; a second one is added as a second line; a configuration takes both."""
    done = notifier("keys", "web", "--out", "web.keys", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (
        0,
        'web.keys: a key for web.keys_file, or web.issuers.<iss>.keys_file: "web.keys"\n',
    )
    path = tmp_path / "web.keys"
    assert path.stat().st_mode & 0o777 == 0o600
    first = path.read_bytes()
    again = notifier("keys", "web", "--out", "web.keys", cwd=tmp_path)
    assert again.returncode == 2
    assert "never overwritten" in again.stderr
    assert path.read_bytes() == first
    second = notifier("keys", "web", cwd=tmp_path).stdout
    with path.open("a") as file:
        file.write(second)
    assert [Fernet(line) is not None for line in path.read_text().splitlines()] == [True, True]
    site = Site(tmp_path, f"sqlite:{tmp_path}/q.db")
    site.config["web"] = {"listen": "127.0.0.1:0", "keys_file": "web.keys"}
    site.write()
    assert notifier("check", "-c", "notifier.yaml", cwd=tmp_path).returncode == 0
    path.write_text("no key\n")
    wrong = notifier("check", "-c", "notifier.yaml", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "make one by `notifier keys web`" in wrong.stderr + wrong.stdout
