"""Several processes, and those that are killed: on a real Redis, with SIGKILL, at set points and at random ones."""

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any

import aiohttp
import pytest

from tests.publishers.oidc_provider.browser import Browser
from tests.publishers.oidc_provider.clients import ALL
from tests.publishers.oidc_provider.conftest import newest
from tests.publishers.oidc_provider.provider import Provider
from tests.publishers.oidc_provider.rig import Rig
from tests.system.waiting import PATIENCE, until

pytestmark = pytest.mark.full


async def until_files(rig: Rig, count: int = 0, *, suffix: str = "", patience: float = PATIENCE) -> None:
    """Wait until so many events lie in the outbox."""
    await until(lambda: asyncio.to_thread(rig.files, suffix), lambda files: len(files) == count, patience)


async def cut_off(browser: Browser) -> None:
    """A sign-out whose answer never comes."""
    page = await browser.ask_to_sign_out()
    with pytest.raises(aiohttp.ClientError):
        await browser.confirm(page)


async def test_two_processes(rigged: Rig) -> None:
    """Signed in at one and out at the other; at both at once: one id. Each has a folder of its own."""
    async with rigged.provider() as one, rigged.provider(beside=one) as other:
        async with rigged.signed_in(one, "moves", *ALL) as browser:
            browser.at = other.url
            await browser.sign_out("shop")
        async with rigged.signed_in(one, "both", *ALL) as browser:
            page = await browser.ask_to_sign_out()

            async def confirm(at: str) -> None:
                browser.at = at
                await browser.confirm(page)

            await asyncio.gather(confirm(one.url), confirm(other.url))
        await rigged.events.until(lambda: rigged.events.subs == {"moves", "both"})
        await until_files(rigged)
        assert len(rigged.events.ids) == 2
        assert all(set(each.clients) == set(ALL) for each in rigged.events.all)
        assert len([path for path in rigged.outbox.iterdir() if path.is_dir()]) == 2


async def test_killed_between_file_and_deletion(rigged: Rig) -> None:
    """The session lives on: its event is dropped, and the next sign-out tells."""
    async with (
        rigged.provider(faults={"die": "before"}) as first,
        rigged.signed_in(first, "alice", *ALL) as browser,
    ):
        await cut_off(browser)
        await first.died()
        assert [path.suffix for path in rigged.files()] == [".pending"]
        async with rigged.provider(beside=first) as second:
            browser.at = second.url
            await until_files(rigged)
            assert await browser.lives()
            assert rigged.events.all == []
            await browser.sign_out()
            [published] = await rigged.events.until_of("alice")
            assert set(published.clients) == set(ALL)


async def test_killed_after_the_deletion(rigged: Rig) -> None:
    """The session is gone: told after the restart."""
    first = await killed_after_the_deletion(rigged)
    async with rigged.provider(beside=first):
        [published] = await rigged.events.until_of("alice")
        assert set(published.clients) == set(ALL)
        await until_files(rigged)


@newest
async def test_a_store_that_does_not_answer(rigged: Rig) -> None:
    """At the start it cannot be asked whether the session lives: asked again, and nothing is dropped or told before."""
    first = await killed_after_the_deletion(rigged)
    async with rigged.provider(beside=first, faults={"store": "away"}) as second:
        await second.until_logged("session_store_away")
        assert [path.suffix for path in rigged.files()] == [".pending"]
        assert rigged.events.all == []
        await second.fault("store")
        await rigged.events.until_of("alice")
        await until_files(rigged)


async def killed_after_the_deletion(rig: Rig) -> Provider:
    """A process that is no more."""
    async with rig.provider(faults={"die": "after"}) as first:
        async with rig.signed_in(first, "alice", *ALL) as browser:
            await cut_off(browser)
        await first.died()
        return first


