"""Duende IdentityServer with our NuGet package."""

import pytest

from publishers.conformance.cases import *  # noqa: F403

PUBLISHER = "duende"
pytestmark = [pytest.mark.full, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]
