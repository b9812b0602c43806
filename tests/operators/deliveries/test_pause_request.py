"""A pause is requested of workers of several releases: the answer names those that do not apply it."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from notifier.model.errors import QueueUnavailable
from notifier.model.pauses import Pause, in_force
from notifier.model.registry import Registry
from notifier.operators.deliveries.pause_request import PauseResult, ask_workers, request_pause, request_resume
from notifier.operators.status.pause_watch import READ_PAUSES, PauseWatch
from notifier.operators.status.worker_requests import Act, RequestHandler, RequestKind
from notifier.queues.queue_state import WorkerAnswers
from notifier.queues.sqlite.options import SqliteOptions
from notifier.queues.sqlite.queue import SqliteQueue

ISS = "https://op.example"
NOW = 1_790_000_000.0


class Workers(SqliteQueue):
    """A queue whose workers answer by these functions. `silent`: how many do not answer."""

    acts: Mapping[str, Mapping[RequestKind, Act]]
    silent = 0

    async def request(self, document: bytes, within: float) -> WorkerAnswers:
        """Implement the port."""
        answers = [
            await RequestHandler(worker, acts, self.side_channel.on_malformed).carry_out(document)
            for worker, acts in self.acts.items()
        ]
        return WorkerAnswers(seen=len(answers) + self.silent, answers=answers)


def shop() -> Pause:
    """A pause of an hour."""
    return Pause(id="a", iss=ISS, client_id="shop", who="alice", reason="deploy", since=NOW, until=NOW + 3600)


async def paused(queue: Workers) -> PauseResult:
    """Pause the client."""
    return await request_pause(queue, [shop()], lambda: NOW)


@pytest.fixture
def queue(tmp_path: Path) -> Workers:
    """A worker of this release and one of a former, which does not know the request."""
    queue = Workers(SqliteOptions(path=tmp_path / "queue.db"))
    watch = PauseWatch(queue, Registry, lambda _: None, lambda: NOW)
    queue.acts = {"new": {READ_PAUSES: watch.act}, "old": {}}
    return queue


async def test_worker_of_a_former_release_is_named(queue: Workers) -> None:
    """By the answer to a pause, to a resume, and by the list, of which all then exit with 1."""
    await queue.open()
    results = [
        await paused(queue),
        await ask_workers(queue, 1, "alice", lambda: NOW),
        await request_resume(queue, [(ISS, "shop")], "bob", lambda: NOW),
    ]
    for result in results:
        assert (result.seen, result.applied, result.is_applied) == (2, ["new"], False)
        [(worker, problem)] = result.late
        assert (worker, "does not support the request 'pauses'" in problem) == ("old", True)
    await queue.close()


async def test_silent_worker_does_not_apply_it(queue: Workers) -> None:
    """It is counted, and has no name."""
    queue.acts, queue.silent = {"new": queue.acts["new"]}, 1
    await queue.open()
    result = await paused(queue)
    assert (result.seen, result.applied, result.late, result.is_applied) == (2, ["new"], [], False)
    assert [*in_force(await queue.register.read(), NOW)] == [(ISS, "shop")]
    await queue.close()


async def test_worker_without_the_document_is_named(queue: Workers) -> None:
    """It has lost the queue, and may still call the client."""

    class Unreadable:
        async def read(self) -> None:
            raise QueueUnavailable("away")

    class Other:
        register = Unreadable()

    watch = PauseWatch(Other(), Registry, lambda _: None, lambda: NOW)  # type: ignore[arg-type]
    queue.acts = {"cut off": {READ_PAUSES: watch.act}}
    await queue.open()
    assert (await paused(queue)).late == [("cut off", "it cannot read the pauses: away")]
    await queue.close()


async def test_worker_by_whose_clock_the_pause_is_over_does_not_apply_it(queue: Workers) -> None:
    """It calls the client. The JSON has the difference of the clocks."""
    watch = PauseWatch(queue, Registry, lambda _: None, lambda: NOW + 7200.0)
    queue.acts = {"ahead": {READ_PAUSES: watch.act}}
    await queue.open()
    result = await paused(queue)
    assert (result.late, result.is_applied) == ([("ahead", "by its clock the pause is over")], False)
    assert result.document()["workers"]["clock_difference"] == 7200.0
    await queue.close()
