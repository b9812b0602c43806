"""Operators' requests to workers, and the answers, as documents on the side channel.

A request has a name, members, and the operator `who`. An answer has the worker's result or the problem.
"""

import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import structlog
from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier import __version__
from notifier.model.errors import QueueError
from notifier.model.frozen import frozen
from notifier.queues.queue_port import Queue

ANSWER_TIMEOUT_SECONDS = 2.0  # seconds that workers have to answer
GONE_WORKER_TEXT = "a worker has ended meanwhile, and its last results are not counted; see its log"

Members: TypeAlias = Mapping[str, Any]


@frozen
class WorkerRequest:
    """A request to a worker. `who` is recorded in the audit log."""

    name: str
    who: str
    members: Members


@frozen
class WorkerAnswer:
    """The answer of one worker. `said`: its result; `problem`: why it did nothing."""

    worker: str
    version: str
    said: Members
    problem: str | None = None


Act = Callable[[WorkerRequest], Awaitable[Members]]
"""Carries out requests of one name, and returns the result."""


class _Request(TypedDict):
    v: Literal[1]
    asks: WorkerRequest


class _Answer(TypedDict):
    v: Literal[1]
    answers: WorkerAnswer


_REQUEST, _ANSWER = TypeAdapter(_Request), TypeAdapter(_Answer)


class RequestHandler:
    """Carries out requests at one worker. `worker`: its name in `notifier status`; `acts`: by name of request."""

    def __init__(self, worker: str, acts: Mapping[str, Act]) -> None:
        self._worker = worker
        self._acts = acts

    async def carry_out(self, document: bytes) -> bytes:
        """Carry out the request in `document`, and return the answer. Never raises."""
        members: Members = {}
        problem = None
        try:
            request = _REQUEST.validate_json(document)["asks"]
            act = self._acts.get(request.name)
            if act is None:
                problem = f"notifier {__version__} knows no request {request.name[:60]!r}"
            else:
                members = await act(request)
        except ValidationError:
            problem = f"notifier {__version__} cannot read the request"
        except QueueError as error:  # such as after a suspension, when the broker has closed the connection
            problem = f"the queue is unreachable: {error}"
        except Exception as error:  # noqa: BLE001  a request must not end the worker
            problem = f"it failed with {type(error).__name__}"
            frames = "".join(traceback.format_tb(error.__traceback__))
            structlog.get_logger().error("request_failed", error=type(error).__name__, exception=frames)
        answer = WorkerAnswer(worker=self._worker, version=__version__, said=members, problem=problem)
        return _ANSWER.dump_json({"v": 1, "answers": answer})


class LastAnswers:
    """Keeps each worker's last answer, so that the counts of workers that ended since are not lost."""

    def __init__(self) -> None:
        self._last: dict[str, WorkerAnswer] = {}

    def take_missing(self, answers: Sequence[WorkerAnswer]) -> Sequence[WorkerAnswer]:
        """Store these answers, and return the last answers of the workers that are missing."""
        said = {answer.worker: answer for answer in answers if answer.problem is None}
        self._last |= said
        return [answer for worker, answer in self._last.items() if worker not in said]


async def ask_workers_to(queue: Queue, request: WorkerRequest, within: float) -> tuple[int, Sequence[WorkerAnswer]]:
    """Send a request to all workers. Return their number and the answers `within` seconds. Raises QueueError."""
    answered = await queue.request(_REQUEST.dump_json({"v": 1, "asks": request}), within)
    read = [answer for body in answered.answers if (answer := _parse_answer(body)) is not None]
    return max(answered.seen, len(read)), sorted(read, key=lambda answer: answer.worker)


def _parse_answer(body: bytes) -> WorkerAnswer | None:
    """Return None if this release does not know the form."""
    try:
        return _ANSWER.validate_json(body)["answers"]
    except ValidationError:
        return None
