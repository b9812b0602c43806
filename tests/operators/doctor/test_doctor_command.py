"""`notifier doctor` asked for what cannot be."""

import json
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


def test_a_token_of_the_api_that_has_expired_is_told(tmp_path: Path) -> None:
    """By its name. One that has time is not."""
    site = Site(tmp_path, "sqlite:queue.db")
    ends = {"idp": "2025-06-15T00:00:00Z", "ops": "2999-01-01T00:00:00Z"}
    tokens = [{"name": name, "token": name, "scopes": ["read"], "expires": end} for name, end in ends.items()]
    (tmp_path / "tokens.yaml").write_text(json.dumps(tokens))
    done = notifier("doctor", "-c", site.file, "--offline", "--json", cwd=tmp_path)
    [told] = [finding for finding in json.loads(done.stdout) if "token '" in finding["subject"]]
    assert (told["area"], told["level"], told["subject"]) == ("listener", "warning", "api.tokens_file: token 'idp'")
    assert told["text"] == "has expired at 2025-06-15 00:00:00Z"
    assert told["advice"].startswith("make another")
