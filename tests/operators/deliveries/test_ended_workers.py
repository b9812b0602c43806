"""A worker ends while others ask what became of a retry or a replay: what it has told stays counted."""

from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path

import pytest

from notifier.operators.deliveries.dead_letter_filter import DeadLetterFilter
from notifier.operators.deliveries.replay_now import Replay, ReplayRequest
from notifier.operators.deliveries.retry_now import RetryRequest, retry_now
from notifier.operators.status.worker_requests import GONE_WORKER_TEXT, Act, Members, RequestHandler, WorkerRequest
from notifier.queues.passes import RepairOptions
from notifier.queues.queue_state import WorkerAnswers
from notifier.queues.sqlite import SqliteOptions, SqliteQueue
from tests.contract.dead_letter_samples import ISS, RULES, course, dead_letter, store_dead_letters
from tests.contract.test_waiting import delayed, delivery

Says = dict[str, list[int]]


class Workers(SqliteQueue):
    """A queue whose workers say how many they have delivered, from question to question; then they are gone."""

    says: Says

    async def request(self, document: bytes, within: float) -> WorkerAnswers:
        """As the port says."""
        there = [worker for worker, counts in self.says.items() if counts]
        answers = [
            await RequestHandler(worker, {"retry": self._act(worker), "follow_replay": self._act(worker)}).carry_out(
                document
            )
            for worker in there
        ]
        return WorkerAnswers(seen=len(there), answers=answers)

    def _act(self, worker: str) -> Act:
        async def act(request: WorkerRequest) -> Members:
            delivered = self.says[worker].pop(0)
            return {"delivered": delivered, "heard": delivered}

        return act


@pytest.fixture
async def queue(tmp_path: Path) -> AsyncIterator[Workers]:
    """One that is open."""
    queue = Workers(SqliteOptions(path=tmp_path / "queue.db"))
    await queue.open()
    yield queue
    await queue.close()


@pytest.fixture
def options() -> RepairOptions:
    """Half a second between two looks at the clock."""
    seconds = count(0.0, 0.5)
    return course(steady=lambda: next(seconds))


@pytest.mark.parametrize(
    ("says", "unfinished"),
    [
        ({"gone": [0, 3], "stays": [0, 1, *[2] * 9]}, GONE_WORKER_TEXT),
        ({"one": [0, *[3] * 9], "two": [0, *[2] * 9]}, None),
    ],
)
async def test_a_worker_that_ends_during_a_retry_stays_counted(
    queue: Workers, options: RepairOptions, says: Says, unfinished: str | None
) -> None:
    """The result says that there may be more deliveries, but not if all workers stay."""
    await delayed(queue, *(delivery(f"d{number}") for number in range(5)))
    queue.says = says
    result = (await retry_now(queue, RetryRequest(key=(ISS, "shop"), who="sre"), options)).document()
    assert (result["delivered"], result["unfinished"]) == (5, unfinished)


async def test_a_worker_ends_during_a_replay(queue: Workers, options: RepairOptions) -> None:
    """The same: what it told became of its letters, and the rest may be with others."""
    await store_dead_letters(queue, *(dead_letter(f"d{number}") for number in range(5)))
    queue.says = {"gone": [0, 3], "stays": [0, *[1] * 40]}
    replay = Replay(queue, ReplayRequest(id="r", who="sre", filter_=DeadLetterFilter(), rules=RULES))
    assert (await replay.run(options)).done == 5
    became = (await replay.watch(options, 600.0)).document()
    assert (became["delivered"], became["waiting"], became["unfinished"]) == (4, 1, GONE_WORKER_TEXT)
