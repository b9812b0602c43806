"""The plug-in in a real Keycloak of the newest version: the ways in which most sessions end, up to the verified tokens.

The whole form of its part has all ways, in the oldest version too, with faults.
"""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from publishers.tests.keycloak.account import hold, nothing_else
from publishers.tests.keycloak.ground import Ground, shared_ground
from publishers.tests.keycloak.ways import WAYS
from tests.support.keycloak_shared import shared_keycloak

MAIN = (
    "the_user_signs_out",
    "a_client_signs_the_user_out",
    "an_administrator_signs_a_user_out",
    "an_administrator_ends_a_session",
    "all_sessions_of_the_realm_end",
    "a_user_is_deleted",
    "a_first_sign_in_is_offline",
)
pytestmark = [pytest.mark.full, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory, amqp_url: str
) -> AsyncIterator[Ground]:
    """Everything between a browser and the clients, on this run's Keycloak. The worker knows them by events alone."""
    async with shared_ground(shared_keycloak(pytestconfig), tmp_path_factory.mktemp("keycloak"), amqp_url) as made:
        yield made


@pytest.mark.parametrize("way", MAIN)
async def test_clients_are_notified(way: str, running: Ground) -> None:
    """Once, with the `sub` and `sid` each knows, by a token that Keycloak's own JWK Set verifies."""
    await hold(running, await WAYS[way](running))


async def test_no_other_client_is_notified(running: Ground) -> None:
    """Neither by us, nor by Keycloak itself."""
    [ending] = await WAYS["another_client_signs_the_user_out"](running)
    await hold(running, [ending])
    nothing_else(running)
