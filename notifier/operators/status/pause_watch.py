"""Keeps a worker's copy of the pauses: read before the first delivery, on request, after a reconnect, and every 30 s.

A worker that cannot read them within START_SECONDS delivers without them, and reports it. A worker that was suspended
reads them before its next attempt (`outdated_at`): the requests of that time reach it later than its attempts go on.
"""

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

import structlog
from pydantic import TypeAdapter
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier.model.client import ClientKey
from notifier.model.errors import NotifierError, TopologyMismatch
from notifier.model.moment import Clock, format_moment, wait_for_event
from notifier.model.pauses import NO_PAUSES, Pause, PauseDocument, max_paused_of
from notifier.model.record import copy_record
from notifier.model.registry import CurrentRegistry
from notifier.model.shared_resources import shared_lock
from notifier.operators.status.worker_requests import (
    FiniteSeconds,
    Members,
    ReportedCount,
    RequestKind,
    RequestRefused,
    WorkerRequest,
)
from notifier.queues.queue_port import Queue
from notifier.telemetry.audit import mark_claimed, write_audit

READ_INTERVAL_SECONDS = 30.0
RETRY_INTERVAL_SECONDS = 1.0  # after a failed reading
CHECK_INTERVAL_SECONDS = 0.5  # for pauses that are over, and for a new connection
SUSPENDED_SECONDS = 3.0  # without a check: the process was suspended, or its event loop blocked
START_SECONDS = 10.0  # then the worker delivers without the pauses


class _PausesResult(TypedDict):
    version: ReportedCount
    at: FiniteSeconds


READ_PAUSES = RequestKind(name="pauses", members=TypeAdapter(dict[str, Any]), result=TypeAdapter(_PausesResult))


