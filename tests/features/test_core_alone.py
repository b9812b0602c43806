"""The core stands without any feature."""

from pathlib import Path

import pytest

from tests.support.absent_features import CORE, FEATURES, copy_tree, delete_feature, run_tests


@pytest.mark.timeout(900)
def test_the_core_needs_no_feature(tmp_path: Path) -> None:
    """All its tests pass where every feature is deleted."""
    copy_tree(tmp_path)
    for feature in FEATURES:
        delete_feature(tmp_path, feature)
    done = run_tests(tmp_path, CORE, processes=2)
    assert done.returncode == 0, done.stdout[-8000:]
