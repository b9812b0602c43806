"""node-oidc-provider with our npm package."""

import pytest

from publishers.conformance.cases import *  # noqa: F403
from publishers.conformance.cases import test_an_event_that_is_not_permitted_delays_no_other

# Its server has one issuer: a 403 concerns all events, and holds the lane.
del test_an_event_that_is_not_permitted_delays_no_other

PUBLISHER = "oidc_provider"
pytestmark = [pytest.mark.full, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]