@pytest.mark.timeout(900)
async def test_killed_at_random_moments(rigged: Rig, form: Callable[[int, int], int]) -> None:
    """Amid sign-outs: no ending is forgotten, and none is told that did not come to be."""
    times, users = form(2, 20), form(12, 40)
    chance = random.Random(1)
    left = set[str]()
    living = 0
    async with rigged.provider(tell=False) as provider:
        for nth in range(times):
            async with AsyncExitStack() as stack:
                browsers = [
                    await stack.enter_async_context(rigged.signed_in(provider, f"{nth}-{number}", "shop", "wiki"))
                    for number in range(users)
                ]
                await sign_out_until_killed(provider, browsers, chance)
                await provider.start()
                await until_files(rigged)
                living += await _sign_out_again(browsers, left, rigged)
                await rigged.events.until(lambda: left <= rigged.events.subs)
                await until_files(rigged)
    assert len(left) == times * users
    assert 0 < living < times * users  # the kills came in time
    for sub in left:
        assert len({each.event["id"] for each in rigged.events.of(sub)}) == 1
        assert set(rigged.events.of(sub)[0].clients) == {"shop", "wiki"}


async def sign_out_until_killed(provider: Provider, browsers: Sequence[Browser], chance: random.Random) -> None:
    """Four at a time, until the process is killed: after so many answers, and a moment."""
    left, answered, enough = iter(browsers), 0, asyncio.Event()
    most = chance.randrange(1, len(browsers) - 4)

    async def some() -> None:
        nonlocal answered
        with suppress(aiohttp.ClientError):
            for browser in left:
                await browser.sign_out()
                answered += 1
                if answered == most:
                    enough.set()

    ending = asyncio.gather(*(some() for _ in range(4)))
    await enough.wait()
    await asyncio.sleep(chance.uniform(0, 0.02))  # any moment of a sign-out
    await provider.kill()
    await ending


async def _sign_out_again(browsers: Sequence[Browser], left: set[str], rig: Rig) -> int:
    """Those whose session lives: nobody has been told of its end. How many they are."""
    living = [browser for browser in browsers if await browser.lives()]
    assert not {browser.user for browser in living} & rig.events.subs
    for browser in living:
        await browser.sign_out()
    left.update(browser.user for browser in browsers)
    return len(living)


@newest
async def test_what_a_dead_process_left(rigged: Rig) -> None:
    """The next to start takes it over, and leaves alone what a living process is about to do."""
    rigged.take_away()
    async with rigged.provider() as one, rigged.provider(beside=one, faults={"hold": "yes"}) as living:
        for user in ("left-1", "left-2"):
            async with rigged.signed_in(one, user, *ALL) as browser:
                await browser.sign_out()
        await until_files(rigged, 2, suffix=".json")
        await one.kill()
        async with rigged.signed_in(living, "slow", *ALL) as browser:
            signing_out = asyncio.create_task(browser.sign_out())
            await until_files(rigged, 1, suffix=".pending")
            async with rigged.provider(beside=one):
                await rigged.bring_back()
                await rigged.events.until(lambda: rigged.events.subs >= {"left-1", "left-2"})
                await living.fault("hold")
                assert (await signing_out).status == 303
                await rigged.events.until_of("slow")
                await until_files(rigged)
                assert [each.event["sub"] for each in rigged.events.all] == ["left-1", "left-2", "slow"]


@newest
async def test_two_providers_share_a_folder(rigged: Rig) -> None:
    """What one left is not another's: only a process with the same issuer knows which of its sessions live."""
    async with (
        rigged.provider(faults={"die": "before"}) as first,
        rigged.signed_in(first, "alice", *ALL) as alice,
    ):
        await cut_off(alice)
        await first.died()
        async with rigged.provider(redis="") as other, rigged.signed_in(other, "bob", *ALL) as bob:
            await bob.sign_out()
            await rigged.events.until_of("bob")
            await until_files(rigged, 1)
        async with rigged.provider(beside=first):
            await until_files(rigged)
        assert rigged.events.subs == {"bob"}


@newest
async def test_started_at_once(rigged: Rig, form: Callable[[int, int], int]) -> None:
    """Processes that start at the same moment on one folder never share a sub-folder."""
    first = Provider(rigged.folder, rigged.settings())
    more: list[Any] = [Provider(rigged.folder, rigged.settings(beside=first)) for _ in range(form(2, 5))]
    providers = [first, *more]
    try:
        await asyncio.gather(*(provider.start() for provider in providers))
        for number, provider in enumerate(providers):
            async with rigged.signed_in(provider, f"at-{number}", "shop") as browser:
                await browser.sign_out()
        await rigged.events.until(lambda: len(rigged.events.subs) == len(providers))
        assert len([path for path in rigged.outbox.iterdir() if path.is_dir()]) == len(providers)
    finally:
        await asyncio.gather(*(provider.kill() for provider in providers))
