"""`logout_notifier_publisher`, the Python package."""

import pytest

from publishers.conformance.cases import *  # noqa: F403
from publishers.conformance.cases import test_an_event_that_is_not_permitted_delays_no_other

del test_an_event_that_is_not_permitted_delays_no_other  # a 403 holds the lane

PUBLISHER = "python"
pytestmark = [pytest.mark.full, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]
