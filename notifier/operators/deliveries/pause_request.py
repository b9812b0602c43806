"""Pauses and resumes clients: changes the register, then has all workers read it, and reports which of them did so.

The change holds without a worker: a worker reads the register before it delivers. If a worker has a newer document than
the register had, the register's message was lost; the worker has restored it, and the change is repeated.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from notifier.model.client import ClientKey
from notifier.model.delivery import Delivery
from notifier.model.documents.documents import EventDocument
from notifier.model.durations import format_duration, parse_duration
from notifier.model.errors import InputIssue, QueueError
from notifier.model.moment import Clock, format_moment, format_optional_moment, parse_moment
from notifier.model.outcome import Cause
from notifier.model.pauses import MAX_REASON_LENGTH, Pause, PauseDocument, in_force, pause_clients, resume_clients
from notifier.model.record import copy_record, record
from notifier.model.registry import Registry
from notifier.operators.deliveries.repair_pass import find_messages
from notifier.operators.deliveries.waiting_filter import WaitingFilter
from notifier.operators.status.lifetime import Lifetime, lifetime_of
from notifier.operators.status.pause_watch import READ_PAUSES
from notifier.operators.status.worker_requests import ANSWER_TIMEOUT_SECONDS, Members, WorkerRequest, send_to_workers
from notifier.queues.queue_port import Queue

MAX_TRIES = 3  # of a change, after a worker has restored the document
COUNT_SECONDS = 10.0  # for the pass that counts expiring deliveries
MAX_CLOCK_DIFFERENCE_SECONDS = 5.0


@record
class PauseResult:
    """`made`: the new pauses. `former`: those that they replaced, or that were resumed. `seen`: the number of workers.

    `applied`: the workers that apply the change. `late`: those that answered and do not, with the reason.
    `clock_difference`: of the workers' clocks from this one, at most, in seconds. `expiring`: how many pending
    deliveries would expire before the end; None if that is unknown. `followers`: the leader's followers that continue.
    """

    made: Sequence[Pause]
    former: Sequence[Pause]
    version: int
    seen: int
    applied: Sequence[str]
    late: Sequence[tuple[str, str]]
    clock_difference: float = 0.0
    expiring: int | None = None
    followers: Sequence[str] = ()

    @property
    def is_applied(self) -> bool:
        """Return whether all workers apply the change, or none runs."""
        return len(self.applied) == self.seen

    def document(self) -> dict[str, Any]:
        """Return the JSON for scripts and the API."""
        late = [{"worker": worker, "problem": problem} for worker, problem in self.late]
        return {
            "paused": [pause_document(each) for each in self.made],
            "former": [pause_document(each) for each in self.former],
            "workers": {
                "seen": self.seen,
                "applied": list(self.applied),
                "late": late,
                "clock_difference": round(self.clock_difference, 1),
            },
            "expiring": self.expiring,
            "followers": list(self.followers),
        }


def pause_document(pause: Pause) -> dict[str, Any]:
    """Return a pause as JSON."""
    return {
        "id": pause.id, "iss": pause.iss, "client_id": pause.client_id, "who": pause.who, "reason": pause.reason,
        "since": format_moment(pause.since), "until": format_moment(pause.until),
        "ended_at": format_optional_moment(pause.ended_at), "ended_by": pause.ended_by,
    }  # fmt: skip


def read_end(members: Mapping[str, Any], now: float, max_paused: float) -> float | InputIssue:
    """Return the end of a pause, given as `for` or `until`; or the mistake."""
    if ("for" in members) == ("until" in members):
        return InputIssue("for", "give either a duration (for) or a time (until)")
    name = "for" if "for" in members else "until"
    try:
        end = now + parse_duration(members["for"]) if name == "for" else parse_moment(members["until"])
    except ValueError as error:
        return InputIssue(name, str(error))
    if end <= now:
        return InputIssue(name, "must be in the future")
    if end > now + max_paused + 1.0:
        limit = format_duration(max_paused)
        return InputIssue(name, f"must end within {limit}, the client's max_paused: later its deliveries would expire")
    return end


def check_reason(reason: str) -> InputIssue | None:
    """Return the mistake in the reason of a pause, or None."""
    if not (1 <= len(reason) <= MAX_REASON_LENGTH and reason.isprintable()):
        text = f"must have 1 to {MAX_REASON_LENGTH} characters, without control characters"
        return InputIssue("reason", text)
    return None


def list_followers(registry: Registry, key: ClientKey) -> Sequence[str]:
    """Return the IDs of the clients that follow this one."""
    return sorted(each.client_id for each in registry.clients_of(key[0]).values() if each.follows == key[1])


async def request_pause(queue: Queue, pauses: Sequence[Pause], clock: Clock) -> PauseResult:
    """Pause clients. Raises QueueError, UnknownVersion."""
    ids = {each.id for each in pauses}

    def edit(document: PauseDocument) -> PauseDocument:
        if ids <= {each.id for each in document.pauses}:
            return document  # repeated
        former[:] = [pause for key, pause in in_force(document, clock()).items() if key in keys]
        return pause_clients(document, pauses, clock())

    keys, former = {each.key for each in pauses}, list[Pause]()
    result = await _apply(queue, edit, pauses[0].who, clock, min(each.until for each in pauses))
    return copy_record(result, made=pauses, former=former)


async def request_resume(queue: Queue, keys: Sequence[ClientKey], who: str, clock: Clock) -> PauseResult:
    """End the pauses of clients. Raises as `request_pause`."""
    former = list[Pause]()

    def edit(document: PauseDocument) -> PauseDocument:
        now = clock()
        if found := [pause for key, pause in in_force(document, now).items() if key in keys]:
            former[:] = found
        return resume_clients(document, keys, who, now)

    return copy_record(await _apply(queue, edit, who, clock), former=former)


async def _apply(
    queue: Queue, edit: Callable[[PauseDocument], PauseDocument], who: str, clock: Clock, until: float = math.inf
) -> PauseResult:
    """Change the register, and have the workers read it. Raises QueueError, UnknownVersion."""
    tries = 0
    while True:
        document, tries = await queue.register.change(edit), tries + 1
        result = await ask_workers(queue, document.version, who, clock, until)
        if result.version <= document.version or tries == MAX_TRIES:
            return result


async def ask_workers(queue: Queue, version: int, who: str, clock: Clock, until: float = math.inf) -> PauseResult:
    """Have all workers read the pauses. The result has the newest version of a worker, or -1. Raises QueueError.

    A worker by whose clock it is later than `until`, the end of a pause, does not apply it.
    """
    request = WorkerRequest(kind=READ_PAUSES, who=who, members={})
    seen, answers = await send_to_workers(queue, request, ANSWER_TIMEOUT_SECONDS)
    read = [answer.result for answer in answers if answer.problem is None]
    problems = {each.worker: each.problem or _find_problem(each.result, version, until) for each in answers}
    return PauseResult(
        made=(), former=(), version=max((result["version"] for result in read), default=-1), seen=seen,
        applied=[worker for worker, problem in problems.items() if problem is None],
        late=[(worker, problem) for worker, problem in problems.items() if problem is not None],
        clock_difference=max((abs(result["at"] - clock()) for result in read), default=0.0),
    )  # fmt: skip


def _find_problem(result: Members, version: int, until: float) -> str | None:
    if result["version"] < version:
        return "it has an older copy"
    return "by its clock the pause is over" if result["at"] >= until else None


async def count_expiring(
    queue: Queue, ends: Mapping[ClientKey, float], registry: Registry
) -> Counter[ClientKey] | None:
    """Return how many pending deliveries of each client expire before the end of its pause; None if that is unknown."""

    def get_lifetime(pending: Delivery | EventDocument) -> Lifetime | None:
        if isinstance(pending, Delivery):  # as after its next deferral: the time of a pause does not count as age
            pending = copy_record(pending, progress=copy_record(pending.progress, deferred_for=Cause.PAUSED.value))
        return lifetime_of(pending, registry)

    [iss, client_id] = next(iter(ends)) if len(ends) == 1 else (None, None)
    filter_, counts = WaitingFilter(iss=iss, client_id=client_id, get_lifetime=get_lifetime), Counter[ClientKey]()
    try:
        async with asyncio.timeout(COUNT_SECONDS), aclosing(find_messages(queue.waiting(), filter_)) as found:
            async for summary, _ in found:
                end = ends.get((summary.iss, summary.client_id))
                counts[summary.iss, summary.client_id] += bool(end and summary.expires and summary.expires < end)
    except (QueueError, TimeoutError):
        return None
    return counts


def describe_pausing_source(source: str | None) -> str:
    """Return that a registry source pauses the client too, so that it is not called after a resume."""
    return f"{source or 'the registry'} has paused: true for it, so it is still paused"