class PauseWatch:
    """The pauses of one worker. It is the port `Pauses` of its deliveries.

    A pause lasts the client's `max_paused` at most from when it was read, if the clock of its writer is wrong. `on_end`
    gets each client whose pause has ended. `document`: with these ends. `problem`: why the pauses are unread.
    """

    def __init__(
        self, queue: Queue, registry: CurrentRegistry, on_end: Callable[[ClientKey], None], clock: Clock = time.time
    ) -> None:
        self._queue, self._registry, self._on_end, self._clock = queue, registry, on_end, clock
        self._reading = shared_lock()
        self._read_soon = asyncio.Event()
        self._read_at = -math.inf
        self.in_force: Mapping[ClientKey, Pause] = {}
        self.document: PauseDocument = NO_PAUSES
        self.outdated_at = math.inf
        self.problem: str | None = None

    def metrics(self) -> tuple[float, Mapping[ClientKey, float]]:
        """Return the age of the copy in seconds, infinite before the first reading, and the end of each pause."""
        return max(0.0, self._clock() - self._read_at), {key: each.until for key, each in self.in_force.items()}

    async def start(self) -> None:
        """Read the pauses, before the first delivery. Return without them after START_SECONDS."""
        self.outdated_at = -math.inf
        await self.refresh()
        self._read_soon.set()

    async def refresh(self) -> None:
        """Read the pauses once for all callers, within START_SECONDS. Return at once if their queue is missing."""
        async with self._reading:
            if self._clock() < self.outdated_at:
                return
            try:
                async with asyncio.timeout(START_SECONDS):
                    while not await self._try_read():  # noqa: ASYNC110  no event reports that they can be read
                        await asyncio.sleep(RETRY_INTERVAL_SECONDS)
            except TimeoutError:
                self._on_problem(f"they could not be read within {START_SECONDS:.0f} s")
            self.outdated_at = self._clock() + SUSPENDED_SECONDS

    async def _try_read(self) -> bool:
        """Read the pauses. Return False if another try may succeed soon."""
        try:
            document = await self._queue.register.read()
        except NotifierError as error:
            self._on_problem(str(error))
            return isinstance(error, TopologyMismatch)
        is_first, self._read_at = self._read_at == -math.inf, self._clock()
        self.problem = None
        self._take(document, is_first=is_first)
        return True

    def _on_problem(self, text: str) -> None:
        if text != self.problem:
            structlog.get_logger().warning("pauses_unread", reason=text, paused=len(self.in_force))
        self.problem = text

    def _take(self, document: PauseDocument, *, is_first: bool) -> None:
        """Apply the document, unless this worker has a newer document, and log the changes since the last document.

        The first document is compared with its expired pauses: a worker that has read a change may have died before it
        could log it, or none may have run.
        """
        if document.version < self.document.version:
            return
        now, registry = self._clock(), self._registry()
        former, pauses = {pause.id: pause for pause in self.document.pauses}, list[Pause]()
        for each in document.limit_ends(registry, now).pauses:
            end = former[each.id].until if each.id in former else now + max_paused_of(registry, each.key)
            pauses.append(copy_record(each, until=min(each.until, end)))
        self.document = copy_record(document, pauses=tuple(pauses))
        self._log_changes({pause.id: pause for pause in pauses if pause.until <= now} if is_first else former)
        self._use(self.document.in_force(now), now)

    def _log_changes(self, before: Mapping[str, Pause]) -> None:
        """Log the pauses that were made or ended since `before`, by ID. A name in the register is not proven.

        A pause that ended when another one of its client began was replaced, not resumed.
        """
        starts = {(each.key, each.since) for each in self.document.pauses if each.since != each.ended_at}
        for pause in reversed(self.document.pauses):
            known = before.get(pause.id)
            if known is None and pause.ended_at is None:
                write_pause_audit("client_paused", pause, mark_claimed(pause.who))
            is_new_end = known is None or known.ended_at is None
            if is_new_end and pause.ended_by is not None and (pause.key, pause.ended_at) not in starts:
                write_pause_audit("client_resumed", pause, mark_claimed(pause.ended_by))

    def _use(self, present: Mapping[ClientKey, Pause], now: float) -> None:
        """Apply these pauses, and end the others."""
        former, self.in_force = self.in_force, present
        for key, pause in former.items():
            if pause.until <= now:
                names = {"iss": pause.iss, "client_id": pause.client_id}
                structlog.get_logger().info("pause_ended", **names, pause=pause.id, who=pause.who)
            if key not in present:
                self._on_end(key)

    async def act(self, _request: WorkerRequest) -> Members:
        """Read the pauses for an operator, and return their version and this worker's time. Raises RequestRefused."""
        if not await self._try_read() or self.problem is not None:
            self._read_soon.set()
            raise RequestRefused(f"it cannot read the pauses: {self.problem}")
        return {"version": self.document.version, "at": self._clock()}

    async def run(self) -> None:
        """End pauses, and read them at intervals and after a reconnect, until cancelled. It begins after `start`."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._check())
            tasks.create_task(self._read_regularly())

    async def _check(self) -> None:
        was_connected = True
        while True:
            await asyncio.sleep(CHECK_INTERVAL_SECONDS)
            if self._clock() >= self.outdated_at:
                await self.refresh()
            self.outdated_at = self._clock() + SUSPENDED_SECONDS
            now = self._clock()
            self._use({key: pause for key, pause in self.in_force.items() if pause.until > now}, now)
            is_connected = self._queue.status().connected
            if is_connected and not was_connected:
                self._read_soon.set()
            was_connected = is_connected

    async def _read_regularly(self) -> None:
        await self._read_soon.wait()
        while True:
            self._read_soon.clear()
            is_read = await self._try_read()
            await wait_for_event(self._read_soon, READ_INTERVAL_SECONDS if is_read else RETRY_INTERVAL_SECONDS)


def write_pause_audit(action: Literal["client_paused", "client_resumed"], pause: Pause, who: str) -> None:
    """Log that `who` has paused or resumed a client. All lines about one change have the same `action_id`."""
    members = {"iss": pause.iss, "client_id": pause.client_id, "pause": pause.id, "reason": pause.reason}
    members |= {"since": format_moment(pause.since), "until": format_moment(pause.until)}
    write_audit(action, who=who, action_id=pause.id, **members)
