"""Pauses, resumes and lists clients for commands and the API: changes the register, then has all workers read it.

The change holds without a worker: a worker reads the register before it delivers. If a worker has a newer document than
the register had, the register's message was lost; the worker has restored it, and the change is repeated.
"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any, Required

from pydantic import ConfigDict, Field, with_config

from notifier.model.client import ClientKey
from notifier.model.durations import format_duration, parse_duration
from notifier.model.errors import InputIssue, QueueError
from notifier.model.ids import new_id
from notifier.model.moment import Clock, format_optional_moment, parse_moment
from notifier.model.pauses import MAX_REASON_LENGTH, Pause, PauseDocument, max_paused_of
from notifier.model.record import record
from notifier.model.registry import Registry
from notifier.operators.deliveries.repair_pass import find_messages
from notifier.operators.deliveries.waiting_filter import ClientMembers, WaitingFilter
from notifier.operators.status.lifetime import lifetime_in_pause
from notifier.operators.status.pause_watch import READ_PAUSES, write_pause_audit
from notifier.operators.status.worker_requests import ANSWER_TIMEOUT_SECONDS, Members, WorkerRequest, send_to_workers
from notifier.queues.queue_port import Queue

MAX_TRIES = 3  # of a change, after a worker has restored the document
COUNT_SECONDS = 10.0  # for the pass that counts expiring deliveries

Opening = Callable[[Queue], AbstractAsyncContextManager[object]]
"""Opens a queue that is not open for a pass over pending deliveries, which may park messages again."""


@with_config(ConfigDict(extra="forbid"))
class ResumeMembers(ClientMembers, total=False):
    """The members of a resume, in a request and as options."""

    followers: Annotated[bool, Field(description="Also the clients that follow this one.")]


@with_config(ConfigDict(extra="forbid"))
class PauseMembers(ResumeMembers, total=False):
    """The members of a pause, in a request and as options."""

    for_: Annotated[str, Field(alias="for", description="How long, such as 30m or 2h. Either this or until.")]
    until: Annotated[str, Field(description="The end: RFC 3339 with an offset.")]
    reason: Annotated[Required[str], Field(description=f"Shown with the pause: 1 to {MAX_REASON_LENGTH} characters.")]


@record
class PauseCoverage:
    """Which workers apply the pauses. `seen`: their number. `late`: workers that answered but do not, and the problem.

    `clock_difference`: by how many seconds the clock of a worker differs from this one, at least: answers take time.
    """

    seen: int
    applied: Sequence[str]
    late: Sequence[Mapping[str, str]]
    clock_difference: float


@record
class PauseResult:
    """`paused`: the new pauses. `former`: the replaced or ended pauses.

    `followers`: the followers of the first client that are still called after a pause, or still paused after a resume.
    `expiring`: how many pending deliveries may expire before the end; None if that is unknown.
    """

    paused: Sequence[Pause]
    former: Sequence[Pause]
    workers: PauseCoverage
    followers: Sequence[str]
    expiring: int | None

    def document(self) -> dict[str, Any]:
        """Return the JSON for scripts and the API."""
        pauses = {"paused": self.paused, "former": self.former}
        return asdict(self) | {name: [*map(_pause_document, each)] for name, each in pauses.items()}


def _pause_document(pause: Pause) -> dict[str, Any]:
    moments = ("since", "until", "ended_at")
    return asdict(pause) | {name: format_optional_moment(getattr(pause, name)) for name in moments}


def _find_followers(registry: Registry, key: ClientKey) -> Sequence[ClientKey]:
    return sorted(each.key for each in registry.clients_of(key[0]).values() if each.follows == key[1])


@record
class PauseRequests:
    """Changes and lists the pauses for the operator `who`. Its methods raise QueueError, UnknownVersion.

    `proven`: the name of the operator is. `opening` opens a closed queue for the pass that counts deliveries.
    """

    queue: Queue
    registry: Registry
    who: str
    proven: bool = False
    clock: Clock = time.time
    opening: Opening = nullcontext

    async def pause(self, key: ClientKey, members: Mapping[str, Any]) -> PauseResult | InputIssue:
        """Pause the client and, if requested, its followers; or else return the first mistake of the members."""
        pauses = self.plan(key, members)
        return pauses if isinstance(pauses, InputIssue) else await self.change([each.key for each in pauses], pauses)

    async def resume(self, key: ClientKey, members: Mapping[str, Any]) -> PauseResult:
        """End the pauses of the client and, if requested, of its followers."""
        return await self.change(self._select_clients(key, members))

    def plan(self, key: ClientKey, members: Mapping[str, Any]) -> Sequence[Pause] | InputIssue:
        """Return the pauses that `pause` makes, or the first mistake."""
        keys, reason, now = self._select_clients(key, members), members["reason"], self.clock()
        if len(reason) > MAX_REASON_LENGTH or not reason.isprintable() or not reason.strip():
            text = f"must have 1 to {MAX_REASON_LENGTH} characters, not only blanks, without control characters"
            return InputIssue("reason", text)
        end = _read_end(members, now, *min((max_paused_of(self.registry, each), each[1]) for each in keys))
        if isinstance(end, InputIssue):
            return end
        common = {"who": self.who, "reason": reason, "since": now, "until": end}
        return [Pause(id=new_id(), iss=iss, client_id=client_id, **common) for iss, client_id in keys]

    def _select_clients(self, key: ClientKey, members: Mapping[str, Any]) -> Sequence[ClientKey]:
        return [key, *(_find_followers(self.registry, key) if members.get("followers") else ())]

    async def change(self, keys: Sequence[ClientKey], pauses: Sequence[Pause] = ()) -> PauseResult:
        """Make the pauses of these clients or, without pauses, end theirs. The first client may lead the others."""
        former = dict[ClientKey, Pause]()

        def edit(document: PauseDocument) -> PauseDocument:
            now = self.clock()
            changed = document.pause_clients(pauses, now) if pauses else document.resume_clients(keys, self.who, now)
            if changed is not document:
                present = document.limit_ends(self.registry, now).in_force(now)
                former.update((key, present[key]) for key in keys if key in present)
            return changed

        tries, until = 0, pauses[0].until if pauses else math.inf
        while True:
            document, tries = await self.queue.register.change(edit), tries + 1
            newest, workers = await self._ask_workers(document.version, until)
            if newest <= document.version or tries == MAX_TRIES:
                break
        present = document.in_force(self.clock())
        followers = [each for each in _find_followers(self.registry, keys[0]) if (each in present) != bool(pauses)]
        if self.proven or not workers.applied:  # otherwise the workers have logged it
            for pause in pauses or former.values():
                write_pause_audit("client_paused" if pauses else "client_resumed", pause, self.who)
        counts = await self.count_expiring(pauses)
        return PauseResult(
            paused=pauses,
            former=[*former.values()],
            workers=workers,
            followers=[client_id for _, client_id in followers],
            expiring=None if counts is None else counts.total(),
        )

    async def list_pauses(
        self, selects: Callable[[str], bool], *, counts: bool
    ) -> tuple[Sequence[dict[str, Any]], PauseCoverage]:
        """Return the pauses as JSON, first the pauses in force, and which workers apply them.

        `selects`: whether to return the pauses of an issuer. `counts`: add to each how many deliveries may expire
        before its end; None if that is unknown.
        """
        document = await self.queue.register.read()
        _, workers = await self._ask_workers(document.version)
        now = self.clock()
        shown = document.limit_ends(self.registry, now).list_present_and_ended(now)
        pauses = [each for each in shown if selects(each.iss)]
        rows = [_pause_document(each) for each in pauses]
        if counts:
            found = await self.count_expiring([each for each in pauses if each.ended_at is None])
            for row, each in zip(rows, pauses, strict=True):
                row["expiring"] = found[each.key] if found is not None and each.ended_at is None else None
        return rows, workers

    async def _ask_workers(self, version: int, until: float = math.inf) -> tuple[int, PauseCoverage]:
        """Have all workers read the pauses. Return the newest version of a worker, or -1, and the workers.

        A worker by whose clock it is later than `until`, the end of a pause, does not apply it.
        """
        request, sent_at = WorkerRequest(kind=READ_PAUSES, who=self.who, members={}), self.clock()
        seen, answers = await send_to_workers(self.queue, request, ANSWER_TIMEOUT_SECONDS)
        answered_at, read = self.clock(), [answer.result for answer in answers if answer.problem is None]
        newest = max((result["version"] for result in read), default=-1)
        times = [result["at"] for result in read] or [sent_at]
        judged = [(each.worker, each.problem or _find_problem(each.result, version, until)) for each in answers]
        return newest, PauseCoverage(
            seen=seen,
            applied=[worker for worker, problem in judged if problem is None],
            late=[{"worker": worker, "problem": problem} for worker, problem in judged if problem is not None],
            clock_difference=round(max(0.0, sent_at - min(times), max(times) - answered_at), 1),
        )

    async def count_expiring(self, pauses: Sequence[Pause]) -> Counter[ClientKey] | None:
        """Return how many pending deliveries of each client may expire before its pause ends; None if unknown."""
        ends, counts = {each.key: each.until for each in pauses}, Counter[ClientKey]()
        if not ends:
            return counts
        [iss, client_id] = next(iter(ends)) if len(ends) == 1 else (None, None)
        get_lifetime = partial(lifetime_in_pause, registry=self.registry, now=self.clock())
        filter_ = WaitingFilter(iss=iss, client_id=client_id, get_lifetime=get_lifetime)
        try:
            async with (
                asyncio.timeout(COUNT_SECONDS),
                self.opening(self.queue),
                aclosing(find_messages(self.queue.waiting(), filter_)) as found,
            ):
                async for summary, _ in found:
                    end = ends.get((summary.iss, summary.client_id))
                    counts[summary.iss, summary.client_id] += bool(end and summary.expires and summary.expires < end)
        except (QueueError, TimeoutError):
            return None
        return counts


def _find_problem(result: Members, version: int, until: float) -> str | None:
    if result["version"] < version:
        return "it has an older copy"
    return "by its clock the pause is over" if result["at"] >= until else None


def _read_end(members: Mapping[str, Any], now: float, max_paused: float, client_id: str) -> float | InputIssue:
    """Return the end of a pause, or the mistake. `max_paused`: the shortest of the clients', and `client_id` has it."""
    if ("for_" in members) == ("until" in members):
        return InputIssue("for", "give either a duration (for) or a time (until)")
    name = "for" if "for_" in members else "until"
    try:
        end = now + parse_duration(members["for_"]) if name == "for" else parse_moment(members["until"])
    except ValueError as error:
        return InputIssue(name, str(error))
    if now < end <= now + max_paused + 1.0:
        return min(end, now + max_paused)
    limit = f"must be in the future, and within {format_duration(max_paused)}, the max_paused of {client_id}"
    return InputIssue(name, f"{limit}: later its deliveries would expire")
