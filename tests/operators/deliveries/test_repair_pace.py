"""How a repair with a rate spreads its passes and its messages over time."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from notifier.operators.deliveries import replay_now
from notifier.operators.deliveries.dead_letter_filter import DeadLetterFilter
from notifier.operators.deliveries.repair import RepairPace, remove, repair_at_rate
from notifier.operators.deliveries.repair_result import RepairResult
from notifier.operators.deliveries.replay_account import FOLLOW_REPLAY, UNREAD_ACCOUNT_SECONDS, ReplayAccounts
from notifier.operators.deliveries.replay_now import Replay, ReplayRequest
from notifier.operators.status.worker_requests import RequestHandler
from notifier.queues.passes import RepairOptions
from notifier.queues.queue_state import WorkerAnswers
from notifier.queues.sqlite import SqliteOptions, SqliteQueue
from notifier.telemetry.observers import Observers
from tests.contract.dead_letter_samples import DELIVERY, RULES, course, dead_letter, store_dead_letters
from tests.support.outcome_facts import delivered


@pytest.mark.parametrize("rate", [0.02, 5.0, 300.0])
async def test_long_passes_keep_the_rate_and_leave_nine_tenths_to_others(rate: float) -> None:
    """A message has its turn no sooner than the rate permits, and on average about then."""
    now, held, total = 0.0, 0.0, int(rate * 3000)
    turns, excluded = list[float](), list[float | None]()

    async def run_pass(options: RepairOptions, arrived_by: float | None, pace: RepairPace | None) -> RepairResult:
        nonlocal now, held
        assert pace is not None
        assert options.limit is not None
        now += 5  # while others hold the messages
        options.on_hold(0.0)
        done = min(options.limit, total - len(turns))
        turns.extend(now + pace.take_turn() for _ in range(done))
        now, held = now + 10, held + 10
        excluded.append(arrived_by)
        return RepairResult(done=done, by_reason={}, limited=len(turns) < total)

    async def pause(seconds: float) -> None:
        nonlocal now
        now += seconds

    result = await repair_at_rate(run_pass, course(rate=rate, pause=pause, monotonic=lambda: now))
    assert result.done == total
    assert min(later - sooner for sooner, later in pairwise(turns)) == pytest.approx(1 / rate)
    assert turns[-1] < 1.02 * total / rate + 1 / rate
    assert held < now / 8 + 10
    assert excluded[0] is None
    assert set(excluded[1:]) == {1000.0}  # dead letters of replayed deliveries stay


async def test_replay_with_a_rate_counts_the_requested_dead_letters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its progress leaves out others, but not those whose results are not followed. No replayed ID is missing."""
    monkeypatch.setattr(replay_now, "MAX_FOLLOWED_MESSAGES", 3)
    now, progress, ids = 0.0, list[tuple[int, int]](), [f"d-{number}" for number in range(5)]

    async def pause(seconds: float) -> None:
        nonlocal now
        now += seconds

    queue = SqliteQueue(SqliteOptions(path=tmp_path / "queue.db"))
    await queue.open()
    try:
        await store_dead_letters(queue, *map(dead_letter, [*ids, "other", "newer"]))
        filter_ = DeadLetterFilter(ids=frozenset({*ids, "absent"}))
        options = replace(
            course(rate=2.0, pause=pause, monotonic=lambda: now),
            progress=lambda done, total: progress.append((done, total)),
        )
        replay = Replay(queue, queue.dead_letters(), ReplayRequest(id="r", who="sre", filter_=filter_, rules=RULES))
        result = await replay.run(options)
        watched = await replay.watch(options, 0.0)
        assert (watched.not_followed, watched.changed_by_others) == (2, False)
    finally:
        await queue.close()
    assert (result.done, result.missing, now) == (5, frozenset({"absent"}), 2.0)
    assert progress == [(done, 5) for done in range(1, 6)]


async def test_workers_keep_the_account_of_a_replay_that_takes_days(tmp_path: Path) -> None:
    """The replay reads it from time to time: an account that nobody reads is forgotten after an hour."""
    now, followed = 0.0, list[str]()

    class OneWorker(SqliteQueue):
        """A queue with one worker, which follows replays."""

        async def request(self, document: bytes, within: float) -> WorkerAnswers:
            """Implement the port."""
            followed.extend(json.loads(document)["asks"]["members"].get("deliveries", ()))
            handler = RequestHandler("w", {FOLLOW_REPLAY: accounts.act}, lambda: None)
            return WorkerAnswers(seen=1, answers=[await handler.carry_out(document)])

    async def pause(seconds: float) -> None:
        nonlocal now
        if not now:
            accounts.observe(delivered(replace(DELIVERY, id=followed[0])))
        now += seconds
        accounts.forget()

    accounts, queue = ReplayAccounts(lambda: now, Observers()), OneWorker(SqliteOptions(path=tmp_path / "queue.db"))
    await queue.open()
    try:
        await store_dead_letters(queue, *(dead_letter(f"d-{number}") for number in range(20)))
        request = ReplayRequest(id="r", who="sre", filter_=DeadLetterFilter(), rules=RULES)
        replay = Replay(queue, queue.dead_letters(), request)
        options = course(rate=0.001, pause=pause, monotonic=lambda: now)
        assert (await replay.run(options)).done == 20
        assert now > 5 * UNREAD_ACCOUNT_SECONDS
        assert (await replay.watch(options, 0.0)).account.results.delivered == 1
    finally:
        await queue.close()


async def test_dead_letters_in_place_of_removed_ones_have_unknown_results(tmp_path: Path) -> None:
    """A counted dead letter is discarded meanwhile, so another is replayed."""
    now = 0.0
    queue = SqliteQueue(SqliteOptions(path=tmp_path / "queue.db"))
    await queue.open()

    async def pause(seconds: float) -> None:
        nonlocal now
        if not now:
            only = DeadLetterFilter(ids=frozenset({"d-2"}))
            assert (await remove(queue.dead_letters(), only, course(), lambda _: None)).done == 1
        now += seconds

    try:
        await store_dead_letters(queue, *(dead_letter(f"d-{number}") for number in range(5)))
        options = course(rate=1.0, pause=pause, monotonic=lambda: now, limit=3)
        request = ReplayRequest(id="r", who="sre", filter_=DeadLetterFilter(), rules=RULES)
        replay = Replay(queue, queue.dead_letters(), request)
        assert (await replay.run(options)).done == 3
        watched = await replay.watch(options, 0.0)
    finally:
        await queue.close()
    assert (watched.not_followed, watched.changed_by_others) == (1, True)
    assert "somebody changed the dead letters meanwhile" in "\n".join(watched.format_lines())
