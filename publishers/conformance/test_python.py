"""`logout_notifier_publisher`, the Python package."""

import pytest

from publishers.conformance.cases import *  # noqa: F403

PUBLISHER = "python"
pytestmark = [pytest.mark.full, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]
