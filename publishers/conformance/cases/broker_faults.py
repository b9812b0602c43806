"""The broker is unreachable, hangs or dies: no sign-out is affected, and all events follow later, in order."""

import asyncio

import pytest

from publishers.conformance.harness import LIMIT, Harness


async def test_the_broker_is_unreachable_for_many_sign_outs(harness: Harness) -> None:
    """As in an hour without a broker: all are published when it returns, in the order of the sign-outs."""
    await harness.run()
    sessions = await harness.sign_in(harness.many(100, 4000))
    harness.broker.go_away()
    await harness.sign_out(sessions)
    await harness.stays_waiting(len(sessions))
    await harness.broker.come_back()
    await harness.until_published(sessions)
    assert harness.in_order(sessions)


async def test_a_hanging_broker_delays_no_sign_out(harness: Harness) -> None:
    """Frozen: it accepts connections and never answers. 99 of 100 sign-outs keep their limit; all are published.

    In the short form 9 of 10: who waits for the broker waits each time, a machine that stands still does so once.
    """
    await harness.run()
    sessions = await harness.sign_in(harness.many(50, 1000))
    harness.broker.node.freeze()
    try:
        took = sorted(await harness.sign_out(sessions))
    finally:
        await harness.broker.come_back()
    most = took[-1 - len(took) // harness.form(10, 100)]
    harness.report(f"sign-outs with the broker frozen: median {took[len(took) // 2]:.3f} s, most within {most:.3f} s")
    assert most <= LIMIT, f"sign-outs waited for a frozen broker: {took}"
    await harness.until_published(sessions)


@pytest.mark.starts
async def test_the_broker_is_killed(harness: Harness) -> None:
    """SIGKILL, as a power cut, with events in flight; later it is there again with the data that it had."""
    await harness.run()
    sessions = await harness.sign_in(harness.many(30, 300))
    stream = asyncio.create_task(harness.sign_out(sessions))
    await harness.until(lambda: harness.of(sessions[3]), "nothing was published")
    await asyncio.to_thread(harness.broker.node.kill)
    await stream
    await asyncio.to_thread(harness.broker.node.start)
    await harness.until_published(sessions)


async def test_memory_does_not_grow_with_pending_events(harness: Harness) -> None:
    """The outbox is on disk, and read in parts."""
    await harness.run()
    few, many = harness.many(20, 200), harness.many(300, 10_000)
    sessions = await harness.sign_in(few + many)
    harness.broker.go_away()
    await harness.sign_out(sessions[:few], together=8)
    before = harness.subject.memory()
    await harness.sign_out(sessions[few:], together=8)
    grown = (harness.subject.memory() - before) / 2**20
    harness.report(f"{many} more events waiting: {grown:.1f} MiB more")
    assert grown < 32
    await harness.broker.come_back()
    await harness.until_published(sessions)
