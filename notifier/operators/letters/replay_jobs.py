"""Runs the replays that the API was asked for, as jobs: whoever asked may go away, and ask any worker later.

Jobs replay one after another, since one request at a time has the letters, and watch side by side. They share the
letters with other requests: a job gives them back once a minute, and at once if another waits for them while it
pauses for its rate. A job ends with its worker, or when somebody ends it, after the letters at hand. What it did stays
done, and the rest is unchanged.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace as _replace
from typing import Any, Protocol

import structlog

from notifier.model.api_token import ApiToken
from notifier.model.errors import QueueUnavailable
from notifier.model.frozen import frozen
from notifier.model.moment import render_moment, rendered
from notifier.network.listeners.authorization import caller
from notifier.network.listeners.problem import Refusal, problem
from notifier.operators.letters.replay_now import Became, Replay, ReplayWish
from notifier.operators.letters.retry_now import ANSWER_WITHIN
from notifier.operators.letters.visits import STOPPED, RepairResult
from notifier.operators.status.worker_requests import Members, WorkerRequest, ask_workers_to
from notifier.queues.passes import RepairOptions
from notifier.queues.queue_port import Queue

ASK = "replay_job"
END = "end_replay_job"
UNDER_WAY = 8  # jobs of a worker
OF_A_BOUND_TOKEN = UNDER_WAY // 2  # so that one issuer's replays leave places to others
REMEMBERED = 100  # jobs, the ended ones with those under way
KEPT = 3600.0  # seconds that an ended job is remembered
AT_A_TIME = 60.0  # seconds that a job has the letters
LONGEST = 3600.0  # seconds that a job waits for its turn and replays: one at a slow rate may take long
WATCHED = 600.0  # seconds
ENDED = "the worker ended; the rest is unchanged"
ENDED_BY = "somebody ended it; the rest is unchanged"
LATE = "its hour is over; the rest is unchanged"
AWAY = "the queue is away, or its disk is full; the rest is unchanged"

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


class Turns(Protocol):
    """What a job has the letters by."""

    @property
    def wanted(self) -> bool:
        """True if another waits for its turn."""

    def turn(self, *, patient: bool) -> AbstractAsyncContextManager[None]:
        """Hold the letters alone, however long it takes to get them if `patient`."""


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
        self.ending: str | None = None  # why it is to end, if it is
        self.waiting: asyncio.Task[None] | None = None  # its task, while it waits and has no letters

    def end(self, why: str) -> None:
        """Have it end: now if it waits, else after the batch at hand."""
        if self.ending is None:
            self.ending = why
            if self.waiting is not None:
                self.waiting.cancel()

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
        self._new: asyncio.Queue[tuple[_Job, Turns, Conclude]] = asyncio.Queue()
        self._replaying = asyncio.Lock()

    def begin(self, asked: AskedReplay, token: ApiToken | None, turns: Turns, conclude: Conclude) -> dict[str, Any]:
        """Begin a job, and return its document. Raises Refusal (429, 503) if too many are under way."""
        now = self._clock()
        kept = {id_: job for id_, job in self._jobs.items() if job.ended_at is None or now - job.ended_at < KEPT}
        _require_place([job for job in kept.values() if job.ended_at is None], asked.wish.who, token)
        ended = [id_ for id_, job in kept.items() if job.ended_at is not None]
        for id_ in ended[: max(0, len(kept) + 1 - REMEMBERED)]:
            del kept[id_]
        self._jobs = kept
        job = self._jobs[asked.wish.id] = _Job(asked, Replay(self._queue, asked.wish), _issuers(token), now)
        self._new.put_nowait((job, turns, conclude))
        return job.document()

    async def told(self, id_: str, token: ApiToken | None) -> dict[str, Any] | None:
        """Return the document of a job, wherever it runs. None if no worker knows it, or it is of other issuers.

        Raises QueueError.
        """
        return await self._asked(ASK, id_, token)

    async def end(self, id_: str, token: ApiToken | None) -> dict[str, Any] | None:
        """Have a job end, wherever it runs, and return its document. None as for `told`. Raises QueueError."""
        return await self._asked(END, id_, token)

    async def _asked(self, name: str, id_: str, token: ApiToken | None) -> dict[str, Any] | None:
        issuers = _issuers(token)
        members = {"id": id_, "issuers": None if issuers is None else sorted(issuers)}
        request = WorkerRequest(name=name, who=caller(token), members=members)
        if id_ in self._jobs:
            said = await self.act(request)
            return dict(said["job"]) if "job" in said else None
        workers, answers = await ask_workers_to(self._queue, request, ANSWER_WITHIN)
        known = (answer.said for answer in answers if answer.problem is None and "job" in answer.said)
        job = next((dict(said["job"]) for said in known), None)
        if job is None and len(answers) < workers:
            raise QueueUnavailable("a worker has not answered, and may know the replay")
        return job

    def known(self, token: ApiToken | None) -> list[dict[str, Any]]:
        """The documents of this worker's jobs, the newest first."""
        return [job.document() for job in reversed(self._jobs.values()) if _covers(_issuers(token), job.issuers)]

    async def act(self, request: WorkerRequest) -> Members:
        """Tell of a job that runs here, or end it, for a token of these `issuers`."""
        job, issuers = self._jobs.get(str(request.members.get("id"))), request.members.get("issuers")
        if job is None or not _covers(None if issuers is None else frozenset(issuers), job.issuers):
            return {}
        if request.name == END:
            job.end(ENDED_BY)
        return {"job": job.document()}

    async def stop(self) -> None:
        """Have all jobs end, since the worker ends. Returns once none has letters at hand; none gets any after this.

        What is cancelled in the middle of a batch leaves letters whose deliveries are on their way: a second logout.
        """
        for job in self._jobs.values():
            job.end(ENDED)
        await self._replaying.acquire()

    async def run(self) -> None:
        """Run jobs, until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                job, turns, conclude = await self._new.get()
                group.create_task(self._carry_out(job, turns, conclude))

    async def _carry_out(self, job: _Job, turns: Turns, conclude: Conclude) -> None:
        """Replay, log it, and watch. A fault of ours ends this job alone."""

        def tell(became: Became) -> None:
            job.became = became

        try:
            try:
                await self._replay(job, turns)
            except asyncio.CancelledError:
                job.last = _replace(job.last, unfinished=job.ending or ENDED)
                raise
            finally:
                conclude(job.result)
            job.state = "watching"
            options = RepairOptions(
                clock=self._clock, steady=self._steady, pause=asyncio.sleep, stop=lambda: job.ending is not None
            )
            job.became = await job.replay.watch(options, WATCHED, tell)
        except Exception as error:  # noqa: BLE001  a job must not end the worker
            structlog.get_logger().error("replay_failed", error=type(error).__name__, replay=job.asked.wish.id)
        finally:
            job.state, job.ended_at = "ended", self._clock()

    async def _replay(self, job: _Job, turns: Turns) -> None:
        """Replay pass by pass, each with the letters alone, until the end."""
        due, again, rate = self._steady(), False, job.asked.rate
        life = due + LONGEST
        while True:
            async with AsyncExitStack() as letters:
                if job.ending or not await self._has_letters(job, turns, letters, due, life):
                    job.last = _replace(job.last, unfinished=job.ending or LATE)
                    return
                job.state, began = "replaying", self._steady()
                until = job.began_at if again else None  # what came back as a dead letter stays
                part = await job.replay.run(self._of_pass(job, turns), until)
            if part.failed:  # its own text names hosts and files
                part = _replace(part, unfinished=AWAY)
            job.last, again = part, True
            if part.unfinished != STOPPED:
                return
            due = began if rate is None else began + part.done / rate

    async def _has_letters(self, job: _Job, turns: Turns, letters: AsyncExitStack, due: float, life: float) -> bool:
        """Wait until its rate allows more, and then for its turn. False if its life ends before."""
        job.waiting = asyncio.current_task()
        try:
            async with asyncio.timeout(life - self._steady()):
                await asyncio.sleep(due - self._steady())
                await letters.enter_async_context(self._replaying)
                await letters.enter_async_context(turns.turn(patient=True))
        except TimeoutError:
            return False
        finally:
            job.waiting = None
        return True

    def _of_pass(self, job: _Job, turns: Turns) -> RepairOptions:
        """A pass that gives the letters back after a while."""
        until, gives_way = self._steady() + AT_A_TIME, False

        async def pause(seconds: float) -> None:
            nonlocal gives_way
            gives_way = turns.wanted
            if not gives_way:
                await asyncio.sleep(seconds)

        def stop() -> bool:
            return gives_way or job.ending is not None or self._steady() >= until

        return RepairOptions(
            clock=self._clock, steady=self._steady, pause=pause, stop=stop, rate=job.asked.rate,
            limit=job.asked.most - job.result.done,
        )  # fmt: skip


def _require_place(jobs: Sequence[_Job], who: str, token: ApiToken | None) -> None:
    """Raise Refusal if too many jobs are under way. `who`: those of this token have a share of the places."""
    ways_out = "wait until one ends, or end one: DELETE /v1/replays/{id}"
    if _issuers(token) is not None and sum(job.asked.wish.who == who for job in jobs) >= OF_A_BOUND_TOKEN:
        title = f"This token has {OF_A_BOUND_TOKEN} replays under way, as many as a token with issuers may; {ways_out}"
        raise Refusal(problem(429, title, headers={"Retry-After": "30"}))
    if len(jobs) >= UNDER_WAY:
        title = f"This worker has {UNDER_WAY} replays under way; {ways_out}"
        raise Refusal(problem(503, title, headers={"Retry-After": "30"}))


def _issuers(token: ApiToken | None) -> frozenset[str] | None:
    return None if token is None else token.issuers


def _covers(token: frozenset[str] | None, issuers: frozenset[str] | None) -> bool:
    """True if the issuers of a token are all those that the job was for. None: all."""
    return token is None or (issuers is not None and issuers <= token)
