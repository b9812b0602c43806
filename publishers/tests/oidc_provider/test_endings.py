"""Each way in which a session can end at node-oidc-provider, and the notifications of its clients. Both versions.

The users of one provider end their sessions in every way. A worker without any registry notifies the clients, which
verify each token against the provider's own JWKS. All tokens are compared at the end: no client got more, or fewer.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from publishers.tests.oidc_provider.browser import Browser
from publishers.tests.oidc_provider.clients import ALL, NOTIFIED, WITH_SID
from publishers.tests.oidc_provider.harness import Harness, Keys, entry
from publishers.tests.oidc_provider.provider import Provider
from publishers.tests.tap import properties
from tests.system.clients import Answer, Clients, Hit, verify_all
from tests.system.ledger import in_rabbitmq
from tests.system.site import Site
from tests.system.waiting import until
from tests.system.worker_process import worker

SIGNED_OUT = 303
QUICK = 2.4  # seconds; the library alone waits 2.5 s for a client that hangs


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """One expected event, with its content."""

    sub: str
    reason: str
    clients: Mapping[str, Mapping[str, Any]]


@dataclass(slots=True, kw_only=True)
class Scenario:
    """The provider, and the clients that are notified of session ends."""

    harness: Harness
    provider: Provider
    clients: Clients
    released: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def user(self, name: str, *signed_in: str, **more: str) -> AsyncIterator[Browser]:
        """A browser, signed in at these clients."""
        async with self.harness.signed_in(self.provider, name, *signed_in, **more) as browser:
            yield browser

    def ending(self, browser: Browser, *client_ids: str, reason: str = "user_logout") -> Ending:
        """Return the session end by the last ID tokens of this browser."""
        registered = {each["client_id"]: each for each in self.provider.settings.clients}
        named = {name: entry(browser, name, registered[name]) for name in client_ids}
        return Ending(sub=browser.user, reason=reason, clients=named)


Endings = Sequence[Ending]
pytestmark = pytest.mark.full
WAYS: list[Callable[[Scenario], Awaitable[Endings]]] = []


def way(act: Callable[[Scenario], Awaitable[Endings]]) -> Callable[[Scenario], Awaitable[Endings]]:
    """Add one case: it ends sessions of its own users, and returns the expected events."""
    WAYS.append(act)
    return act


@way
async def whole_session(scenario: Scenario) -> Endings:
    """Signed out at one client, the user agrees to leave the provider: all clients."""
    async with scenario.user("whole", *ALL) as browser:
        assert {name for name, claims in browser.claims.items() if "sid" in claims} == set(WITH_SID)
        assert browser.claims["pair"]["sub"] != browser.user
        assert (await browser.sign_out("shop")).status == SIGNED_OUT
        assert not await browser.lives()
        return [scenario.ending(browser, *ALL)]


@way
async def this_client_only(scenario: Scenario) -> Endings:
    """The user declines to leave the provider: the client that asked, and the others at the session's end."""
    async with scenario.user("declines", *ALL) as browser:
        endings = []
        for name in ("shop", "wiki"):
            assert (await browser.sign_out(name, everywhere=False)).status == SIGNED_OUT
            endings.append(scenario.ending(browser, name))
        before = browser.claims["shop"]["sid"]
        await browser.sign_in("shop")
        assert browser.claims["shop"]["sid"] != before
        await browser.sign_out("shop", everywhere=False)
        endings.append(scenario.ending(browser, "shop"))
        await browser.sign_out("bare", everywhere=False)  # it has no URI
        await browser.sign_out(everywhere=False)  # nobody is named
        assert await browser.lives()
        await browser.sign_out()
        assert not await browser.lives()
        return [*endings, scenario.ending(browser, "mail", "pair")]


@way
async def double_click(scenario: Scenario) -> Endings:
    """Two confirmations at once are one ending."""
    async with scenario.user("twice", *ALL) as browser:
        answers = await browser.double_click("shop")
        assert SIGNED_OUT in {answer.status for answer in answers}
        return [scenario.ending(browser, *ALL)]


@way
async def another_account(scenario: Scenario) -> Endings:
    """Somebody else signs in over the session; who signs in once more ends nothing."""
    async with scenario.user("former", *ALL) as browser:
        ending = scenario.ending(browser, *ALL)
        browser.user = "latter"
        await browser.sign_in("shop", prompt="login")
        assert browser.claims["shop"]["sub"] == "latter"
        await browser.sign_in("shop", "mail", prompt="login")
        assert await browser.lives()
    return [ending]


@way
async def own_destroy(scenario: Scenario) -> Endings:
    """The application's own `session.destroy()`, for which the library notifies no client."""
    async with scenario.user("own", *ALL) as browser:
        await browser.own("destroy")
        assert not await browser.lives()
        return [scenario.ending(browser, *ALL, reason="terminated")]


@way
async def no_end(scenario: Scenario) -> Endings:
    """Actions that end no session, or bypass the library's models, notify no client."""
    async with scenario.user("none", *ALL) as browser:
        await browser.own("grant-destroy", client="shop")
        await browser.own("forget", client="mail")
        assert await browser.lives()
        await browser.own("adapter-destroy")
        assert not await browser.lives()
    return []


@way
async def offline_access(scenario: Scenario) -> Endings:
    """A refresh token outlives the session, and its revocation ends nothing. The clients are still notified."""
    async with scenario.user("offline", "shop", "wiki", scope="openid offline_access", prompt="consent") as browser:
        token = browser.tokens["shop"]["refresh_token"]
        await browser.ask("shop", "/token/revocation", token=token)
        assert await browser.lives()
        await browser.sign_out("wiki")
        return [scenario.ending(browser, "shop", "wiki")]


