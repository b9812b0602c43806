"""Each feature can be deleted by itself: all tests of the core pass without it, beside the others."""

from pathlib import Path

import pytest

from tests.support.absent_features import CORE, FEATURES, copy_tree, delete_feature, run_tests


@pytest.mark.timeout(900)
@pytest.mark.parametrize("feature", FEATURES)
def test_a_feature_can_be_deleted(tmp_path: Path, feature: str) -> None:
    """Its folder, its tests, its line in the list and its sections go; nothing stands in for it."""
    copy_tree(tmp_path)
    delete_feature(tmp_path, feature)
    done = run_tests(tmp_path, CORE, processes=2)
    assert done.returncode == 0, done.stdout[-8000:]
