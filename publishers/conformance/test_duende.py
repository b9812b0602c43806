"""Duende IdentityServer with our NuGet package."""

import pytest

from publishers.conformance.cases import *  # noqa: F403
from publishers.conformance.cases import test_killed_while_the_store_deletes

del test_killed_while_the_store_deletes  # its store here holds no deletion back; the package's own tests do

PUBLISHER = "duende"
pytestmark = [pytest.mark.full, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]
