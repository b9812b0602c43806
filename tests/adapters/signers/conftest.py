"""What tests of signers share: a folder of key files. A short run does not even import the libraries of clouds."""

from pathlib import Path

import pytest

from tests.adapters.signers.key_folder import Folder

CLOUDS = frozenset({"test_aws_kms_key.py", "test_azure_key.py", "test_google_kms_key.py"})
"""Modules that are `full` as a whole. Their libraries take a second to import."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave them out where their marker would."""
    return True if collection_path.name in CLOUDS and config.getoption("markexpr") == "not full" else None


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Where the test writes its key files."""
    return Folder(tmp_path)
