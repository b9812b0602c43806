"""Sessions that expire, which node-oidc-provider does not report: with `expiry` the package does, over restarts."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Any

import pytest

from publishers.tests.oidc_provider.harness import Harness
from publishers.tests.oidc_provider.provider import Provider
from publishers.tests.oidc_provider.test_processes import until_files

pytestmark = pytest.mark.full
SECONDS = 20  # that a session lives: all who sign in must have done so before
MEMORY: Mapping[str, Any] = {"every": 200}  # milliseconds
REDIS: Mapping[str, Any] = {**MEMORY, "store": "redis"}


async def test_sessions_that_run_out(harness: Harness) -> None:
    """With each store at the same time, since all of it is waiting."""
    harness.session = SECONDS
    folders = [{"folder": str(harness.outbox / name)} for name in ("memory", "redis", "two")]
    async with (
        harness.provider(expiry=MEMORY, outbox=folders[0]) as memory,
        harness.provider(expiry=REDIS, outbox=folders[1]) as redis,
        harness.provider(expiry=REDIS, outbox=folders[1], beside=redis),  # one of the two publishes each end
        harness.provider(expiry=MEMORY, outbox=folders[2]) as one,
        harness.provider(expiry=MEMORY, outbox=folders[2], beside=one) as other,
    ):
        await asyncio.gather(
            run_out(harness, memory, "memory"), run_out(harness, redis, "redis"), run_out_at_two(harness, one, other)
        )
        await until_files(harness)


async def run_out(harness: Harness, provider: Provider, what: str) -> None:
    """Each is published once, at its last end, and not after a sign-out. A restart forgets none."""
    names = [f"{what}-{name}" for name in ("runs-out", "past-the-model", "goes-on")]
    out = f"{what}-signs-out"
    async with AsyncExitStack() as stack:
        entering = (stack.enter_async_context(harness.signed_in(provider, name, "shop")) for name in (out, *names))
        signs_out, runs_out, past, goes_on = await asyncio.gather(*entering)
        await asyncio.gather(*(browser.sign_in("wiki") for browser in (signs_out, runs_out, past)))
        await past.own("adapter-destroy")
        await signs_out.sign_out()
        await harness.events.until_of(out)
        before = time.time()
        await goes_on.sign_in("wiki")
        after = time.time()
        await asyncio.sleep(0.3)  # a killed process forgets the last 250 ms
        await provider.kill()
        assert not set(names) & harness.events.subs
    await provider.start()
    await harness.events.until(lambda _: set(names) <= harness.events.subs)
    for user in names:
        [published] = harness.events.of(user)
        assert published.event["reason"] == "session_expiration"
        assert set(published.clients) == {"shop", "wiki"}
        assert published.lane == "bulk"
    [last] = harness.events.of(names[-1])
    ended_at = datetime.fromisoformat(last.event["ended_at"]).timestamp()
    assert before - 1 <= ended_at - SECONDS <= after + 1  # in whole seconds
    assert [each.event["reason"] for each in harness.events.of(out)] == ["user_logout"]


async def run_out_at_two(harness: Harness, one: Provider, other: Provider) -> None:
    """Each stores its observations. The first sees that the session continued elsewhere; both publish one end."""
    async with harness.signed_in(one, "at-two", "shop") as browser:
        browser.at = other.url
        await asyncio.sleep(1.1)  # ends are distinguished by seconds
        await browser.sign_in("wiki")
    await harness.events.until_of("at-two", 2)
    assert {each.clients for each in harness.events.of("at-two")} == {frozenset({"shop", "wiki"})}
    assert len({each.event["id"] for each in harness.events.of("at-two")}) == 1
