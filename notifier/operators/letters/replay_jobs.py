"""Runs the replays that the API was asked for, as jobs: whoever asked may go away, and ask any worker later.

Jobs replay one after another, since one request at a time has the letters, and watch side by side. They share the
letters with other requests: a job gives them back once a minute. A job ends with its worker. What it did stays done,
and the rest is unchanged.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace as _replace
from typing import Any

import structlog

from notifier.model.api_token import ApiToken
from notifier.model.frozen import frozen
from notifier.model.moment import render_moment, rendered
from notifier.network.listeners.authorization import caller
from notifier.network.listeners.problem import Refusal
from notifier.operators.letters.replay_now import Became, Replay, ReplayWish
from notifier.operators.letters.retry_now import ANSWER_WITHIN
from notifier.operators.letters.visits import STOPPED, RepairResult
from notifier.operators.status.worker_requests import Members, WorkerRequest, ask_workers_to
from notifier.queues.passes import RepairOptions
from notifier.queues.queue_port import Queue

ASK = "replay_job"
UNDER_WAY = 8  # jobs of a worker
REMEMBERED = 100  # jobs, the ended ones with those under way
KEPT = 3600.0  # seconds that an ended job is remembered
AT_A_TIME = 60.0  # seconds that a job has the letters
LONGEST = 3600.0  # seconds that a job replays: one at a slow rate may take long
WATCHED = 600.0  # seconds
ENDED = "the worker ended; the rest is unchanged"
AWAY = "the queue is away, or others have the letters; the rest is unchanged"

SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "required": [
        "id",
        "state",
        "began_at",
        "ended_at",
        "replayed",
        "by_reason",
        "kept",
        "more",
        "unfinished",
        "became",
    ],
    "properties": {
        "id": {"type": "string"},
        "state": {"enum": ["waiting", "replaying", "watching", "ended"]},
        "began_at": {"type": "string", "format": "date-time"},
        "ended_at": {"type": ["string", "null"], "format": "date-time"},
        "replayed": {"type": "integer", "description": "So many by now."},
        "by_reason": {"type": "object"},
        "kept": {"type": "object", "description": "How many stay, by why."},
        "more": {"type": "boolean", "description": "It ended early: begin another for the rest."},
        "unfinished": {"type": ["string", "null"]},
        "became": {"type": ["object", "null"], "description": "What became of the letters, as far as workers know."},
    },
}

Turn = Callable[[], AbstractAsyncContextManager[None]]
Conclude = Callable[[RepairResult], None]
"""Logs what a replay came to."""


@frozen
class AskedReplay:
    """A replay as it was asked for. `most`: so many letters at most."""

    wish: ReplayWish
    most: int
    rate: float | None = None


class _Job:
    """One replay: `issuers` are those of the token that asked, None for all."""

    def __init__(self, asked: AskedReplay, replay: Replay, issuers: frozenset[str] | None, now: float) -> None:
        self.asked = asked
        self.issuers = issuers
        self.began_at = now
        self.ended_at: float | None = None
        self.state = "waiting"
        self.replay = replay
        self.last = RepairResult(done=0, by_reason={})  # of the last pass
        self.became: Became | None = None

    @property
    def result(self) -> RepairResult:
        """What it did by now."""
        reasons = self.replay.reasons
        return _replace(self.last, done=reasons.total(), by_reason=dict(reasons.most_common()))

    def document(self) -> dict[str, Any]:
        """The JSON that the API gives."""
        return {
            "id": self.asked.wish.id,
            "state": self.state,
            "began_at": render_moment(self.began_at),
            "ended_at": rendered(self.ended_at),
            "replayed": self.result.done,
            "dry_run": False,
            **self.result.document(),
            "became": None if self.became is None else self.became.document(),
        }


class ReplayJobs:
    """The jobs of one worker. Needs a task for `run`."""

    def __init__(self, queue: Queue, clock: Callable[[], float], steady: Callable[[], float]) -> None:
        self._queue = queue
        self._clock = clock
        self._steady = steady
        self._jobs: dict[str, _Job] = {}
        self._new: asyncio.Queue[tuple[_Job, Turn, Conclude]] = asyncio.Queue()

    def begin(
        self, asked: AskedReplay, token: ApiToken | None, turn: Turn, conclude: Conclude
    ) -> dict[str, Any] | None:
        """Begin a job, and return its document. None if too many are under way."""
        now = self._clock()
        kept = {id_: job for id_, job in self._jobs.items() if job.ended_at is None or now - job.ended_at < KEPT}
        if sum(job.ended_at is None for job in kept.values()) >= UNDER_WAY:
            return None
        ended = [id_ for id_, job in kept.items() if job.ended_at is not None]
        for id_ in ended[: max(0, len(kept) + 1 - REMEMBERED)]:
            del kept[id_]
        self._jobs = kept
        job = self._jobs[asked.wish.id] = _Job(
            asked, Replay(self._queue, asked.wish), None if token is None else token.issuers, now
        )
        self._new.put_nowait((job, turn, conclude))
        return job.document()

    async def told(self, id_: str, token: ApiToken | None) -> dict[str, Any] | None:
        """Return the document of a job, wherever it runs. None if no worker knows it, or it is of other issuers.

        Raises QueueError.
        """
        if (job := self._jobs.get(id_)) is not None:
            return job.document() if _may_see(token, job.issuers) else None
        _, answers = await ask_workers_to(
            self._queue, WorkerRequest(name=ASK, who=caller(token), members={"id": id_}), ANSWER_WITHIN
        )
        for said in (answer.said for answer in answers if answer.problem is None and "job" in answer.said):
            issuers = said.get("issuers")
            if _may_see(token, None if issuers is None else frozenset(issuers)):
                return dict(said["job"])
        return None

    def known(self, token: ApiToken | None) -> list[dict[str, Any]]:
        """The documents of this worker's jobs, the newest first."""
        return [job.document() for job in reversed(self._jobs.values()) if _may_see(token, job.issuers)]

    async def act(self, request: WorkerRequest) -> Members:
        """Tell another worker of a job that runs here."""
        job = self._jobs.get(str(request.members.get("id")))
        if job is None:
            return {}
        return {"job": job.document(), "issuers": None if job.issuers is None else sorted(job.issuers)}

    async def run(self) -> None:
        """Run jobs, until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                job, turn, conclude = await self._new.get()
                group.create_task(self._carry_out(job, turn, conclude))

    async def _carry_out(self, job: _Job, turn: Turn, conclude: Conclude) -> None:
        """Replay, log it, and watch. A fault of ours ends this job alone."""
        options = RepairOptions(clock=self._clock, steady=self._steady, pause=asyncio.sleep, stop=lambda: False)

        def tell(became: Became) -> None:
            job.became = became

        try:
            try:
                await self._replay(job, options, turn)
            except asyncio.CancelledError:
                job.last = _replace(job.last, unfinished=ENDED)
                raise
            finally:
                conclude(job.result)
            job.state = "watching"
            job.became = await job.replay.watch(options, WATCHED, tell)
        except Exception as error:  # noqa: BLE001  a job must not end the worker
            structlog.get_logger().error("replay_failed", error=type(error).__name__, replay=job.asked.wish.id)
        finally:
            job.state, job.ended_at = "ended", self._clock()

    def _over(self, seconds: float) -> Callable[[], bool]:
        until = self._steady() + seconds
        return lambda: self._steady() >= until

    async def _replay(self, job: _Job, options: RepairOptions, turn: Turn) -> None:
        """Replay pass by pass, each with the letters alone, until the end."""
        began, again = self._steady(), False
        while True:
            try:
                async with turn():
                    job.state = "replaying"
                    part = await job.replay.run(
                        _replace(
                            options,
                            stop=self._over(AT_A_TIME),
                            rate=job.asked.rate,
                            limit=job.asked.most - job.result.done,
                        ),
                        until=job.began_at if again else None,  # what came back as a dead letter stays
                    )
            except Refusal:
                part = RepairResult(done=0, by_reason={}, unfinished=AWAY, failed=True)
            if part.failed:  # its own text names hosts and files
                part = _replace(part, unfinished=AWAY)
            job.last, again = part, True
            if part.unfinished != STOPPED or self._steady() - began > LONGEST:
                return


def _may_see(token: ApiToken | None, issuers: frozenset[str] | None) -> bool:
    """True if the token covers all issuers that the job was for."""
    if token is None or token.issuers is None:
        return True
    return issuers is not None and issuers <= token.issuers
