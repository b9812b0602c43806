"""A worker that stops during a retry or a replay: its last reported counts remain."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from notifier.model.errors import QueueUnavailable
from notifier.model.message import TransferResult
from notifier.operators.deliveries.dead_letter_filter import DeadLetterFilter
from notifier.operators.deliveries.repair_result import RESULTS_UNAVAILABLE_TEXT, STOPPED_TEXT
from notifier.operators.deliveries.replay_account import FOLLOW_REPLAY
from notifier.operators.deliveries.replay_now import Replay, ReplayRequest
from notifier.operators.deliveries.retry_now import retry_now
from notifier.operators.deliveries.retry_request import RETRY_CLIENT, RetryRequest
from notifier.operators.status.worker_requests import GONE_WORKER_TEXT, Act, Members, RequestHandler, WorkerRequest
from notifier.queues.passes import RepairOptions, stopped_by
from notifier.queues.queue_state import WorkerAnswers
from notifier.queues.sqlite import SqliteOptions, SqliteQueue
from notifier.queues.sqlite.row_passes import SqlitePass
from tests.contract.dead_letter_samples import ISS, RULES, course, dead_letter, store_dead_letters
from tests.contract.test_waiting import delayed, delivery

Counts = dict[str, list[int]]


class Workers(SqliteQueue):
    """A queue whose workers report a delivered count per request, and then disappear."""

    counts: Counts

    async def request(self, document: bytes, within: float) -> WorkerAnswers:
        """Implement the port."""
        there = [worker for worker, counts in self.counts.items() if counts]
        answers = list[bytes]()
        for worker in there:
            acts = dict.fromkeys((RETRY_CLIENT, FOLLOW_REPLAY), self._act(worker))
            answers.append(await RequestHandler(worker, acts, self.side_channel.on_malformed).carry_out(document))
        return WorkerAnswers(seen=len(there), answers=answers)

    def _act(self, worker: str) -> Act:
        async def act(request: WorkerRequest) -> Members:
            delivered = self.counts[worker].pop(0)
            return {"delivered": delivered, "reported": delivered}

        return act


@pytest.fixture
async def queue(tmp_path: Path) -> AsyncIterator[Workers]:
    """An open queue."""
    queue = Workers(SqliteOptions(path=tmp_path / "queue.db"))
    await queue.open()
    yield queue
    await queue.close()


@pytest.fixture
def options() -> RepairOptions:
    """Options whose monotonic clock advances by half a second at each call."""
    seconds = count(0.0, 0.5)
    return course(monotonic=lambda: next(seconds))


@pytest.mark.parametrize(
    ("counts", "unfinished"),
    [
        ({"gone": [0, 0, 3], "stays": [0, 0, 1, *[2] * 9]}, GONE_WORKER_TEXT),
        ({"one": [0, 0, *[3] * 9], "two": [0, 0, *[2] * 9]}, None),
    ],
)
async def test_worker_that_stops_during_a_retry_stays_counted(
    queue: Workers, options: RepairOptions, counts: Counts, unfinished: str | None
) -> None:
    """The result warns of further deliveries only if a worker stopped."""
    await delayed(queue, *(delivery(f"d{number}") for number in range(5)))
    queue.counts = counts
    request = RetryRequest(key=(ISS, "shop"), who="sre")
    result = (await retry_now(queue, queue.waiting(), request, options)).document()
    assert (result["delivered"], result["unfinished"]) == (5, unfinished)


async def test_retry_is_stopped_before_it_counts(queue: Workers, options: RepairOptions) -> None:
    """As Ctrl-C does while another process holds the deliveries. It requests no attempt."""
    await delayed(queue, delivery("d0"))
    queue.counts = {"one": [0, 0]}
    stop = asyncio.Event()
    stop.set()
    stopped = replace(options, opening=partial(stopped_by, stop))
    result = await retry_now(queue, queue.waiting(), RetryRequest(key=(ISS, "shop"), who="sre"), stopped)
    assert (result.waited, result.unfinished, queue.counts) == (0, STOPPED_TEXT, {"one": [0]})


async def test_worker_that_stops_during_a_replay_stays_counted(queue: Workers, options: RepairOptions) -> None:
    """Its reported results remain, and the rest may be with other workers."""
    await store_dead_letters(queue, *(dead_letter(f"d{number}") for number in range(5)))
    queue.counts = {"gone": [0, 3], "stays": [0, *[1] * 40]}
    replay = Replay(
        queue, queue.dead_letters(), ReplayRequest(id="r", who="sre", filter_=DeadLetterFilter(), rules=RULES)
    )
    assert (await replay.run(options)).done == 5
    became = (await replay.watch(options, 600.0)).document()
    assert (became["delivered"], became["waiting"], became["unfinished"]) == (4, 1, GONE_WORKER_TEXT)


class FailingWorkers(Workers):
    """Workers whose queue fails after some requests."""

    async def request(self, document: bytes, within: float) -> WorkerAnswers:
        """Implement the port."""
        if not any(self.counts.values()):
            raise QueueUnavailable(BROKER_TEXT)
        return await super().request(document, within)


BROKER_TEXT = "the broker at rabbit-1.internal:5672 refuses the connection"


@pytest.mark.parametrize("fails_at", ["query", "move"])
async def test_failure_of_the_queue_is_shown_without_its_hosts(
    tmp_path: Path, options: RepairOptions, monkeypatch: pytest.MonkeyPatch, fails_at: str
) -> None:
    """Tokens of one issuer read the result of a retry and of a replay. The log has the text."""
    queue = FailingWorkers(SqliteOptions(path=tmp_path / "queue.db"))
    await queue.open()
    await delayed(queue, delivery("d0"))
    queue.counts = {"one": [0, 0, *([0] * 9 if fails_at == "move" else [])]}

    async def fail(*_: object) -> TransferResult:
        raise QueueUnavailable(BROKER_TEXT)

    with capture_logs() as logs, monkeypatch.context() as patch:
        if fails_at == "move":
            patch.setattr(SqlitePass, "move", fail)
        result = await retry_now(queue, queue.waiting(), RetryRequest(key=(ISS, "shop"), who="sre"), options)
    assert result.unfinished == RESULTS_UNAVAILABLE_TEXT
    assert [line["error"] for line in logs if line["event"] == "repair_failed"] == [BROKER_TEXT]
    await store_dead_letters(queue, dead_letter("d1"))
    queue.counts = {"one": [0]}
    request = ReplayRequest(id="r", who="sre", filter_=DeadLetterFilter(), rules=RULES)
    replay = Replay(queue, queue.dead_letters(), request)
    await replay.run(options)
    with capture_logs() as logs:
        assert (await replay.watch(options, 600.0)).unfinished == RESULTS_UNAVAILABLE_TEXT
    assert [line["error"] for line in logs] == [BROKER_TEXT]
    await queue.close()
