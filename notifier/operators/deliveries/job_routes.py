"""`/v1/jobs`: lists, shows and ends jobs of all workers. A job is a request that goes on if the caller disconnects."""

from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar

from aiohttp import web

from notifier.model.errors import QueueError
from notifier.model.printable import json_text
from notifier.network.listeners.openapi import AnswerDescription
from notifier.network.listeners.operation import ApiOperation, ApiRequest, Counts, Document, Items, to_answer
from notifier.network.listeners.problem import Refusal, problem_response
from notifier.operators.deliveries.jobs import MAX_RUNNING_JOBS, Jobs
from notifier.operators.deliveries.repair import RepairAudit, WriteAudit

T = TypeVar("T")
JOB_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "required": ["id", "kind", "who", "wanted", "state", "began_at", "ended_at", "unfinished"],
    "properties": {
        "id": {"type": "string"},
        "kind": {"enum": list(MAX_RUNNING_JOBS)},
        "who": {"type": "string", "description": "The token of the request."},
        "wanted": {"type": "object", "description": "The conditions of the request."},
        "state": {"enum": ["waiting", "running", "watching", "ended"]},
        "held_by": {"type": ["string", "null"], "description": "Who holds the messages for which the job waits."},
        "began_at": {"type": "string", "format": "date-time"},
        "ended_at": {"type": ["string", "null"], "format": "date-time"},
        "holds": {"type": "boolean", "description": "A pass holds the messages; on RabbitMQ others wait."},
        "seconds_left": {"type": ["number", "null"], "description": "Until the pass ends, about; null if unknown."},
        "unfinished": {"type": ["string", "null"], "description": "The reason for an early end."},
        "replayed": {"type": "integer", "description": "The count so far; or `discarded`, or `cancelled`."},
        "waited": {"type": ["integer", "null"], "description": "Of a retry: how many it is about; null until counted."},
        "delivered": {"type": "integer", "description": "Of a retry: delivered so far."},
        "waiting": {"type": "integer", "description": "Of a retry: about how many are still pending."},
        "unknown": {
            "type": "integer",
            "description": "Of a retry: neither reported nor pending: cancelled, or at a worker that did not report.",
        },
        "by_reason": {"type": "object"},
        "kept": {"type": "object", "description": "How many stay, by reason."},
        "more": {"type": "boolean", "description": "It ended early: start another job for the rest."},
        "became": {
            "type": ["object", "null"],
            "description": "Of a replay: the results of the dead letters, as far as workers report them.",
        },
    },
}  # fmt: skip
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
        summary="End a job of any worker: after its batch, or at once if it waits. Of a retry, only the watching ends.",
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
