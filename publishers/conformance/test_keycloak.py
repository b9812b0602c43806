"""Keycloak with our plug-in."""

import pytest

from publishers.conformance.cases import *  # noqa: F403

PUBLISHER = "keycloak"
pytestmark = [pytest.mark.full, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]
