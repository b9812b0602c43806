"""Duende IdentityServer with our NuGet package."""

import pytest

from publishers.conformance.cases import *  # noqa: F403
from publishers.conformance.cases import (
    test_a_foreign_folder_is_not_used,
    test_a_link_in_the_place_of_a_folder_leads_nowhere,
    test_killed_while_the_store_deletes,
    test_what_is_no_file_of_ours_blocks_nothing,
)

del test_killed_while_the_store_deletes  # its store here holds no deletion back; the package's own tests do

# They need root, whose own folders this package cannot tell from others'; the package's own tests have such folders.
del test_a_foreign_folder_is_not_used
del test_a_link_in_the_place_of_a_folder_leads_nowhere
del test_what_is_no_file_of_ours_blocks_nothing

PUBLISHER = "duende"
pytestmark = [pytest.mark.full, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]
