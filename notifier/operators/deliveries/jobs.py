"""Runs long API requests as jobs: the caller may disconnect, and query the job at any worker later.

A job is replay, discard, cancel or retry. It ends early if its worker stops or a caller ends it: what it has done
remains, and the rest is unchanged.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

import structlog

from notifier.model.errors import QueueError, QueueUnavailable, describe_error
from notifier.model.ids import new_id
from notifier.model.json_size import take_fitting
from notifier.model.moment import format_moment, format_optional_moment
from notifier.model.shared_resources import first_of_largest, shared_bound
from notifier.network.listeners.authorization import name_of_caller
from notifier.network.listeners.problem import Refusal, problem_response
from notifier.operators.deliveries.job_documents import END_JOB, LIST_JOBS, SHOW_JOB, JobKind
from notifier.operators.status.worker_requests import (
    ANSWER_TIMEOUT_SECONDS,
    Members,
    RequestKind,
    WorkerRequest,
    send_to_workers,
)
from notifier.queues.passes import RepairOptions, stopped_by
from notifier.queues.queue_port import ANOTHER_HOLDER, Queue
from notifier.settings.api_tokens import ApiToken
from notifier.telemetry.audit import mark_claimed, write_audit

MAX_RUNNING_JOBS: Mapping[JobKind, int] = shared_bound({"replay": 8, "discard": 8, "cancel": 8, "retry": 32})
"""Of a worker, and beyond them one of each caller: jobs of others may take days."""
MAX_REMEMBERED_JOBS = shared_bound(100)  # of a worker, running and ended
MAX_LISTED_BYTES = 768 * 1024  # of a worker's list, running jobs first: the side channel drops answers above 1 MiB
ENDED_JOB_SECONDS = 3600.0  # seconds that an ended job is remembered
WORKER_ENDED_TEXT = "the worker ended; the rest is unchanged"
INTERNAL_ERROR_TEXT = "an internal error ended it; the rest is unchanged, and the log has the error"
END_REQUESTED_TEXT = "an operator ended it; the rest is unchanged"


class Work(Protocol):
    """The port through which a job does its work: one retry, or one repair of messages."""

    @property
    def kind(self) -> JobKind:
        """Return the kind of the job."""

    @property
    def conditions(self) -> Mapping[str, object]:
        """Return the given conditions without `sub` and `sid`."""

    @property
    def issuers(self) -> frozenset[str] | None:
        """Return the issuers whose messages the job may change; None for all."""

    def account(self) -> Mapping[str, Any]:
        """Return the results so far. `unfinished` is the reason for an early end."""

    async def carry_out(self, job: "Job") -> None:
        """Do the work with `job.build_options`, and log the result."""


class Job:
    """One job at this worker."""

    def __init__(self, work: Work, who: str, clock: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self.id = new_id()
        self.work = work
        self.who = who
        self.began_at = clock()
        self.ended_at: float | None = None
        self.state = "waiting"  # for its task
        self.held_by: str | None = None  # the holder of messages for which the job waits
        self.end_reason: str | None = None  # why it must end
        self.has_failed = False
        self._clock = clock
        self._monotonic = monotonic
        self._end_requested = asyncio.Event()
        self.idle = asyncio.Event()  # set while it holds no messages
        self.idle.set()
        self._held_at, self._read_share = 0.0, 0.0  # of the current pass: its begin, and the part that it has read

    def end(self, reason: str) -> None:
        """End the job: at once if it pauses or waits for messages, otherwise after the current batch."""
        if self.end_reason is None:
            self.end_reason = reason
            self._end_requested.set()

    def build_options(self, *, rate: float | None = None, limit: int | None = None) -> RepairOptions:
        """Return the options of a repair that stops when the job must end."""

        async def pause(seconds: float) -> None:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._end_requested.wait()

        return RepairOptions(
            clock=self._clock, monotonic=self._monotonic, pause=pause, stop=self._end_requested.is_set, rate=rate,
            limit=limit, patient=True, on_hold=self._on_hold, on_wait=self._on_wait,
            opening=partial(stopped_by, self._end_requested),
        )  # fmt: skip

    def _on_wait(self, holder: str) -> None:
        self.held_by = holder

    def _on_hold(self, read_share: float | None) -> None:
        self.held_by = None
        if read_share is None:
            self.idle.set()
            return
        if self.idle.is_set():
            self.idle.clear()
            self._held_at = self._monotonic()
        self._read_share = read_share

    @property
    def _seconds_left(self) -> float | None:
        """The time until the current pass ends, if the rest takes as long per message; None without a pass."""
        if self.idle.is_set() or not self._read_share:
            return None
        return round((self._monotonic() - self._held_at) * (1 / self._read_share - 1), 1)

    async def run(self) -> None:
        """Carry out the work. An internal error ends only this job."""
        self.state = "running"
        try:
            await self.work.carry_out(self)
        except Exception as error:  # noqa: BLE001  a job must not end the worker
            self.has_failed = True
            structlog.get_logger().error("job_failed", error=describe_error(error), kind=self.work.kind, id=self.id)
        finally:
            self.state, self.ended_at = "ended", self._clock()

    def document(self, *, names_holder: bool = True) -> dict[str, Any]:
        """Return the JSON for the API."""
        return {
            "id": self.id,
            "kind": self.work.kind,
            "who": self.who,
            "wanted": dict(self.work.conditions),
            "state": self.state if self.held_by is None else "waiting",
            "held_by": self.held_by if names_holder or self.held_by is None else ANOTHER_HOLDER,
            "began_at": format_moment(self.began_at),
            "ended_at": format_optional_moment(self.ended_at),
            "holds": not self.idle.is_set(),
            "seconds_left": self._seconds_left,
            **self.work.account(),
            **({"unfinished": INTERNAL_ERROR_TEXT} if self.has_failed else {}),
        }


class Jobs:
    """The jobs of one worker. The owner runs `run` as a task. `clock` is the wall clock, `monotonic` never jumps."""

    def __init__(self, queue: Queue, clock: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._queue, self._clock, self._monotonic = queue, clock, monotonic
        self._jobs: dict[str, Job] = {}
        self._new: asyncio.Queue[Job] = asyncio.Queue()
        self._stopped = False

    def begin(self, work: Work, token: ApiToken | None) -> dict[str, Any]:
        """Start a job and return its document. Raises Refusal (429, 503) if too many are running."""
        oldest = self._clock() - ENDED_JOB_SECONDS
        jobs = {id_: job for id_, job in self._jobs.items() if job.ended_at is None or job.ended_at > oldest}
        running = [job for job in jobs.values() if job.ended_at is None and job.work.kind == work.kind]
        _require_capacity(work.kind, running, token)
        who = name_of_caller(token)
        callers = {id_: job.who for id_, job in jobs.items() if job.ended_at is not None}  # the oldest first
        if callers and len(jobs) >= MAX_REMEMBERED_JOBS:
            del jobs[first_of_largest(callers, who)]
        self._jobs = jobs
        job = Job(work, who, self._clock, self._monotonic)
        self._jobs[job.id] = job
        document = job.document()
        if self._stopped:
            job.end(WORKER_ENDED_TEXT)
        self._new.put_nowait(job)
        return document

    async def show(self, id_: str, token: ApiToken | None) -> dict[str, Any] | None:
        """Return a job of any worker as JSON; None if it is unknown or concerns other issuers. Raises QueueError."""
        return await self._request_job(SHOW_JOB, id_, token)

    async def end(self, id_: str, token: ApiToken | None) -> dict[str, Any] | None:
        """End a job of any worker, and return it as JSON; None as for `show`. Raises QueueError."""
        return await self._request_job(END_JOB, id_, token)

    async def _request_job(self, kind: RequestKind, id_: str, token: ApiToken | None) -> dict[str, Any] | None:
        """Carry out the request here if this worker has the job; otherwise send it to all workers."""
        request = _request(kind, token, id=id_)
        if id_ in self._jobs:
            members = self._carry_out(request)
            return dict(members["job"]) if "job" in members else None
        workers, answers = await send_to_workers(self._queue, request, ANSWER_TIMEOUT_SECONDS)
        jobs = (answer.result["job"] for answer in answers if answer.problem is None and "job" in answer.result)
        job = next(map(dict, jobs), None)
        if job is None and len(answers) < workers:
            raise QueueUnavailable("a worker has not answered, and may have the job")
        return job

    async def list_all(self, token: ApiToken | None) -> dict[str, Any]:
        """Return the jobs of all workers that answer as JSON, the newest first. Raises QueueError."""
        request = _request(LIST_JOBS, token)
        workers, answers = await send_to_workers(self._queue, request, ANSWER_TIMEOUT_SECONDS)
        results = [*(answer.result for answer in answers), self._carry_out(request)]
        jobs = {str(job["id"]): dict(job) for result in results for job in result.get("jobs", ())}
        newest_first = sorted(jobs.values(), key=lambda job: str(job["began_at"]), reverse=True)
        return {"jobs": newest_first, "workers": {"seen": workers, "answered": len(answers)}}

    async def find_equal(self, work: Work, token: ApiToken | None) -> dict[str, Any] | None:
        """Return a running job of the same kind and conditions, of any worker that answers, as JSON; None if none."""
        try:
            documents = (await self.list_all(token))["jobs"]
        except QueueError:
            documents = self._carry_out(_request(LIST_JOBS, token))["jobs"]
        wanted = (work.kind, dict(work.conditions))
        running = (job for job in documents if job["state"] != "ended")
        return next((job for job in running if (job["kind"], job["wanted"]) == wanted), None)

    async def act(self, request: WorkerRequest) -> Members:
        """Carry out a request of another process, with an audit line for the end of a job.

        Anyone who may use the queue can send one, so its name is claimed. The API logs a token's name besides.
        """
        job = self._jobs.get(request.members.get("id", ""))
        is_running = job is not None and job.ended_at is None and job.end_reason is None
        members = self._carry_out(request)
        if request.kind is END_JOB and members and is_running:
            write_audit("job_ended", who=mark_claimed(request.who), id=request.members["id"])
        return members

    def _carry_out(self, request: WorkerRequest) -> Members:
        """List this worker's jobs, or return or end one. Empty for a job that is unknown or of other `issuers`."""
        issuers = request.members.get("issuers")
        token_issuers = None if issuers is None else frozenset(issuers)
        if request.kind is LIST_JOBS:
            jobs = [job for job in self._jobs.values() if _covers(token_issuers, job.work.issuers)]
            jobs.sort(key=lambda job: job.ended_at is None)  # the running ones last
            return {
                "jobs": take_fitting(
                    (job.document(names_holder=token_issuers is None) for job in reversed(jobs)), MAX_LISTED_BYTES
                )[::-1]
            }
        job = self._jobs.get(request.members["id"])
        if job is None or not _covers(token_issuers, job.work.issuers):
            return {}
        if request.kind is END_JOB:
            job.end(END_REQUESTED_TEXT)
        return {"job": job.document(names_holder=token_issuers is None)}

    async def stop(self) -> None:
        """End all jobs, since the worker stops. Return once none holds messages. Later jobs end at once.

        A cancellation within a batch would keep dead letters whose deliveries are already queued: a second logout.
        """
        self._stopped = True
        for job in self._jobs.values():
            job.end(WORKER_ENDED_TEXT)
        await asyncio.gather(*(job.idle.wait() for job in self._jobs.values()))

    async def run(self) -> None:
        """Run jobs, until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                job = await self._new.get()
                group.create_task(job.run())


def _request(kind: RequestKind, token: ApiToken | None, **members: object) -> WorkerRequest:
    issuers = _issuers_of(token)
    sorted_issuers = None if issuers is None else sorted(issuers)
    return WorkerRequest(kind=kind, who=name_of_caller(token), members={**members, "issuers": sorted_issuers})


def _require_capacity(kind: JobKind, running: Sequence[Job], token: ApiToken | None) -> None:
    """Raise Refusal if the caller has a job of this kind, and too many run. A token with issuers may have half."""
    limit, remedy = MAX_RUNNING_JOBS[kind], "wait until one ends, or end one: DELETE /v1/jobs/{id}"
    own_count = sum(job.who == name_of_caller(token) for job in running)
    if _issuers_of(token) is not None and own_count >= limit // 2:
        title = f"This token has {limit // 2} jobs of the kind {kind} under way, as many as a token with issuers may"
        raise Refusal(problem_response(429, f"{title}; {remedy}", headers={"Retry-After": "30"}))
    if own_count and len(running) >= limit:
        title = f"This worker has {limit} jobs of the kind {kind} under way"
        raise Refusal(problem_response(503, f"{title}; {remedy}", headers={"Retry-After": "30"}))


def _issuers_of(token: ApiToken | None) -> frozenset[str] | None:
    return None if token is None else token.issuers


def _covers(token_issuers: frozenset[str] | None, job_issuers: frozenset[str] | None) -> bool:
    """Return True if a token's issuers contain all issuers of a job. None means all issuers."""
    return token_issuers is None or (job_issuers is not None and job_issuers <= token_issuers)
