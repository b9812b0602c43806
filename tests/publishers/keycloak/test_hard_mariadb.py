"""A database that repeats reads: what a transaction has read once stays as it was, whatever others delete.

NOTIFIER_TEST_FAULTS=long pytest -s tests/publishers/keycloak/test_hard_mariadb.py
"""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

from tests.databases import DatabaseServer
from tests.publishers.keycloak.conftest import had, long_form_alone
from tests.publishers.keycloak.nodes import Nodes, nodes

CLEANED = 200.0
pytestmark = [
    pytest.mark.full, long_form_alone, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(3000),
]  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(
    tmp_path_factory: pytest.TempPathFactory, maria: DatabaseServer, amqp_url: str
) -> AsyncIterator[Nodes]:
    """One Keycloak on MariaDB, whose cleaner comes often."""
    async with had(nodes(tmp_path_factory.mktemp("maria"), maria, amqp_url)) as made:
        yield made


async def test_sessions_expire(running: Nodes) -> None:
    """Amid sign-outs of others: each that ran out is told once, none that lives is."""
    old, ended, living = [await running.more(count) for count in (700, 200, 700)]
    await asyncio.to_thread(running.crowd.make_old, old)
    await running.end(ended, pause=0.2)
    verdict = await running.verdict([*old, *ended, *living], patience=CLEANED)
    while verdict.ended < len(old) + len(ended):  # the cleaner has not been there
        await asyncio.sleep(5)
        verdict = await running.verdict([*old, *ended, *living], patience=CLEANED)
    print(f"expiry: {verdict.ended} ended, {verdict.repeated} events twice, {verdict.holds}")  # noqa: T201
    assert verdict.holds, verdict
    assert verdict.ended == len(old) + len(ended)
    told = {each.sid: each.event.get("reason") for each in running.tap.seen}
    assert {told[sid] for sid in old} == {"session_expiration"}


async def test_all_sessions_of_the_realm_end(running: Nodes) -> None:
    """By `logout-all`, amid sign-outs. Where those deadlock with each other, Keycloak gives up, and is asked again."""
    sids, answers = await running.more(2000), []
    async with aiohttp.ClientSession() as session:
        ending = asyncio.create_task(running.end(sids[:300]))
        await running.until_answered(running.answered + 20)
        while 200 not in answers:
            answers.append(await running.node.ask(session, "POST", "/logout-all"))
        await ending
    verdict = await running.verdict(sids)
    print(f"logout-all: {verdict.ended} ended, {verdict.repeated} events twice, {answers}")  # noqa: T201
    assert verdict.holds, verdict
    assert verdict.ended == len(sids)
