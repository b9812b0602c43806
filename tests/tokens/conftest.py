"""What tests of signers share: a folder of key files."""

from pathlib import Path

import pytest

from tests.tokens.key_folder import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Where the test writes its key files."""
    return Folder(tmp_path)
