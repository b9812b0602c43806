"""Test each preset with its receiver, by tokens from a real socket, and the behaviour without it."""

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from notifier.delivery.channels import BackChannel
from notifier.delivery.line_and_parking import AdmittedDelivery
from notifier.delivery.ports import Tools
from notifier.delivery.verdict import Dead, Done, RetryAt, Verdict
from notifier.model.client import Client
from notifier.model.delivery import Delivery
from notifier.model.logout_token import subject_of
from notifier.model.message import Lane
from notifier.model.outcome import DeadReason
from notifier.model.presets import PRESETS
from notifier.network.http.transport import HttpTransport
from notifier.tokens.key_ring import KeyRing
from tests.configuration.clients.registry_sample import registry
from tests.network.http.http_requests import opened
from tests.receivers_of_the_world.receivers import WORLD, Site, listening
from tests.support.no_pauses import NoPauses
from tests.support.one_attempt import DecidedAttempt, attempt
from tests.tokens.key_folder import ISS, NOW, Folder

CHANGED = {"express_openid_connect", "auth0_sample", "pac4j", "synapse"}
BY_SUB = {"keycloak_broker", "django_lasuite", "django_pyoidc"}
NEEDS_SUB = {"quarkus", "open_liberty"}
ALICE = {("alice", "s1"), ("alice", "s2"), ("bob", "s3")}


@dataclass(slots=True, kw_only=True)
class World:
    """One receiver, one registered client, and the worker's attempts, on one clock."""

    folder: Path
    preset: str
    site: Site
    ring: KeyRing
    transport: HttpTransport
    now: float = NOW

    def client(self, *, with_preset: bool = True) -> Client:
        """Return the client as in the registry's file."""
        notifier = f"{{preset: {self.preset}}}" if with_preset else "{}"
        text = f"[{{client_id: shop, backchannel_logout_uri: '{self.site.url}', notifier: {notifier}}}]"
        open_to = {"allow": ["127.0.0.0/8"], "allow_http": True}
        return registry(self.folder, text, ISS, egress=open_to).clients_of(ISS)["shop"]

    async def attempt(self, delivery: Delivery, *, with_preset: bool = True) -> DecidedAttempt:
        """Make one attempt."""
        numbers = itertools.count()
        channel = BackChannel(self.ring, clock=lambda: self.now, new_jti=lambda: f"jti-{self.now}-{next(numbers)}")
        tools = Tools(
            channels=dict.fromkeys(("back_channel", "front_channel"), channel),
            transport=self.transport,
            clock=lambda: self.now,
            monotonic=lambda: self.now,
            jitter=lambda: 0.5,
            observe=lambda _: None,
            pauses=NoPauses(),
        )
        client = self.client(with_preset=with_preset)
        return await attempt(AdmittedDelivery(delivery=delivery, client=client, lane=Lane.EVENTS), tools)

    async def tell(self, sub: str | None, sid: str | None, *, with_preset: bool = True) -> Verdict:
        """Make one event's first attempt, and return the verdict."""
        return (await self.attempt(delivery(sub, sid), with_preset=with_preset)).verdict


def delivery(sub: str | None, sid: str | None) -> Delivery:
    return Delivery(id="d", event_id="e", id_given=True, iss=ISS, client_id="shop", sub=sub, sid=sid)


@asynccontextmanager
async def world(folder: Path, preset: str) -> AsyncIterator[World]:
    keys = Folder(folder)
    ring = keys.ring(keys.source("RS256"), keys.source("ES384"), keys.source("EdDSA"))
    site = Site(
        row=WORLD[preset], jwks=ring.jwks(ISS), iss=ISS, client_id="shop", clock=lambda: NOW, sessions=set(ALICE)
    )
    async with listening(site), opened() as transport:
        here = World(folder=folder, preset=preset, site=site, ring=ring, transport=transport)
        site.clock = lambda: here.now
        yield here


def test_every_preset_has_its_receiver() -> None:
    """Each has a receiver here; `lemonldap` has the real one, in test_lemonldap.py."""
    assert set(PRESETS) == {*WORLD, "lemonldap"}


@pytest.mark.parametrize("preset", sorted(set(WORLD) - BY_SUB))
async def test_one_session_is_ended_and_no_other(tmp_path: Path, preset: str) -> None:
    """By an event with both, and by one with `sid` only: the receiver accepts it; the other session stays."""
    for sub in ("alice",) if preset in NEEDS_SUB else ("alice", None):
        async with world(tmp_path, preset) as here:
            assert await here.tell(sub, "s1") == Done()
            assert here.site.sessions == ALICE - {("alice", "s1")}


