"""`/v1/jobs`: lists, shows and ends jobs of all workers. A job is a request that goes on if the caller disconnects."""

from collections.abc import Awaitable
from typing import Any, TypeVar

from aiohttp import web

from notifier.model.errors import QueueError
from notifier.model.printable import json_text
from notifier.network.listeners.openapi import AnswerDescription
from notifier.network.listeners.operation import ApiOperation, ApiRequest, Counts, Document, Items, to_answer
from notifier.network.listeners.problem import Refusal, problem_response
from notifier.operators.deliveries.jobs import JOB_SCHEMA, Jobs
from notifier.operators.deliveries.repair import RepairAudit, WriteAudit

T = TypeVar("T")
JOB_STARTED_ANSWER = AnswerDescription(
    text="The new job.", schema=JOB_SCHEMA, headers={"Location": "The address of the job: /v1/jobs/{id}."}
)
TOO_MANY_JOBS = {
    429: "The token has too many jobs of this kind under way.",
    503: "The queue is unavailable, or the worker has too many jobs of this kind under way.",
}
_UNAVAILABLE = {503: "The queue is unavailable, or a worker does not answer."}
_UNKNOWN_JOB = {404: "No worker has this job."}


def answer_accepted(job: dict[str, Any]) -> web.Response:
    """Answer 202 with a job that continues in the background."""
    return web.json_response(job, status=202, headers={"Location": f"/v1/jobs/{job['id']}"}, dumps=json_text)


class JobRoutes:
    """The routes of `/v1/jobs`: list, show, end."""

    def __init__(self, jobs: Jobs, write_audit: WriteAudit) -> None:
        self._jobs = jobs
        self._audit = RepairAudit(write_audit)

    @ApiOperation(
        route="GET /v1/jobs",
        summary="List the jobs of all workers: running jobs, and jobs that ended within the last hour.",
        scope="read",
        answers={200: to_answer("The newest first.", jobs=Items, workers=Counts)},
        problems=_UNAVAILABLE,
    )
    async def _list(self, request: ApiRequest) -> Document:
        return await _await_answer(self._jobs.list_all(request.token))

    @ApiOperation(
        route="GET /v1/jobs/{id}",
        summary="Show the progress and result of a job. Any worker answers, for an hour after its end.",
        scope="read",
        answers={200: AnswerDescription(text="The job. `state` is `ended` at last.", schema=JOB_SCHEMA)},
        problems=_UNKNOWN_JOB | _UNAVAILABLE,
    )
    async def _show(self, request: ApiRequest) -> Document:
        return _require_job(await _await_answer(self._jobs.show(request.path["id"], request.token)))

    @ApiOperation(
        route="DELETE /v1/jobs/{id}",
        summary="End a job of any worker after its current batch. For a retry, only the watching ends.",
        scope="repair",
        answers={202: AnswerDescription(text="The job. `state` is `ended` soon, if it is not yet.", schema=JOB_SCHEMA)},
        problems=_UNKNOWN_JOB | _UNAVAILABLE,
    )
    async def _end(self, request: ApiRequest) -> Document:
        job = _require_job(await _await_answer(self._jobs.end(request.path["id"], request.token)))
        self._audit.log_job_end(request.who, request.path["id"])
        return job


async def _await_answer(answer: Awaitable[T]) -> T:
    """Return the answer of the workers. Raises Refusal (503) if the queue or a worker does not answer."""
    try:
        return await answer
    except QueueError:
        title = "The queue is unavailable, or a worker that may have this job does not answer; try again soon"
        raise Refusal(problem_response(503, title, headers={"Retry-After": "5"})) from None


def _require_job(job: dict[str, Any] | None) -> dict[str, Any]:
    """Return the job. Raises Refusal (404) if no worker has it."""
    if job is None:
        raise Refusal(problem_response(404, "No worker has this job: it ended over an hour ago, or its worker ended"))
    return job
