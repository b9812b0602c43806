"""Spring Authorization Server with our starter."""

import pytest

from publishers.conformance.cases import *  # noqa: F403
from publishers.conformance.cases import (
    test_a_foreign_folder_is_not_used,
    test_a_link_in_the_place_of_a_folder_leads_nowhere,
    test_killed_while_the_store_deletes,
    test_special_and_foreign_files_block_nothing,
)

del test_killed_while_the_store_deletes  # it writes no event before the session has ended; see publishers/tests/spring

# It does not start with an outbox that others may write to: NotifierAutoConfigurationTest.
del test_a_foreign_folder_is_not_used
del test_a_link_in_the_place_of_a_folder_leads_nowhere
del test_special_and_foreign_files_block_nothing

PUBLISHER = "spring"
pytestmark = [pytest.mark.full, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]
