"""Several processes on one Redis and one outbox. Those that are killed at any moment are in publishers/conformance."""

import asyncio

import aiohttp
import pytest

from publishers.tests.oidc_provider.clients import ALL
from publishers.tests.oidc_provider.conftest import newest
from publishers.tests.oidc_provider.harness import Harness
from tests.system.waiting import until

pytestmark = pytest.mark.full


async def until_files(harness: Harness, count: int = 0) -> None:
    """Wait until so many events lie in the outbox."""
    await until(lambda: asyncio.to_thread(harness.files), lambda files: len(files) == count)


async def test_two_processes(harness: Harness) -> None:
    """Signed in at one and out at the other; at both at once: one id. Each has its own folder."""
    async with harness.provider() as one, harness.provider(beside=one) as other:
        async with harness.signed_in(one, "moves", *ALL) as browser:
            browser.at = other.url
            await browser.sign_out("shop")
        async with harness.signed_in(one, "both", *ALL) as browser:
            page = await browser.ask_to_sign_out()

            async def confirm(at: str) -> None:
                browser.at = at
                await browser.confirm(page)

            await asyncio.gather(confirm(one.url), confirm(other.url))
        await harness.events.until(lambda _: harness.events.subs == {"moves", "both"})
        await until_files(harness)
        assert len(harness.events.ids) == 2
        assert all(set(each.clients) == set(ALL) for each in harness.events.seen)
        assert len([path for path in harness.outbox.iterdir() if path.is_dir()]) == 2


@newest
async def test_two_providers_share_a_folder(harness: Harness) -> None:
    """What one left is not another's: only a process with the same issuer knows which of its sessions live."""
    async with (
        harness.provider(faults={"die": "before"}) as first,
        harness.signed_in(first, "alice", *ALL) as alice,
    ):
        page = await alice.ask_to_sign_out()
        with pytest.raises(aiohttp.ClientError):
            await alice.confirm(page)
        await first.died()
        async with harness.provider(redis="") as other, harness.signed_in(other, "bob", *ALL) as bob:
            await bob.sign_out()
            await harness.events.until_of("bob")
            await until_files(harness, 1)
        async with harness.provider(beside=first):
            await until_files(harness)
        assert harness.events.subs == {"bob"}
