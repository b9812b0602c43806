"""Declares the requests between workers about jobs, with the JSON of a job. Names the job that holds messages."""

from collections.abc import Callable, Collection
from contextlib import suppress
from typing import (
    Any,
    Literal,
    Required,  # pydantic wants this one before Python 3.12
    TypeAlias,
)

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from notifier.model.durations import format_in_words
from notifier.model.errors import QueueError
from notifier.model.printable import excerpt
from notifier.operators.status.worker_requests import (
    ANSWER_TIMEOUT_SECONDS,
    FiniteSeconds,
    ReportedCount,
    ReportedCounts,
    RequestKind,
    WorkerRequest,
    send_to_workers,
)
from notifier.queues.queue_port import ANOTHER_HOLDER, Queue

JobKind: TypeAlias = Literal["replay", "discard", "cancel", "retry"]

DEAD_LETTER_JOBS, WAITING_JOBS = frozenset({"replay", "discard"}), frozenset({"cancel", "retry"})


class Results(TypedDict, total=False):
    """The results of deliveries, of a retry or a replay."""

    delivered: ReportedCount
    failed: ReportedCounts
    dead: ReportedCounts
    put_off: ReportedCounts
    text: str
    waiting: ReportedCount
    workers: ReportedCounts
    unfinished: str | None


class _ReplayResults(Results, total=False):
    skipped: ReportedCount
    not_followed: ReportedCount


class JobDocument(Results, total=False):
    """The JSON of a job: common members, then those of its kind."""

    id: Required[str]
    kind: Required[JobKind]
    who: Required[str]
    wanted: Required[dict[str, Any]]
    state: Required[Literal["waiting", "running", "watching", "ended"]]
    held_by: str | None
    began_at: Required[str]
    ended_at: Required[str | None]
    holds: bool
    seconds_left: FiniteSeconds | None
    dry_run: bool
    replayed: ReportedCount
    discarded: ReportedCount
    cancelled: ReportedCount
    by_reason: ReportedCounts
    kept: ReportedCounts
    more: bool
    became: _ReplayResults | None
    iss: str
    client_id: str
    force: bool
    waited: ReportedCount | None
    asked: ReportedCount
    next_try: str | None
    paused_until: str | None
    waiting_for: ReportedCounts
    unknown: int


class _Covered(TypedDict, total=False):
    issuers: list[str] | None


class _OneJob(_Covered):
    id: Required[str]


class _JobList(TypedDict):
    jobs: list[JobDocument]


class _FoundJob(TypedDict, total=False):
    job: JobDocument


LIST_JOBS = RequestKind(name="jobs", members=TypeAdapter(_Covered), result=TypeAdapter(_JobList))
SHOW_JOB = RequestKind(name="job", members=TypeAdapter(_OneJob), result=TypeAdapter(_FoundJob))
END_JOB = RequestKind(name="end_job", members=SHOW_JOB.members, result=SHOW_JOB.result)


async def name_holder(
    queue: Queue, who: str, kinds: Collection[str], report: Callable[[str], None] = lambda _: None
) -> str:
    """Return a name for the job of one of these kinds that holds its messages, or for another holder. Never raises.

    `report` receives the name, too.
    """
    request, name = WorkerRequest(kind=LIST_JOBS, who=who, members={"issuers": None}), ANOTHER_HOLDER
    with suppress(QueueError):
        _, answers = await send_to_workers(queue, request, ANSWER_TIMEOUT_SECONDS)
        for answer in answers:
            for job in answer.result.get("jobs", ()):
                if job["kind"] in kinds and job.get("holds"):
                    left = job.get("seconds_left")
                    duration = "" if left is None else f", about {format_in_words(left)} more"
                    name = excerpt(f"worker {answer.worker} (job {job['id']}, {job['kind']}{duration})", 300)
    report(name)
    return name
