"""Two nodes of one Keycloak, restarted in turn while users sign out over both.

    NOTIFIER_TEST_FAULTS=long pytest -s tests/publishers/keycloak/test_hard_nodes.py

They share a PostgreSQL, Infinispan's cluster, and the folder below which each has its outbox.
"""

import asyncio
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

from tests.databases import DatabaseServer
from tests.keycloak_browser import KeycloakBrowser
from tests.publishers.keycloak.conftest import had, long_form_alone
from tests.publishers.keycloak.nodes import MANY, Nodes, nodes

USERS = 20
AT_ONCE, PAUSE = 8, 0.4  # twenty sign-outs a second at most
pytestmark = [
    pytest.mark.full, long_form_alone, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(3000),
]  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(
    tmp_path_factory: pytest.TempPathFactory, postgres: DatabaseServer, amqp_url: str
) -> AsyncIterator[Nodes]:
    """Two nodes that say the same of their address, as behind a balancer."""
    async with had(nodes(tmp_path_factory.mktemp("nodes"), postgres, amqp_url, count=2)) as made:
        yield made


async def test_users_sign_out_at_the_other_node(running: Nodes) -> None:
    """Who has signed in at the first signs out at the second, by the refresh token, and the other way round."""
    one, other = running.nodes
    sids = []
    async with aiohttp.ClientSession() as session:
        for number in range(USERS):
            here, there = (one, other) if number % 2 else (other, one)
            async with KeycloakBrowser(here.server.url, MANY) as browser:
                sids.append(await running.sign_in(browser))
                form = {"client_id": "web", "refresh_token": browser.tokens["web"]["refresh_token"]}
                url = f"{there.server.url}/realms/{MANY}/protocol/openid-connect/logout"
                async with session.post(url, data=form) as answer:
                    assert answer.status == 204
    verdict = await running.verdict(sids)
    assert verdict.holds, verdict
    assert verdict.ended == USERS


async def test_a_rolling_restart(running: Nodes) -> None:
    """Each node is stopped and started while sign-outs go on at both. Once more by SIGKILL."""
    for how in ("terminate", "kill"):
        sids = [*await running.more(20_000)]
        ending = asyncio.create_task(running.end(sids, AT_ONCE, PAUSE))
        began = time.monotonic()
        for node in running.nodes:
            await asyncio.sleep(5)
            await getattr(node, how)()
            await asyncio.sleep(2)
            await node.start()
        await asyncio.sleep(5)
        ending.cancel()
        await asyncio.gather(ending, return_exceptions=True)
        took = time.monotonic() - began
        verdict = await running.verdict([*sids, running.template])
        print(f"{how}: {verdict.ended} ended in {took:.0f} s, {verdict.repeated} events twice; {verdict.holds}")  # noqa: T201
        assert verdict.holds, verdict
        assert verdict.ended > 0


async def test_one_session_ended_at_both_nodes_at_once(running: Nodes) -> None:
    """Whatever each publishes has one id."""
    sids = await running.more(100)
    await asyncio.gather(running.end(sids), running.end([*reversed(sids)]), running.end(sids))
    verdict = await running.verdict(sids)
    print(f"at both at once: {verdict.ended} ended, {verdict.repeated} events twice")  # noqa: T201
    assert verdict.holds, verdict
    assert verdict.ended == len(sids)


async def test_all_sessions_end_at_both_nodes_at_once(running: Nodes) -> None:
    """`logout-all`, asked of both, amid sign-outs."""
    sids = await running.more(3000)
    async with aiohttp.ClientSession() as session:
        await asyncio.gather(
            *(node.ask(session, "POST", "/logout-all") for node in running.nodes), running.end(sids[1000:1100])
        )
    verdict = await running.verdict(sids)
    print(f"logout-all at both: {verdict.ended} ended, {verdict.repeated} events twice")  # noqa: T201
    assert verdict.holds, verdict
    assert verdict.ended == len(sids)
