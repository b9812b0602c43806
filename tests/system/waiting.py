"""Polling of state without notification: a broker's count, a probe, a scrape, a process's descriptors."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

PATIENCE = 90.0  # seconds until a wait of a test is a failure
EVERY = 0.05

T = TypeVar("T")


async def until(ask: Callable[[], Awaitable[T]], good: Callable[[T], bool], patience: float = PATIENCE) -> T:
    """The first answer that is good; asks again and again. Fails with the last one."""
    deadline = asyncio.get_running_loop().time() + patience
    while not good(answer := await ask()):
        assert asyncio.get_running_loop().time() < deadline, f"waited {patience} s; the last answer was {answer}"
        await asyncio.sleep(EVERY)
    return answer
