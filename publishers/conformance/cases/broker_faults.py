"""The broker is away, hangs, or dies: nobody who signs out notices, and everything comes afterwards, in order."""

import asyncio

import pytest

from publishers.conformance.world import LIMIT, World


async def test_the_broker_is_away_for_many_sign_outs(world: World) -> None:
    """As in an hour without a broker: all are told once it is back, in the order of the sign-outs."""
    await world.run()
    sessions = await world.sign_in(world.many(100, 4000))
    world.broker.go_away()
    await world.sign_out(sessions)
    await world.stays_waiting(len(sessions))
    await world.broker.come_back()
    await world.until_told(sessions)
    assert world.in_order(sessions)


async def test_a_broker_that_hangs_holds_up_no_sign_out(world: World) -> None:
    """Frozen: it takes connections and says nothing. 99 of 100 sign-outs keep their limit, and all are told.

    In the short form 9 of 10: who waits for the broker waits each time, a machine that stands still does so once.
    """
    await world.run()
    sessions = await world.sign_in(world.many(50, 1000))
    world.broker.node.freeze()
    try:
        took = sorted(await world.sign_out(sessions))
    finally:
        await world.broker.come_back()
    most = took[-1 - len(took) // world.form(10, 100)]
    world.say(f"sign-outs with the broker frozen: median {took[len(took) // 2]:.3f} s, most within {most:.3f} s")
    assert most <= LIMIT, f"sign-outs waited for a frozen broker: {took}"
    await world.until_told(sessions)


@pytest.mark.starts
async def test_the_broker_is_killed(world: World) -> None:
    """SIGKILL, as a power cut, with events in flight; later it is there again with the data that it had."""
    await world.run()
    sessions = await world.sign_in(world.many(30, 300))
    stream = asyncio.create_task(world.sign_out(sessions))
    await world.until(lambda: world.of(sessions[3]), "nothing was published")
    await asyncio.to_thread(world.broker.node.kill)
    await stream
    await asyncio.to_thread(world.broker.node.start)
    await world.until_told(sessions)


async def test_memory_does_not_grow_with_what_waits(world: World) -> None:
    """The outbox is on disk, and read in parts."""
    await world.run()
    few, many = world.many(20, 200), world.many(300, 10_000)
    sessions = await world.sign_in(few + many)
    world.broker.go_away()
    await world.sign_out(sessions[:few], together=8)
    before = world.subject.memory()
    await world.sign_out(sessions[few:], together=8)
    grown = (world.subject.memory() - before) / 2**20
    world.say(f"{many} more events waiting: {grown:.1f} MiB more")
    assert grown < 32
    await world.broker.come_back()
    await world.until_told(sessions)
