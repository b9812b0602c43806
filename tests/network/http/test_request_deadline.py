"""The deadline of a request ends what is awaited, in each case as `asyncio.timeout` does."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import uvloop

from notifier.network.http.transport import RequestDeadline

SOON = 0.001  # seconds


@asynccontextmanager
async def own(seconds: float) -> AsyncIterator[None]:
    with RequestDeadline(seconds):
        yield


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner


@pytest.fixture(params=[own, asyncio.timeout], ids=["own", "asyncio.timeout"])
def within(request: pytest.FixtureRequest) -> Callable[[float], AbstractAsyncContextManager[object]]:
    made: Callable[[float], AbstractAsyncContextManager[object]] = request.param
    return made


async def ending(work: Coroutine[Any, Any, str]) -> str:
    """Return the work's result, or the name of its error. Its task must not be left cancelled."""
    try:
        result = await work
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  each is one of the results
        result = type(error).__name__
    task = asyncio.current_task()
    assert task is not None
    return result if not task.cancelling() else f"{result}, and {task.cancelling()} cancellations are left"


@pytest.mark.parametrize("seconds", [SOON, 0.0, -1.0])
def test_what_takes_too_long_ends_with_timeout_error(runner: asyncio.Runner, within: Any, seconds: float) -> None:
    """At a deadline in the past too."""

    async def hang() -> str:
        async with within(seconds):
            await asyncio.get_running_loop().create_future()
        return "ended"

    assert runner.run(ending(hang())) == "TimeoutError"


def test_what_ends_in_time_is_left_alone_afterwards(runner: asyncio.Runner, within: Any) -> None:
    """The timer is gone: what the task awaits next goes on past the moment."""

    async def answer() -> str:
        loop = asyncio.get_running_loop()
        async with within(SOON):
            pass
        later = loop.create_future()
        loop.call_later(3 * SOON, later.set_result, "answered")
        return str(await later)

    assert runner.run(ending(answer())) == "answered"


@pytest.mark.parametrize("first", ["answer", "deadline"])
def test_an_answer_in_the_same_pass_as_the_deadline_is_too_late(
    runner: asyncio.Runner, within: Any, first: str
) -> None:
    """Whichever of the two the loop handles first: the task goes on after both, and is not left cancelled."""

    async def both() -> str:
        loop = asyncio.get_running_loop()
        answered = loop.create_future()
        passed = loop.time() + SOON
        if first == "answer":
            loop.call_at(passed, answered.set_result, "answered")
        async with within(SOON):
            if first == "deadline":
                loop.call_at(passed + SOON / 10, answered.set_result, "answered")
            while loop.time() < passed + SOON:
                pass  # both timers are due now, so that one pass of the loop handles both
            return str(await answered)

    assert runner.run(ending(both())) == "TimeoutError"


@pytest.mark.parametrize("both", [False, True], ids=["alone", "with the deadline"])
def test_a_cancellation_by_others_stays_one(runner: asyncio.Runner, within: Any, both: bool) -> None:
    """A drain that cancels the task is not taken for a timeout, even in the same pass as the deadline."""

    async def cancelled() -> str:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        until = loop.time() + 2 * SOON
        loop.call_soon(task.cancel)
        async with within(SOON if both else 60):
            while both and loop.time() < until:
                pass
            await loop.create_future()
        return "ended"

    assert runner.run(ending(cancelled())) == "CancelledError, and 1 cancellations are left"


def test_an_error_that_stands_for_the_cancellation_is_raised(runner: asyncio.Runner, within: Any) -> None:
    """What a library makes of it, and nothing is left of the deadline."""

    async def translated() -> str:
        async with within(SOON):
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                raise OSError("closed") from None
        return "ended"

    assert runner.run(ending(translated())) == "OSError"
