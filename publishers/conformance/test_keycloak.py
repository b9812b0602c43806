"""Keycloak with our plug-in."""

import pytest

from publishers.conformance.cases import *  # noqa: F403
from publishers.conformance.cases import test_two_processes_share_an_outbox

del test_two_processes_share_an_outbox  # each process has its own outbox

PUBLISHER = "keycloak"
pytestmark = [pytest.mark.full, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]
