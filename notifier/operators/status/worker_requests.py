"""Sends operators' requests to all workers over the side channel, and handles them at a worker.

The side channel is a broadcast to all workers beside the queues. Requests and answers are JSON documents. Anyone who
may use the queue can send them, so each is validated here, once, against the types of its kind (`RequestKind`).
"""

import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

import structlog
from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier import __version__
from notifier.model.errors import NotifierError, QueueError, describe_error
from notifier.model.moment import MinuteLimit
from notifier.model.record import copy_record, record
from notifier.queues.queue_port import Queue

ANSWER_TIMEOUT_SECONDS = 2.0  # seconds that workers have to answer
GONE_WORKER_TEXT = "a worker has ended meanwhile, and its last results are not counted; see its log"

Members: TypeAlias = Mapping[str, Any]
ReportedCount = Annotated[int, Field(ge=0, le=2**53)]
ReportedCounts = dict[str, ReportedCount]
FiniteSeconds = Annotated[float, Field(allow_inf_nan=False)]


@record
class RequestKind:
    """A kind of request: its name, and the types of its members and of a worker's result. Others are omitted."""

    name: str
    members: TypeAdapter[Any]
    result: TypeAdapter[Any]


@record
class WorkerRequest:
    """A request to every worker. The audit log records the operator `who` sent it."""

    kind: RequestKind
    who: str
    members: Members


@record
class WorkerAnswer:
    """The answer of one worker. `problem` is the reason why the worker did not carry out the request."""

    worker: str
    version: str
    result: Any
    problem: str | None = None


Act = Callable[[WorkerRequest], Awaitable[Members]]
"""A function that carries out the requests of one kind, and returns the result for the answer."""


class _RequestMembers(TypedDict):
    name: str
    who: str
    members: dict[str, Any]


class _Request(TypedDict):
    v: Literal[1]
    asks: _RequestMembers


class _Answer(TypedDict):
    v: Literal[1]
    answers: WorkerAnswer


_REQUEST, _ANSWER = TypeAdapter(_Request), TypeAdapter(_Answer)


class RequestRefused(NotifierError):  # noqa: N818  what it is
    """A worker does not carry out a request. The text is the reason."""


class RequestHandler:
    """Carries out requests at the worker named `worker`. `acts` has the function for each kind.

    `on_malformed` counts a request that is malformed: anyone who may use the queue can send one.
    """

    def __init__(self, worker: str, acts: Mapping[RequestKind, Act], on_malformed: Callable[[], None]) -> None:
        self._worker = worker
        self._acts = {kind.name: (kind, act) for kind, act in acts.items()}
        self._on_malformed = on_malformed
        self._log_limit = MinuteLimit()

    async def carry_out(self, document: bytes) -> bytes:
        """Carry out the request in `document`, and return the answer. Never raises."""
        members: Members = {}
        problem = None
        try:
            found = self._read(document)
            if isinstance(found, str):
                problem = found
            else:
                act, request = found
                members = await act(request)
        except QueueError as error:  # such as after a suspension, when the broker has closed the connection
            problem = f"the queue is unreachable: {error}"
        except RequestRefused as refusal:
            problem = str(refusal)
        except Exception as error:  # noqa: BLE001  a request must not end the worker
            problem = f"it failed: {describe_error(error)}"
            if self._log_limit.allows(kind := type(error).__name__):  # anyone who may use the queue can send requests
                self._log_limit.on_logged(kind)
                frames = "".join(traceback.format_tb(error.__traceback__))
                structlog.get_logger().error("request_failed", error=describe_error(error), exception=frames)
        answer = WorkerAnswer(worker=self._worker, version=__version__, result=members, problem=problem)
        return _ANSWER.dump_json({"v": 1, "answers": answer})

    def _read(self, document: bytes) -> tuple[Act, WorkerRequest] | str:
        """Return the request and its function, or the reason why it cannot be carried out."""
        try:
            asked = _REQUEST.validate_json(document)["asks"]
            if asked["name"] not in self._acts:
                return f"notifier {__version__} does not support the request {asked['name'][:60]!r}"
            kind, act = self._acts[asked["name"]]
            members = kind.members.validate_python(asked["members"])
        except ValidationError:
            self._on_malformed()
            return f"notifier {__version__} cannot read the request"
        return act, WorkerRequest(kind=kind, who=asked["who"], members=members)


class LastAnswers:
    """Stores each worker's last answer, so that the counts of a worker that has ended are not lost."""

    def __init__(self, answers: Sequence[WorkerAnswer] = ()) -> None:
        self._last = {answer.worker: answer for answer in answers if answer.problem is None}

    def find_missing(self, answers: Sequence[WorkerAnswer]) -> Sequence[WorkerAnswer]:
        """Return the last answers of the workers that are missing in these."""
        current = {answer.worker for answer in answers if answer.problem is None}
        return [answer for worker, answer in self._last.items() if worker not in current]

    def store(self, answers: Sequence[WorkerAnswer]) -> None:
        """Store these answers as the last of their workers."""
        self._last |= {answer.worker: answer for answer in answers if answer.problem is None}


async def send_to_workers(queue: Queue, request: WorkerRequest, seconds: float) -> tuple[int, Sequence[WorkerAnswer]]:
    """Send a request to all workers and wait `seconds` seconds for answers. Raises QueueError.

    Return the number of workers, and the answers sorted by worker. Malformed answers are dropped and counted.
    """
    asked: _RequestMembers = {"name": request.kind.name, "who": request.who, "members": dict(request.members)}
    received = await queue.request(_REQUEST.dump_json({"v": 1, "asks": asked}), seconds)
    answers = list[WorkerAnswer]()
    for body in received.answers:
        try:
            answers.append(_parse_answer(request.kind, body))
        except ValidationError:  # of another release, or forged
            queue.side_channel.on_malformed()
    return max(received.seen, len(answers)), sorted(answers, key=lambda answer: answer.worker)


def _parse_answer(kind: RequestKind, body: bytes) -> WorkerAnswer:
    """Return the answer in `body`. Raises ValidationError."""
    answer = _ANSWER.validate_json(body)["answers"]
    result = {} if answer.problem is not None else kind.result.validate_python(answer.result)
    return copy_record(answer, result=result)
