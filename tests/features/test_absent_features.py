"""Each feature can be deleted by itself: where the core meets features, nothing misses it beside the others."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.absent_features import FEATURES, copy_tree, delete_feature, run_tests


@pytest.mark.timeout(400)  # it starts Python on a copy of the tree; a minute where cores are shared
@pytest.mark.parametrize("feature", FEATURES)
def test_a_feature_can_be_deleted(tmp_path: Path, feature: str) -> None:
    """The tests of what is configured, of the settings and of the worker pass without it."""
    copy_tree(tmp_path)
    delete_feature(tmp_path, feature)
    done = run_tests(tmp_path, ["tests/configuration", "tests/settings", "tests/service"])
    assert done.returncode == 0, done.stdout[-8000:]


def test_channel_without_its_feature(tmp_path: Path) -> None:
    """A client's channel is an error that names the feature, not a client that is never notified."""
    copy_tree(tmp_path)
    delete_feature(tmp_path, "channels")
    script = (
        "from notifier.configuration.configured_feature import settings_model\n"
        "from notifier.features import FEATURES\n"
        "from notifier.settings.input_issues import explain\n"
        "from pydantic import ValidationError\n"
        "metadata = settings_model(FEATURES).client_metadata\n"
        "try:\n"
        "    metadata.model_validate({'client_id': 'shop', 'notifier': {'channel': {'command': {}}}})\n"
        "except ValidationError as error:\n"
        "    print(*explain(error, metadata))\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    words = [sys.executable, "-c", script]
    done = subprocess.run(words, cwd=tmp_path, env=environ, capture_output=True, text=True, check=True)
    assert done.stdout == "notifier.channel: needs the feature channels, which this notifier does not have\n"
