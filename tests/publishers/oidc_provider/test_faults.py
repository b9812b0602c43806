"""A broker that is away or frozen, a disk that is full, an outbox that is full: nobody waits, nobody is forgotten."""

import asyncio
import shutil
from collections.abc import Callable

import pytest

from tests.publishers.oidc_provider.clients import ALL
from tests.publishers.oidc_provider.conftest import newest
from tests.publishers.oidc_provider.provider import Provider
from tests.publishers.oidc_provider.rig import Rig
from tests.publishers.oidc_provider.test_processes import until_files
from tests.small_disk import filled, small_disk
from tests.system.waiting import PATIENCE, until

pytestmark = [pytest.mark.full, newest]
SIGNED_OUT = 303
QUICK = 1.0  # seconds for a sign-out that waits for nothing, on a busy machine
DISK_TRIED_AGAIN = 60.0


async def sign_out(rig: Rig, provider: Provider, *users: str, within: float = QUICK) -> None:
    """Each signs in everywhere and out again, one after the other."""
    for user in users:
        async with rig.signed_in(provider, user, *ALL) as browser:
            answer = await browser.sign_out("shop")
            assert answer.status == SIGNED_OUT
            assert answer.seconds < within


def named(what: str, count: int) -> list[str]:
    """So many users."""
    return [f"{what}-{number}" for number in range(count)]


async def until_state(provider: Provider, **wanted: int) -> None:
    """Wait until it counts so many."""
    await until(lambda: provider.own("state"), lambda state: wanted.items() <= state.items())


async def until_told(rig: Rig, users: list[str], patience: float = PATIENCE) -> None:
    """Wait until all were told; the first time that each was is in order."""
    await rig.events.until(lambda: set(users) <= rig.events.subs, patience)
    first = list(dict.fromkeys(each.event["sub"] for each in rig.events.all))
    assert [sub for sub in first if sub in users] == users
    assert all(len({each.event["id"] for each in rig.events.of(user)}) == 1 for user in users)


async def test_broker_away(rigged: Rig, form: Callable[[int, int], int]) -> None:
    """At the start, and in between."""
    users = named("away", form(6, 50))
    rigged.take_away()
    async with rigged.provider() as provider:
        await sign_out(rigged, provider, *users[::2])
        await until_files(rigged, len(users[::2]), suffix=".json")
        state = await provider.own("state")
        assert (state["waiting"], state["published"]) == (len(users[::2]), 0)
        await provider.until_logged('"unreachable"')
        await rigged.bring_back()
        await until_told(rigged, users[::2])
        rigged.take_away()
        await sign_out(rigged, provider, *users[1::2])
        await rigged.bring_back()
        await until_told(rigged, users[1::2])
        await until_files(rigged)
        assert (await provider.own("state"))["lost"] == 0


async def test_broker_frozen(rigged: Rig, form: Callable[[int, int], int]) -> None:
    """Its connection is dropped, not closed politely; what comes twice has the same id."""
    users = named("frozen", form(6, 50))
    async with rigged.provider(limits={"publish": 1000}) as provider:
        await sign_out(rigged, provider, "before")
        await rigged.events.until_of("before")
        rigged.freeze()
        await sign_out(rigged, provider, *users)
        await provider.until_logged('"timed_out"')
        rigged.thaw()
        await until_told(rigged, users)
        await until_files(rigged)


async def test_stopped_with_a_frozen_broker(rigged: Rig) -> None:
    """`close()` keeps to its limit, and what is left is told after the next start."""
    async with rigged.provider(limits={"publish": 1000, "drain": 1000}) as provider:
        rigged.freeze()
        await sign_out(rigged, provider, "left")
        async with asyncio.timeout(5):
            assert await provider.stop() == 0
        rigged.thaw()
        await provider.start()
        await rigged.events.until_of("left")
        await until_files(rigged)


async def test_full_disk(rigged: Rig, form: Callable[[bool, bool], bool]) -> None:
    """Events are kept in memory, told loudly, and published as soon as they can be."""
    with small_disk(rigged.outbox, 1):
        async with rigged.provider() as provider:
            await sign_out(rigged, provider, "before")
            await rigged.events.until_of("before")
            await until_files(rigged)  # or its file would make room
            with filled(rigged.outbox):
                await sign_out(rigged, provider, "full")
                await rigged.events.until_of("full")
                await provider.until_logged("outbox_unusable")
                await until_state(provider, waiting=0)
                rigged.take_away()
                await sign_out(rigged, provider, *(users := named("memory", 3)))
                assert (await provider.own("state"))["waitingInMemory"] == 3
            if form(False, True):
                await until_files(rigged, 3, suffix=".json", patience=DISK_TRIED_AGAIN)
            await rigged.bring_back()
            await until_told(rigged, users)
            assert (await provider.own("state"))["lost"] == 0


async def test_outbox_full(rigged: Rig) -> None:
    """No more files than may be; the others wait in memory, and all are told."""
    users = named("many", 6)
    rigged.take_away()
    async with rigged.provider(outbox={"maxEvents": 3}) as provider:
        await sign_out(rigged, provider, *users)
        state = await provider.own("state")
        assert (state["waiting"], state["waitingInMemory"], state["lost"]) == (6, 3, 0)
        assert len(rigged.files()) == 3
        await provider.until_logged('"level":"error"')
        await rigged.bring_back()
        await until_told(rigged, users)
        await until_files(rigged)


async def test_outbox_gone(rigged: Rig) -> None:
    """Somebody has removed the folder."""
    async with rigged.provider() as provider:
        await sign_out(rigged, provider, "before")
        await rigged.events.until_of("before")
        await until_files(rigged)  # what the package itself removes meanwhile would fail the removal
        await asyncio.to_thread(shutil.rmtree, rigged.outbox)
        await sign_out(rigged, provider, *(users := named("gone", 2)))
        await until_told(rigged, users)


async def test_slow_store_of_clients(rigged: Rig) -> None:
    """The event takes longer than a sign-out may wait: it is written late, and comes all the same."""
    async with rigged.provider(limits={"signOut": 300}, faults={"slow": "1500"}) as provider:
        await sign_out(rigged, provider, "late")
        assert rigged.events.all == []
        [published] = await rigged.events.until_of("late")
        assert set(published.clients) == set(ALL)
        await until_files(rigged)
