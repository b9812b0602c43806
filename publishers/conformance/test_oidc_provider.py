"""node-oidc-provider with our npm package."""

import pytest

from publishers.conformance.cases import *  # noqa: F403

PUBLISHER = "oidc_provider"
pytestmark = [pytest.mark.full, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]
