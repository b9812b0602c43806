"""Defines the reload that an operator requests from all workers, and its result at each."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pydantic import StrictBool, TypeAdapter
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier.configuration.clients.client_rows import SourceState
from notifier.model.record import record
from notifier.operators.status.worker_requests import Act, RequestKind, WorkerAnswer, WorkerRequest, send_to_workers
from notifier.queues.queue_port import Queue
from notifier.telemetry.audit import mark_claimed

RELOAD_TIMEOUT_SECONDS = 60.0  # enough for 100,000 clients and the timeout of a registry source


@record
class ReloadRequest:
    """A reload that the operator `who` requests.

    `accept_loss` applies it even if many clients could no longer be notified. The answers and the cache of
    `dropped_source`, a registry source, are discarded before it is read again.
    """

    who: str
    accept_loss: bool
    dropped_source: str | None = None


@record
class ReloadResult:
    """The result of a reload at one worker. `problems` are the reasons to keep the old files; empty if it applied them.

    `restart_needed` has the changed settings that only a restart applies. `issuers` and `clients` are numbers.
    `sources` has the states of the registry sources. `signers` has a text for each external key that does not sign.
    """

    problems: Sequence[str]
    restart_needed: Sequence[str]
    issuers: int
    clients: int
    sources: Sequence[SourceState]
    signers: Sequence[str] = ()


class _ReloadMembers(TypedDict, total=False):
    accept_loss: StrictBool
    drop: str | None


RELOAD_REQUEST = RequestKind(name="reload", members=TypeAdapter(_ReloadMembers), result=TypeAdapter(ReloadResult))


@record
class WorkerReload:
    """The answer of one worker. `result` is None if the worker could not reload at all; `problem` has the reason."""

    worker: str
    version: str
    result: ReloadResult | None
    problem: str | None = None

    @property
    def problems(self) -> list[str]:
        """Return the problems of the worker and of its registry sources."""
        if self.result is None:
            return [self.problem or "it reported no result"]
        sources = (
            f"registry source {source.name}: {source.problem}" for source in self.result.sources if source.problem
        )
        return [*self.result.problems, *sources]


@record
class ReloadResults:
    """The results of the workers that answered in time. `seen`: the number of all workers."""

    seen: int
    workers: Sequence[WorkerReload]

    @property
    def is_applied(self) -> bool:
        """Return True if there are workers, and each has applied the new configuration and registry."""
        has_all_answers = 0 < self.seen == len(self.workers)
        return has_all_answers and not any(worker.problems for worker in self.workers)

    def document(self) -> dict[str, Any]:
        """Return the JSON of the command and of `POST /v1/reload`."""
        return {
            "taken": self.is_applied,
            "workers": {
                "seen": self.seen,
                "answered": len(self.workers),
                "each": [
                    {
                        "worker": worker.worker,
                        "version": worker.version,
                        "taken": not worker.problems,
                        "problems": worker.problems,
                        **({} if worker.result is None else _to_document(worker.result)),
                    }
                    for worker in self.workers
                ],
            },
        }


def _to_document(result: ReloadResult) -> Mapping[str, Any]:
    return {name: value for name, value in asdict(result).items() if name != "problems"}


def make_reload_act(carry_out: Callable[[ReloadRequest], Awaitable[ReloadResult]]) -> Act:
    """Return a function that carries out reload requests at a worker by calling `carry_out`."""

    async def act(request: WorkerRequest) -> Mapping[str, Any]:
        reload = ReloadRequest(
            who=mark_claimed(request.who),
            accept_loss=request.members.get("accept_loss", False),
            dropped_source=request.members.get("drop"),
        )
        return asdict(await carry_out(reload))

    return act


async def reload_all(queue: Queue, reload: ReloadRequest) -> ReloadResults:
    """Request the reload from all workers, and return their results. Raises QueueError."""
    request = WorkerRequest(
        kind=RELOAD_REQUEST, who=reload.who, members={"accept_loss": reload.accept_loss, "drop": reload.dropped_source}
    )
    worker_count, answers = await send_to_workers(queue, request, RELOAD_TIMEOUT_SECONDS)
    return ReloadResults(seen=worker_count, workers=[_parse_answer(answer) for answer in answers])


def _parse_answer(answer: WorkerAnswer) -> WorkerReload:
    result = None if answer.problem is not None else answer.result
    return WorkerReload(worker=answer.worker, version=answer.version, result=result, problem=answer.problem)
