"""What a worker answers the console: however many ask it, its deliveries go on between two answers."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from notifier.features.console.all_workers import NAME, OwnPart
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