@pytest.mark.parametrize("preset", sorted(BY_SUB | NEEDS_SUB))
async def test_token_without_effect_is_not_sent(tmp_path: Path, preset: str) -> None:
    """An event without `sub` is a dead letter at once: the receiver would answer success."""
    async with world(tmp_path, preset) as here:
        verdict = await here.tell(None, "s1")
        assert isinstance(verdict, Dead)
        assert verdict.reason is DeadReason.NO_SUB
        assert here.site.bodies == []


async def test_synapse_maps_users_as_it_likes(tmp_path: Path) -> None:
    """A `sub` that is another user's there ends nothing, so none is sent."""
    async with world(tmp_path, "synapse") as here:
        assert await here.tell("alice-by-another-claim", "s1") == Done()
        assert here.site.sessions == ALICE - {("alice", "s1")}
        verdict = await here.tell("alice", None)
        assert isinstance(verdict, Dead)
        assert verdict.reason is DeadReason.NO_SID


async def test_requirements_of_a_preset_hold_for_another_subject(tmp_path: Path) -> None:
    """A registration may set `subject`; the requirements of the receiver remain."""
    for preset, subject, sub, sid, reason in (
        ("synapse", "both", "alice", None, DeadReason.NO_SID),
        ("open_liberty", "sid_first", None, "s1", DeadReason.NO_SUB),
    ):
        text = f"[{{client_id: shop, backchannel_logout_uri: 'https://a.example/', notifier: {{preset: {preset}, "
        client = registry(tmp_path, f"{text}subject: {subject}}}}}]", ISS).clients_of(ISS)["shop"]
        assert subject_of(delivery(sub, sid), client) is reason


@pytest.mark.parametrize(
    ("preset", "sid"),
    [*((each, None) for each in sorted(set(WORLD) - {"pac4j", "synapse"})), *((each, "s1") for each in sorted(BY_SUB))],
)
async def test_token_without_sid_ends_all_sessions_of_the_user(tmp_path: Path, preset: str, sid: str | None) -> None:
    """B13: only this user's. With a `sid` a receiver without session ids would end none, or all anyway."""
    async with world(tmp_path, preset) as here:
        assert await here.tell("alice", sid) == Done()
        assert here.site.sessions == {("bob", "s3")}


@pytest.mark.parametrize("preset", WORLD)
async def test_retry_is_accepted_at_any_time(tmp_path: Path, preset: str) -> None:
    """R2: the receiver had checked and stored the first token when its store failed; the last one is 35 s later."""
    async with world(tmp_path, preset) as here:
        here.site.failing = [500, 503]
        result = await here.attempt(delivery("alice", "s1"))
        for wait in (2, 35):
            assert isinstance(result.verdict, RetryAt)
            here.now += wait
            result = await here.attempt(result.delivery)
        assert result.verdict == Done()
        assert len(set(here.site.bodies)) == 3


# ── without the preset ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_without_its_preset_express_ends_all_sessions(tmp_path: Path) -> None:
    """The answer is success, and two sessions have ended instead of one."""
    async with world(tmp_path, "express_openid_connect") as here:
        assert await here.tell("alice", "s1", with_preset=False) == Done()
        assert here.site.sessions == {("bob", "s3")}


async def test_without_its_preset_the_auth0_sample_refuses(tmp_path: Path) -> None:
    """It accepts `typ: JWT` only."""
    async with world(tmp_path, "auth0_sample") as here:
        result = await here.attempt(delivery("alice", "s1"), with_preset=False)
        assert isinstance(result.verdict, RetryAt)
        assert result.delivery.progress.rejections == 1
        assert here.site.sessions == ALICE


async def test_pac4j_gets_no_token_that_it_must_refuse(tmp_path: Path) -> None:
    """With the preset an event without `sid` is a dead letter at once; without it the receiver refuses each attempt."""
    async with world(tmp_path, "pac4j") as here:
        verdict = await here.tell("alice", None)
        assert isinstance(verdict, Dead)
        assert verdict.reason is DeadReason.NO_SID
        assert here.site.bodies == []
        result = await here.attempt(delivery("alice", None), with_preset=False)
        assert result.delivery.progress.rejections == 1


@pytest.mark.parametrize("preset", sorted(set(WORLD) - CHANGED - BY_SUB - NEEDS_SUB))
async def test_others_accept_the_default(tmp_path: Path, preset: str) -> None:
    """Their presets change nothing: the defaults were chosen for them."""
    async with world(tmp_path, preset) as here:
        assert here.client().token == here.client(with_preset=False).token
        assert await here.tell("alice", "s1", with_preset=False) == Done()
        assert here.site.sessions == ALICE - {("alice", "s1")}
