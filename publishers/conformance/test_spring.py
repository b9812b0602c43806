"""Spring Authorization Server with our starter."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from publishers.conformance.cases import *  # noqa: F403
from publishers.conformance.cases import (
    test_a_foreign_folder_is_not_used,
    test_a_link_in_the_place_of_a_folder_leads_nowhere,
    test_killed_while_the_store_deletes,
    test_special_and_foreign_files_block_nothing,
)
from publishers.conformance.harness import Harness
from publishers.conformance.subjects.spring import Spring, subject

del test_killed_while_the_store_deletes  # it writes no event before the session has ended; see publishers/tests/spring

# It does not start with an outbox that others may write to: NotifierAutoConfigurationTest.
del test_a_foreign_folder_is_not_used
del test_a_link_in_the_place_of_a_folder_leads_nowhere
del test_special_and_foreign_files_block_nothing

PUBLISHER = "spring"
pytestmark = [pytest.mark.full, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]
NODE_TIMEOUT = 240.0  # seconds; a node that is killed counts as ended after 120


@pytest_asyncio.fixture(loop_scope="module")
async def two_nodes(harness: Harness, tmp_path: Path) -> AsyncIterator[tuple[Spring, Spring]]:
    """Two nodes with one database, each with its sessions in memory."""
    await harness.subject.stop()
    harness.runs_with = None
    first = subject(tmp_path, "table")
    second = await first.sibling()
    try:
        await first.start(harness.settings)
        await second.start(harness.settings)
        yield first, second
    finally:
        await second.close()
        await first.close()


@pytest.mark.starts
async def test_a_restarted_node_ends_its_sessions_alone(harness: Harness, two_nodes: tuple[Spring, Spring]) -> None:
    """The other node publishes the sessions of a stopped or killed node; its own continue, also after the restart."""
    first, second = two_nodes
    patient = replace(harness, patience=NODE_TIMEOUT)
    living = await first.sign_in(3)
    for end in (second.stop, second.kill):
        ended = await second.sign_in(3)
        await end()
        await patient.until_published(ended, lane="bulk")
        await second.start(harness.settings)
    assert not harness.published() & {session.key for session in living}
    for session in living:
        assert await first.lives(session)
        await first.sign_out(session)
    await harness.until_published(living)


@pytest.mark.starts
async def test_a_node_is_killed_amid_the_end_of_shared_sessions(harness: Harness) -> None:
    """The other node publishes each session that is gone once, and ends the others at the request of their browsers."""
    await harness.run()
    other = await harness.subject.sibling()
    harness.others.append(other)
    await other.start(harness.settings)
    gone, living = await other.sign_in(5), await other.sign_in(5)
    await other.end_in_bulk(gone)
    await other.kill()
    await harness.until_published(gone, lane="bulk")
    assert not harness.published() & {session.key for session in living}
    await harness.sign_out(living)
    await harness.until_published(living)
