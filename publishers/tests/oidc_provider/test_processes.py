"""Several processes on one Redis and one outbox. Those that are killed at any moment are in publishers/conformance."""

import asyncio

import aiohttp
import pytest

from publishers.tests.oidc_provider.clients import ALL
from publishers.tests.oidc_provider.conftest import newest
from publishers.tests.oidc_provider.rig import Rig
from tests.system.waiting import until

pytestmark = pytest.mark.full


async def until_files(rig: Rig, count: int = 0) -> None:
    """Wait until so many events lie in the outbox."""
    await until(lambda: asyncio.to_thread(rig.files), lambda files: len(files) == count)


async def test_two_processes(rigged: Rig) -> None:
    """Signed in at one and out at the other; at both at once: one id. Each has its own folder."""
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
        await rigged.events.until(lambda _: rigged.events.subs == {"moves", "both"})
        await until_files(rigged)
        assert len(rigged.events.ids) == 2
        assert all(set(each.clients) == set(ALL) for each in rigged.events.seen)
        assert len([path for path in rigged.outbox.iterdir() if path.is_dir()]) == 2


@newest
async def test_two_providers_share_a_folder(rigged: Rig) -> None:
    """What one left is not another's: only a process with the same issuer knows which of its sessions live."""
    async with (
        rigged.provider(faults={"die": "before"}) as first,
        rigged.signed_in(first, "alice", *ALL) as alice,
    ):
        page = await alice.ask_to_sign_out()
        with pytest.raises(aiohttp.ClientError):
            await alice.confirm(page)
        await first.died()
        async with rigged.provider(redis="") as other, rigged.signed_in(other, "bob", *ALL) as bob:
            await bob.sign_out()
            await rigged.events.until_of("bob")
            await until_files(rigged, 1)
        async with rigged.provider(beside=first):
            await until_files(rigged)
        assert rigged.events.subs == {"bob"}
