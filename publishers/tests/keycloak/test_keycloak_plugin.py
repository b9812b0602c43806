"""The plug-in in real Keycloaks, the oldest and the newest that it supports: from the sign-in to the tokens.

Each version is started once, for all tests.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from joserfc import jws

from publishers.tests.keycloak.account import hold, nothing_else
from publishers.tests.keycloak.conftest import had
from publishers.tests.keycloak.ground import Ground, ground
from publishers.tests.keycloak.plugged import metric
from publishers.tests.keycloak.shop_realm import GOODBYE
from publishers.tests.keycloak.ways import WAYS, Ending, sessions_expire
from tests.support.databases import DatabaseServer
from tests.support.keycloak_installation import NEWEST
from tests.system.waiting import until

OLDEST = "26.4.5"
pytestmark = [pytest.mark.full, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[OLDEST, NEWEST])
async def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, postgres: DatabaseServer, amqp_url: str
) -> AsyncIterator[Ground]:
    """Start one version with its surroundings, and the sessions that expire by Keycloak's clock.

    With the newest the worker knows clients by the events alone; with the oldest by Keycloak's Admin API.
    """
    folder, inline = tmp_path_factory.mktemp("keycloak"), request.param == NEWEST
    async with had(ground(request.param, folder, postgres, amqp_url, inline=inline)) as made:
        made.expiring = asyncio.create_task(sessions_expire(made))
        yield made
        made.expiring.cancel()


@pytest.mark.parametrize("way", [way for way in WAYS if way != "the_realm_is_deleted"])
async def test_every_client_is_notified(way: str, running: Ground) -> None:
    """However a session ends: once, with the `sub` and `sid` it knows, by a token that Keycloak's JWK Set verifies."""
    await hold(running, await WAYS[way](running))


async def test_a_row_that_cannot_be_read_breaks_no_sign_out(running: Ground) -> None:
    """Its client is not notified, since the issuer is unknown; the others are."""
    visit = await running.sign_in("web", "app")
    broken = "UPDATE offline_client_session SET data = '{\"no' WHERE user_session_id = :sid AND client_id = :client"
    await running.sql(broken, sid=visit.sid, client=(await running.client("app"))["id"])
    await visit.browser.sign_out(visit.claims["web"]["raw"], GOODBYE)
    await hold(running, [Ending(visit=visit, clients=("web",))])


async def test_expired_sessions_are_published(running: Ground) -> None:
    """By Keycloak's cleaner, or when a browser comes back too late."""
    await hold(running, await running.expiring)


async def test_the_end_of_a_realm(running: Ground) -> None:
    """Its clients are notified, too."""
    await hold(running, await WAYS["the_realm_is_deleted"](running))


async def test_no_other_client_was_notified(running: Ground) -> None:
    """No unexpected client was notified, and none by Keycloak itself, which signs with other keys."""
    [ending] = await WAYS["another_client_signs_the_user_out"](running)
    await hold(running, [ending])
    if (expired := await running.expiring)[0] not in running.endings:  # where this test is run alone
        await hold(running, expired)
    nothing_else(running)
    headers = [jws.extract_compact(claims["raw"].encode()).headers() for claims in ending.visit.claims.values()]
    assert not running.kids & {header["kid"] for header in headers}


async def test_results_of_events_are_on_the_metrics_page(running: Ground) -> None:
    """All accepted events are published, as are those of an earlier process. None is lost or pending."""
    await hold(running, await WAYS["another_client_signs_the_user_out"](running))
    await until(lambda: metric(running.keycloak, "waiting"), lambda waiting: waiting == 0)
    written, published, lost = [
        await metric(running.keycloak, name) for name in ("written_total", "published_total", "lost_total")
    ]
    assert published >= written > 0
    assert lost == 0
