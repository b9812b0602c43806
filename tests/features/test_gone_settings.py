"""`notifier explain` names the replacement of a feature's removed setting, anywhere in its section."""

from pathlib import Path

import pytest

from tests.cli.in_process import notifier


@pytest.mark.parametrize(
    ("name", "phrase"),
    [
        ("registry.sources[0].wso2.recheck", "is gone: it is 10m now"),
        ('issuers["https://id.example.com"].keys[0].aws_kms.endpoint', "is gone: set the variable AWS_ENDPOINT_URL"),
    ],
)
def test_a_removed_setting_is_explained(tmp_path: Path, name: str, phrase: str) -> None:
    """In a mapping, in a list, and below both."""
    done = notifier("explain", name, cwd=tmp_path)
    assert (done.returncode, done.stdout.startswith(f"{name} {phrase}")) == (0, True), done.stdout
