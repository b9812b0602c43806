"""When the answers to a request are enough, though some may be forged. In virtual time."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from notifier.queues.rabbitmq.replies import (
    LATE_ANSWER_SECONDS,
    MAX_ANSWERS_BYTES,
    MAX_PENDING_BYTES,
    UNCOUNTED_ANSWER_SECONDS,
    WORKER_COUNT,
    _Answers,
)
from tests.simulator.virtual_time import VirtualLoop


def ends(consumers: int, *counts: int | None) -> tuple[int | None, float | None]:
    """Let such answers follow each other at once. Return after how many, and how many seconds later, they are enough.

    None if they are never enough.
    """

    async def take() -> tuple[int | None, float | None]:
        answers = _Answers(consumers)
        for number, count in enumerate(counts, 1):
            await answers.take(answer(b"", count))
            if answers.has_enough.is_set():
                return number, 0.0
        try:
            async with asyncio.timeout(3600):
                await answers.has_enough.wait()
        except TimeoutError:
            return None, None
        return len(counts), asyncio.get_running_loop().time()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(take())


def answer(body: bytes, count: int | None) -> Any:
    """Return an answer with this number of workers."""
    headers = {} if count is None else {WORKER_COUNT: count}
    return cast("Any", SimpleNamespace(body=body, header=SimpleNamespace(properties=SimpleNamespace(headers=headers))))


@pytest.mark.parametrize(
    ("consumers", "counts", "expected"),
    [
        (3, (3, 3, 3), (3, 0.0)),
        (1, (3, 3, 3), (3, 0.0)),  # two are not ready
        (3, (1, 3, 3, 3), (4, 0.0)),  # the first is forged
        (3, (3, 1, 3, 3), (4, 0.0)),
        (3, (1,), (1, LATE_ANSWER_SECONDS)),
        (4, (3, 3, 3), (3, LATE_ANSWER_SECONDS)),  # a lane was renewed: it has another consumer for a while
        (2, (0, None), (2, UNCOUNTED_ANSWER_SECONDS)),  # not counted yet, and an older worker: others may not be ready
        (1, (0, 0, 3), (3, UNCOUNTED_ANSWER_SECONDS)),
        (2, (-5,), (None, None)),
        (0, (0,), (1, UNCOUNTED_ANSWER_SECONDS)),
    ],
)
def test_answers_are_enough(
    consumers: int, counts: tuple[int | None, ...], expected: tuple[int | None, float | None]
) -> None:
    """If so many agree about the number of workers, or after a while."""
    assert ends(consumers, *counts) == expected


async def test_answers_are_bounded() -> None:
    """In bytes, each and all together, and so in number."""
    answers = _Answers(0)
    await answers.take(answer(bytes(MAX_PENDING_BYTES + 1), 1))
    assert answers.bodies == []
    for body in (bytes(MAX_PENDING_BYTES), b""):
        for _ in range(2000):
            await answers.take(answer(body, 1))
    assert sum(map(len, answers.bodies)) == MAX_ANSWERS_BYTES
    small = _Answers(0)
    for _ in range(2000):
        await small.take(answer(b"", 1))
    assert len(small.bodies) <= 1025
