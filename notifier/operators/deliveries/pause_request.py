"""Pauses, resumes and lists clients for commands and the API: changes the register, then has all workers read it.

The change holds without a worker: a worker reads the register before it delivers. If a worker has a newer document than
the register had, the register's message was lost; the worker has restored it, and the change is repeated.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from functools import partial
from typing import Annotated, Any, Required

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier.model.client import ClientKey
from notifier.model.documents.cloudevents import MAX_TEXT_LENGTH
from notifier.model.durations import format_duration, parse_duration
from notifier.model.errors import InputIssue, QueueError
from notifier.model.ids import new_id
from notifier.model.moment import Clock, format_moment, format_optional_moment, parse_moment
from notifier.model.pauses import (
    MAX_REASON_LENGTH,
    Pause,
    PauseDocument,
    expire,
    in_force,
    pause_clients,
    resume_clients,
)
from notifier.model.record import copy_record, record
from notifier.model.registry import Registry
from notifier.operators.deliveries.repair_pass import find_messages
from notifier.operators.deliveries.waiting_filter import WaitingFilter
from notifier.operators.status.lifetime import lifetime_in_pause
from notifier.operators.status.pause_watch import READ_PAUSES, max_paused_of, write_pause_audit
from notifier.operators.status.worker_requests import ANSWER_TIMEOUT_SECONDS, Members, WorkerRequest, send_to_workers
from notifier.queues.queue_port import Queue

MAX_TRIES = 3  # of a change, after a worker has restored the document
COUNT_SECONDS = 10.0  # for the pass that counts expiring deliveries

Opening = Callable[[Queue], AbstractAsyncContextManager[object]]
"""Opens a queue that is not open for a pass over pending deliveries, which may park messages again."""


@with_config(ConfigDict(extra="forbid"))
class ResumeMembers(TypedDict, total=False):
    """The members of a resume, in a request and as options."""

    client_id: Annotated[
        Required[str],
        Field(min_length=1, max_length=MAX_TEXT_LENGTH, description="The client, or an alias of it."),
    ]
    iss: Annotated[
        str, Field(min_length=1, max_length=MAX_TEXT_LENGTH, description="Its issuer. Needed if there are several.")
    ]
    followers: Annotated[bool, Field(description="Also the clients that follow this one.")]


@with_config(ConfigDict(extra="forbid"))
class PauseMembers(ResumeMembers, total=False):
    """The members of a pause, in a request and as options."""

    for_: Annotated[str, Field(alias="for", description="How long, such as 30m or 2h. Either this or until.")]
    until: Annotated[str, Field(description="The end: RFC 3339 with an offset.")]
    reason: Annotated[
        Required[str], Field(description=f"Shown wherever the pause is: 1 to {MAX_REASON_LENGTH} characters.")
    ]


@record
class PauseResult:
    """`made`: the new pauses. `former`: those that they replaced, or that were resumed. `seen`: the number of workers.

    `applied`: the workers that apply the change. `late`: those that answered and do not, with the reason.
    `clock_difference`: of the workers' clocks from this one, at most, in seconds. `expiring`: how many pending
    deliveries may expire before the end; None if that is unknown. `followers`: the leader's followers that are still
    called after a pause, or still paused after a resume.
    """

    made: Sequence[Pause] = ()
    former: Sequence[Pause] = ()
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

    def write_audit(self, who: str, *, proven: bool) -> None:
        """Log each change with the name of the operator, unless that is not `proven`, and workers have logged it."""
        if proven or not self.applied:
            for each in self.made or self.former:
                write_pause_audit("client_paused" if self.made else "client_resumed", each, who)


def pause_document(pause: Pause) -> dict[str, Any]:
    """Return a pause as JSON."""
    return {
        "id": pause.id, "iss": pause.iss, "client_id": pause.client_id, "who": pause.who, "reason": pause.reason,
        "since": format_moment(pause.since), "until": format_moment(pause.until),
        "ended_at": format_optional_moment(pause.ended_at), "ended_by": pause.ended_by,
    }  # fmt: skip


def plan_pauses(
    registry: Registry, key: ClientKey, members: Mapping[str, Any], who: str, now: float
) -> tuple[Sequence[Pause], Sequence[InputIssue]]:
    """Return the pauses of the client and, if requested, of its followers; or else the mistakes."""
    keys, reason = select_clients(registry, key, members), members.get("reason", "")
    end = _read_end(members, now, *min((max_paused_of(registry, each), each[1]) for each in keys))
    mistakes = [end] if isinstance(end, InputIssue) else []
    if not (1 <= len(reason) <= MAX_REASON_LENGTH and reason.isprintable()):
        text = f"must have 1 to {MAX_REASON_LENGTH} characters, without control characters"
        mistakes.append(InputIssue("reason", text))
    if mistakes or isinstance(end, InputIssue):
        return (), mistakes
    return [
        Pause(id=new_id(), iss=iss, client_id=client_id, who=who, reason=reason, since=now, until=end)
        for iss, client_id in keys
    ], ()


def _read_end(members: Mapping[str, Any], now: float, max_paused: float, client_id: str) -> float | InputIssue:
    """Return the end of a pause, or the mistake. `max_paused`: the shortest of the clients, which this one has."""
    if ("for_" in members) == ("until" in members):
        return InputIssue("for", "give either a duration (for) or a time (until)")
    name = "for" if "for_" in members else "until"
    try:
        end = now + parse_duration(members["for_"]) if name == "for" else parse_moment(members["until"])
    except ValueError as error:
        return InputIssue(name, str(error))
    if end <= now:
        return InputIssue(name, "must be in the future")
    if end > now + max_paused + 1.0:
        limit = f"must end within {format_duration(max_paused)}, the max_paused of {client_id}"
        return InputIssue(name, f"{limit}: later its deliveries would expire")
    return end


def select_clients(registry: Registry, key: ClientKey, members: Mapping[str, Any]) -> Sequence[ClientKey]:
    """Return the client and, if requested, those that follow it."""
    return [key, *(_followers_of(registry, key) if members.get("followers") else ())]


def _followers_of(registry: Registry, key: ClientKey) -> Sequence[ClientKey]:
    return sorted(each.key for each in registry.clients_of(key[0]).values() if each.follows == key[1])


async def request_pause(
    queue: Queue, registry: Registry, pauses: Sequence[Pause], clock: Clock, *, proven: bool = False,
    opening: Opening = nullcontext,
) -> PauseResult:  # fmt: skip
    """Pause clients, of which the first may lead the others. Raises QueueError, UnknownVersion.

    `proven`: whether the name of the operator is. The count of deliveries follows, which takes COUNT_SECONDS at most.
    """

    def edit(document: PauseDocument) -> PauseDocument:
        if ids <= {each.id for each in document.pauses}:
            return document  # repeated
        former[:] = [pause for key, pause in in_force(document, clock()).items() if key in keys]
        return pause_clients(document, pauses, clock())

    keys, ids, former = {each.key for each in pauses}, {each.id for each in pauses}, list[Pause]()
    document, result = await _apply(queue, edit, pauses[0].who, clock, pauses[0].until)
    paused = in_force(document, clock())
    followers = [each[1] for each in _followers_of(registry, pauses[0].key) if each not in paused]
    result = copy_record(result, made=pauses, former=former, followers=followers)
    result.write_audit(pauses[0].who, proven=proven)
    counts = await count_expiring(queue, {each.key: each.until for each in pauses}, registry, clock(), opening)
    return copy_record(result, expiring=None if counts is None else counts.total())


async def request_resume(
    queue: Queue, registry: Registry, keys: Sequence[ClientKey], who: str, clock: Clock, *, proven: bool = False
) -> PauseResult:
    """End the pauses of clients, of which the first may lead the others. Raises QueueError, UnknownVersion."""
    former = list[Pause]()

    def edit(document: PauseDocument) -> PauseDocument:
        now = clock()
        if found := [pause for key, pause in in_force(document, now).items() if key in keys]:
            former[:] = found
        return resume_clients(document, keys, who, now)

    document, result = await _apply(queue, edit, who, clock)
    paused = in_force(document, clock())
    followers = [each[1] for each in _followers_of(registry, keys[0]) if each in paused]
    result = copy_record(result, former=former, followers=followers)
    result.write_audit(who, proven=proven)
    return result


async def _apply(
    queue: Queue, edit: Callable[[PauseDocument], PauseDocument], who: str, clock: Clock, until: float = math.inf
) -> tuple[PauseDocument, PauseResult]:
    """Change the register, and have the workers read it. Raises QueueError, UnknownVersion."""
    tries = 0
    while True:
        document, tries = await queue.register.change(edit), tries + 1
        result = await _ask_workers(queue, document.version, who, clock, until)
        if result.version <= document.version or tries == MAX_TRIES:
            return document, result


async def list_pauses(
    queue: Queue, registry: Registry, who: str, clock: Clock, *, selects: Callable[[str], bool], counts: bool,
    opening: Opening = nullcontext,
) -> tuple[Sequence[dict[str, Any]], PauseResult]:  # fmt: skip
    """Return the pauses as JSON, those in force first, and which workers apply them. Raises QueueError, UnknownVersion.

    `selects`: whether to return the pauses of an issuer. `counts`: add to each how many deliveries may expire before
    its end; None if that is unknown.
    """
    document = await queue.register.read()
    asked = await _ask_workers(queue, document.version, who, clock)
    pauses = [each for each in expire(document, clock()).pauses if selects(each.iss)]
    if not counts:
        return [pause_document(each) for each in pauses], asked
    ends = {each.key: each.until for each in pauses if each.ended_at is None}
    found = await count_expiring(queue, ends, registry, clock(), opening) if ends else None
    return [
        pause_document(each) | {"expiring": None if found is None or each.ended_at is not None else found[each.key]}
        for each in pauses
    ], asked


async def _ask_workers(queue: Queue, version: int, who: str, clock: Clock, until: float = math.inf) -> PauseResult:
    """Have all workers read the pauses. The result has the newest version of a worker, or -1. Raises QueueError.

    A worker by whose clock it is later than `until`, the end of a pause, does not apply it.
    """
    request = WorkerRequest(kind=READ_PAUSES, who=who, members={})
    seen, answers = await send_to_workers(queue, request, ANSWER_TIMEOUT_SECONDS)
    read = [answer.result for answer in answers if answer.problem is None]
    problems = {each.worker: each.problem or _find_problem(each.result, version, until) for each in answers}
    return PauseResult(
        version=max((result["version"] for result in read), default=-1), seen=seen,
        applied=[worker for worker, problem in problems.items() if problem is None],
        late=[(worker, problem) for worker, problem in problems.items() if problem is not None],
        clock_difference=max((abs(result["at"] - clock()) for result in read), default=0.0),
    )  # fmt: skip


def _find_problem(result: Members, version: int, until: float) -> str | None:
    if result["version"] < version:
        return "it has an older copy"
    return "by its clock the pause is over" if result["at"] >= until else None


async def count_expiring(
    queue: Queue, ends: Mapping[ClientKey, float], registry: Registry, now: float, opening: Opening = nullcontext
) -> Counter[ClientKey] | None:
    """Return how many pending deliveries of each client may expire before the end of its pause; None if unknown."""
    get_lifetime = partial(lifetime_in_pause, registry=registry, now=now)
    [iss, client_id] = next(iter(ends)) if len(ends) == 1 else (None, None)
    filter_, counts = WaitingFilter(iss=iss, client_id=client_id, get_lifetime=get_lifetime), Counter[ClientKey]()
    try:
        async with (
            asyncio.timeout(COUNT_SECONDS),
            opening(queue),
            aclosing(find_messages(queue.waiting(), filter_)) as found,
        ):
            async for summary, _ in found:
                end = ends.get((summary.iss, summary.client_id))
                counts[summary.iss, summary.client_id] += bool(end and summary.expires and summary.expires < end)
    except (QueueError, TimeoutError):
        return None
    return counts


def describe_pausing_source(source: str | None) -> str:
    """Return that a registry source pauses the client too, so that it is not called after a resume."""
    return f"{source or 'the registry'} has paused: true for it, so it is still paused"
