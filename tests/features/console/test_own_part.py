"""What a worker answers the console: however many ask it, its deliveries go on between two answers."""

import asyncio
from collections.abc import Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import pytest

from notifier.features.console.all_workers import AT_A_TIME, NAME, OwnPart
from notifier.features.console.recent import Happening
from notifier.operators.status.worker_requests import WorkerRequest


class Remembering:
    """Notes when its rows are gone through."""

    last = 0
    since = 0.0

    def __init__(self, log: list[str]) -> None:
        self._log = log

    def after(self, *_number: int, **_narrowing: object) -> list[Happening]:
        """As of a worker's memory."""
        self._log.append("rows")
        return []

    found = after


@pytest.mark.parametrize("members", [{"after": {}}, {"find": {"subject": "alice"}}])
async def test_others_have_their_chance_between_two_answers(members: dict[str, object]) -> None:
    """A hundred requests at a time held the loop for a second and a half, with 7,000 rows to go through for each."""
    log = list[str]()
    part = OwnPart(cast("Any", SimpleNamespace(name="w")), cast("Any", Remembering(log)))

    async def deliver() -> None:
        while log.count("rows") < 5:
            log.append("delivery")
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(part.act(WorkerRequest(name=NAME, who="eyes", members=members)))
        group.create_task(deliver())
    assert "rows rows" not in " ".join(log)


async def test_thousands_of_clients_in_trouble_hold_up_no_delivery() -> None:
    """They are told a few at a time, and once for all that ask together."""
    log: list[int] = []

    def states(size: int) -> Iterator[bytes]:
        for _ in range(5):
            log.append(size)
            yield b"{}"

    async def deliver() -> None:
        while True:
            log.append(0)
            await asyncio.sleep(0)

    given = SimpleNamespace(states=states)
    part = OwnPart(cast("Any", given), cast("Any", Remembering([])))
    request = WorkerRequest(name=NAME, who="console", members={"clients": None})
    delivering = asyncio.create_task(deliver())
    said = await asyncio.gather(part.act(request), part.act(request))
    delivering.cancel()
    assert [len(each["states"]) for each in said] == [5, 5]
    assert [count for count in log if count] == [AT_A_TIME] * 5
    told = [place for place, count in enumerate(log) if count]
    assert all(later - before > 1 for before, later in pairwise(told)), "others had their turn"
