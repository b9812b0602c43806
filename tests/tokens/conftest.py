"""Fixtures of tests of signers: a folder of key files."""

from pathlib import Path

import pytest

from tests.tokens.key_folder import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Create a folder for key files."""
    return Folder(tmp_path)
