"""Preset `lemonldap` against the real LemonLDAP::NG 2.21, and the meaning of its answers."""

import os
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from notifier.delivery.verdict import Done, RetryAt
from notifier.model.outcome import Failed, Reason
from notifier.tokens.key_ring import KeyRing
from tests.network.http.http_requests import opened
from tests.receivers_of_the_world.lemonldap import Portal, lemonldap
from tests.receivers_of_the_world.receivers import WORLD, Site
from tests.receivers_of_the_world.test_presets import World, delivery
from tests.support.apt_programs import ProgramMissing
from tests.tokens.key_folder import ISS, Folder


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> KeyRing:
    """Return the issuer's keys."""
    folder = Folder(tmp_path_factory.mktemp("keys"))
    return folder.ring(folder.source("RS256"))


@pytest.fixture(scope="module")
def portal(ring: KeyRing, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Portal]:
    """Run a portal that trusts the issuer."""
    try:
        with lemonldap(tmp_path_factory.mktemp("lemonldap"), ISS, "shop", ring.jwks(ISS)) as running:
            yield running
    except ProgramMissing as missing:
        if os.environ.get("NOTIFIER_TEST_PUBLISHERS") == "required":
            pytest.fail(str(missing))
        pytest.skip(str(missing))


@pytest.fixture
async def here(ring: KeyRing, portal: Portal, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """Return the worker's attempts, on the current time."""
    site = Site(
        row=WORLD["spring"], jwks={}, iss=ISS, client_id="shop", clock=time.time, sessions=set(), url=portal.url
    )
    async with opened() as transport:
        folder = tmp_path_factory.mktemp("registry")
        yield World(folder=folder, preset="lemonldap", site=site, ring=ring, transport=transport, now=time.time())


async def test_the_session_is_ended_and_no_other(here: World, portal: Portal) -> None:
    """By `sid`, in its own store; an unknown session is success."""
    gone, stays = portal.sign_in("alice", "s1"), portal.sign_in("alice", "s2")
    assert await here.tell("alice", "s1") == Done()
    assert portal.sessions & {gone, stays} == {stays}
    assert await here.tell("alice", "s1") == Done()


async def test_an_event_of_a_user_ends_all_of_that_users_sessions(here: World, portal: Portal) -> None:
    """B13."""
    hers = {portal.sign_in("carol", "c1"), portal.sign_in("carol", "c2")}
    assert await here.tell("carol", None) == Done()
    assert not portal.sessions & hers


async def test_without_the_preset_it_answers_500(here: World, portal: Portal) -> None:
    """It requires a list in `aud`, and fails while it builds the error: the answer looks like a server error."""
    lives = portal.sign_in("dave", "d1")
    result = await here.attempt(delivery("dave", "d1"), with_preset=False)
    assert isinstance(result.verdict, RetryAt)
    assert result.fact is not None
    assert isinstance(result.fact.outcome, Failed)
    assert (result.fact.outcome.reason, result.fact.outcome.status) == (Reason.SERVER_ERROR, 500)
    assert lives in portal.sessions
