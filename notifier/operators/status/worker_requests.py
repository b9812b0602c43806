"""Sends operators' requests to all workers over the side channel, and handles them at a worker.

The side channel is a broadcast to all workers beside the queues. A request has a name and members. Requests and answers
are JSON documents.
"""

import traceback
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, TypeAlias

import structlog
from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier import __version__
from notifier.model.durations import format_in_words
from notifier.model.errors import NotifierError, QueueError, describe_error
from notifier.model.moment import MinuteLimit
from notifier.model.printable import excerpt
from notifier.model.record import record
from notifier.queues.queue_port import ANOTHER_HOLDER, Queue

ANSWER_TIMEOUT_SECONDS = 2.0  # seconds that workers have to answer
GONE_WORKER_TEXT = "a worker has ended meanwhile, and its last results are not counted; see its log"

LIST_JOBS = "jobs"  # the name of the request for the jobs of all workers
DEAD_LETTER_JOBS, WAITING_JOBS = frozenset({"replay", "discard"}), frozenset({"cancel", "retry"})

Members: TypeAlias = Mapping[str, Any]


@record
class WorkerRequest:
    """A request to every worker. The audit log records the operator `who` sent it."""

    name: str
    who: str
    members: Members


@record
class WorkerAnswer:
    """The answer of one worker. `problem` is the reason why the worker did not carry out the request."""

    worker: str
    version: str
    result: Members
    problem: str | None = None


Act = Callable[[WorkerRequest], Awaitable[Members]]
"""A function that carries out the requests of one name, and returns the result for the answer."""


class _Request(TypedDict):
    v: Literal[1]
    asks: WorkerRequest


class _Answer(TypedDict):
    v: Literal[1]
    answers: WorkerAnswer


_REQUEST, _ANSWER = TypeAdapter(_Request), TypeAdapter(_Answer)


class RequestRefused(NotifierError):  # noqa: N818  what it is
    """A worker does not carry out a request. The text is the reason."""


class RequestHandler:
    """Carries out requests at the worker named `worker`. `acts` has the function for each request name."""

    def __init__(self, worker: str, acts: Mapping[str, Act]) -> None:
        self._worker = worker
        self._acts = acts
        self._log_limit = MinuteLimit()

    async def carry_out(self, document: bytes) -> bytes:
        """Carry out the request in `document`, and return the answer. Never raises."""
        members: Members = {}
        problem = None
        try:
            request = _REQUEST.validate_json(document)["asks"]
            act = self._acts.get(request.name)
            if act is None:
                problem = f"notifier {__version__} does not support the request {request.name[:60]!r}"
            else:
                members = await act(request)
        except ValidationError:
            problem = f"notifier {__version__} cannot read the request"
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

    Return the number of workers, and the answers sorted by worker.
    """
    received = await queue.request(_REQUEST.dump_json({"v": 1, "asks": request}), seconds)
    answers = list(filter(None, map(_parse_answer, received.answers)))
    return max(received.seen, len(answers)), sorted(answers, key=lambda answer: answer.worker)


async def name_holder(
    queue: Queue, who: str, kinds: Collection[str], report: Callable[[str], None] = lambda _: None
) -> str:
    """Return a name for the job of one of these kinds that holds its messages, or for another holder. Never raises.

    `report` receives the name, too.
    """
    request, name = WorkerRequest(name=LIST_JOBS, who=who, members={"issuers": None}), ANOTHER_HOLDER
    with suppress(QueueError, LookupError, TypeError, ValueError, AttributeError):  # another release, or a forgery
        _, answers = await send_to_workers(queue, request, ANSWER_TIMEOUT_SECONDS)
        for answer in answers:
            for job in answer.result.get("jobs", ()):
                if job["kind"] in kinds and job.get("holds"):
                    left = job.get("seconds_left")
                    duration = "" if left is None else f", about {format_in_words(left)} more"
                    name = excerpt(f"worker {answer.worker} (job {job['id']}, {job['kind']}{duration})", 300)
    report(name)
    return name


def _parse_answer(body: bytes) -> WorkerAnswer | None:
    """Return the answer in `body`; None if this release does not support its form."""
    try:
        return _ANSWER.validate_json(body)["answers"]
    except ValidationError:
        return None