@way
async def grants_cannot_be_revoked(scenario: Scenario) -> Endings:
    """It fails before the session would be deleted, when the event is on the disk already: that is taken back."""
    async with scenario.user("revoke", *ALL) as browser:
        await scenario.provider.fault("revoke", "fails")
        assert (await browser.sign_out("shop")).status == 500
        await scenario.provider.fault("revoke")
        assert await browser.lives()
        await until(lambda: asyncio.to_thread(scenario.harness.files), lambda files: files == [])
        assert (await browser.sign_out("shop")).status == SIGNED_OUT
        return [scenario.ending(browser, *ALL)]


@way
async def a_client_hangs(scenario: Scenario) -> Endings:
    """Neither a client that hangs nor a failing client delays others."""
    async with scenario.user("held-up", *ALL) as browser:
        answer = await browser.sign_out("shop")
        assert answer.status == SIGNED_OUT
        assert answer.seconds < QUICK
        return [scenario.ending(browser, *ALL)]


def held_up(scenario: Callable[[], Scenario]) -> Callable[[Hit], Answer | Awaitable[Answer]]:
    """What the clients answer: to one user's token `shop` answers 500 once, and `mail` hangs."""

    async def hang() -> int:
        await scenario().released.wait()
        return 200

    def judge(hit: Hit) -> Answer | Awaitable[Answer]:
        if hit.claims["sub"] == "held-up" and hit.nth == 1:
            match hit.path:
                case "/shop":
                    return 500
                case "/mail":
                    return hang()
        return 200

    return judge


def site_of(folder: Path, harness: Harness, issuer: str, prefix: str) -> Site:
    """A worker's files: the issuer with its keys and its user of the broker, as the page has it, and no registry."""
    site = Site(folder, harness.broker, prefix)
    del site.config["registry"]
    keys = [{"file": str(pem)} for pem in harness.keys.pems]
    site.config["issuers"] = {issuer: {"keys": keys, "publishers": [urlsplit(harness.broker).username]}}
    site.write()
    return site


def wanted(endings: Endings) -> Counter[tuple[str, str, str | None]]:
    """Which client must get which `sub` and `sid`, how often."""
    return Counter(
        (name, entry.get("sub", ending.sub), entry.get("sid"))
        for ending in endings
        for name, entry in ending.clients.items()
        if entry["backchannel_logout_uri"] is not None
    )


async def test_every_ending(harness: Harness, keys: Keys, prefix: str, tmp_path: Path) -> None:
    """Each notifies the right clients once, with the `sid`, `sub` and algorithm of their ID tokens."""
    scenario: Scenario
    async with Clients(held_up(lambda: scenario)) as clients:
        harness.receivers = clients.base
        async with harness.provider() as provider:
            scenario = Scenario(harness=harness, provider=provider, clients=clients)
            (tmp_path / "worker").mkdir()
            async with worker(site_of(tmp_path / "worker", harness, provider.settings.issuer, prefix)):
                endings = [ending for act in WAYS for ending in await act(scenario)]
                total = wanted(endings).total()
                await clients.until(lambda: len(answered(clients)) == total - 1)  # all but the hanging client's
                scenario.released.set()
                await clients.until(lambda: len(answered(clients)) == total)
            check_events(harness, endings)
            check_tokens(clients, endings, await provider.jwks(), keys)
            assert await in_rabbitmq(harness.broker, prefix, ["dead"]) == []
            assert [each for each in provider.events if each["event"] == "backchannel.error"] == []


def check_events(harness: Harness, endings: Endings) -> None:
    """Check that each session end has one id and the expected content."""
    first = {published.event["id"]: published for published in reversed(harness.events.seen)}
    came = sorted(first.values(), key=harness.events.seen.index)
    assert [each.event["sub"] for each in came] == [each.sub for each in endings]
    for published, ending in zip(came, endings, strict=True):
        event = published.event
        assert {each["client_id"]: each for each in event["clients"]} == dict(ending.clients), ending
        assert len(event["clients"]) == len(ending.clients)
        assert (event["reason"], event["sub"]) == (ending.reason, ending.sub)
        assert "sid" not in event  # each client has its own
        assert timedelta() <= datetime.now(UTC) - datetime.fromisoformat(event["ended_at"]) < timedelta(minutes=2)
        assert published.properties == properties(event["id"], "guest")


def answered(clients: Clients) -> list[Hit]:
    """Return the tokens that clients accepted: without the one answered 500, and without one that hangs."""
    return [hit for hit in clients.hits if hit.nth >= clients.accepted.get((hit.path, hit.who), hit.nth + 1)]


def check_tokens(clients: Clients, endings: Endings, jwks: Mapping[str, Any], keys: Keys) -> None:
    """Check that each is valid and notifier's, and that clients accepted exactly the expected tokens."""
    verify_all(clients.hits, lambda _issuer: jwks)
    assert {hit.header["kid"] for hit in clients.hits} == keys.notifiers
    assert {hit.header["alg"] for hit in clients.at("mail")} == {"ES256"}
    assert {hit.header["alg"] for name in NOTIFIED if name != "mail" for hit in clients.at(name)} == {"RS256"}
    came = Counter((hit.path[1:], hit.claims["sub"], hit.claims.get("sid")) for hit in answered(clients))
    assert came == wanted(endings)


async def test_without_the_package_the_library_notifies_the_clients(harness: Harness, keys: Keys) -> None:
    """Control experiment: otherwise the absence of its posts beside the package would prove nothing."""
    async with Clients() as clients:
        harness.receivers = clients.base
        async with harness.provider(publish=False) as provider, harness.signed_in(provider, "alone", *ALL) as browser:
            await browser.sign_out("shop")
            assert {hit.path[1:] for hit in clients.hits} == set(NOTIFIED)
            assert {hit.header["kid"] for hit in clients.hits} <= keys.providers
