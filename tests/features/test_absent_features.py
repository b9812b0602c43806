"""Each feature can be deleted by itself: where the core meets features, nothing misses it beside the others."""

from pathlib import Path

import pytest

from tests.support.absent_features import FEATURES, copy_tree, delete_feature, run_tests


@pytest.mark.parametrize("feature", FEATURES)
def test_a_feature_can_be_deleted(tmp_path: Path, feature: str) -> None:
    """The tests of what is configured, of the settings and of the worker pass without it."""
    copy_tree(tmp_path)
    delete_feature(tmp_path, feature)
    done = run_tests(tmp_path, ["tests/configuration", "tests/settings", "tests/service"])
    assert done.returncode == 0, done.stdout[-8000:]
