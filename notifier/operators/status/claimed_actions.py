"""Has the workers log what operators do by commands, so that it is in the service's log and the console's audit log.

A command works on the queue itself. It sends its audit line to all workers, and each logs it. `who` is as the command
claims it (`mark_claimed`), unlike the name of an API token, which is proven. Anyone who may use the queue
can send such a line, so its size, its actions and the number of lines are limited, and it replaces no other line of the
audit log. A command writes a line itself that no worker has logged.
"""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import structlog
from pydantic import TypeAdapter
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier.model.errors import QueueError
from notifier.model.ids import new_id
from notifier.model.moment import Clock
from notifier.model.shared_resources import shared_bound
from notifier.operators.status.worker_requests import (
    ANSWER_TIMEOUT_SECONDS,
    RequestKind,
    RequestRefused,
    WorkerAnswer,
    WorkerRequest,
    send_to_workers,
)
from notifier.queues.building import build_queue
from notifier.settings.queue_settings import QueueSettings
from notifier.telemetry.audit import mark_claimed, write_audit

MAX_LINES_PER_MINUTE = shared_bound(120)
MAX_LINE_CHARACTERS = 16_384
MAX_CONTAINERS = 100  # lists and objects: the console cannot read lines that are nested more than 190 deep
CONNECT_TIMEOUT_SECONDS = 5.0
_RESERVED_MEMBERS = frozenset(
    {"action", "at", "audit", "event", "level", "method_name", "self", "time", "who", "worker"}
)
_REPAIRS = ("replayed", "discarded", "cancelled", "shown", "exported", "looked_for")
ACTIONS = frozenset({"retried_now", *(f"{queue}_{verb}" for queue in ("dead_letters", "waiting") for verb in _REPAIRS)})


class _ActionMembers(TypedDict):
    action: str
    details: dict[str, Any]


RECORD_ACTION = RequestKind(
    name="record_action", members=TypeAdapter(_ActionMembers), result=TypeAdapter(dict[str, Any])
)


class ActionRecorder:
    """Logs the actions of commands, MAX_LINES_PER_MINUTE at most. `monotonic`: a clock that never jumps."""

    def __init__(self, monotonic: Clock = time.monotonic) -> None:
        self._monotonic = monotonic
        self._minute = self._count = 0

    async def act(self, request: WorkerRequest) -> Mapping[str, Any]:
        """Log the action in the request of a command. Raises RequestRefused."""
        minute = int(self._monotonic() // 60)
        self._minute, self._count = minute, self._count + 1 if minute == self._minute else 1
        if self._count > MAX_LINES_PER_MINUTE:
            if self._count == MAX_LINES_PER_MINUTE + 1:
                structlog.get_logger().warning("claimed_actions_limited", per_minute=MAX_LINES_PER_MINUTE)
            raise RequestRefused(f"it logs {MAX_LINES_PER_MINUTE} lines of commands a minute")
        action, details = _read_line(request.members)
        write_audit(action, who=mark_claimed(request.who), **details)
        return {}


def _read_line(members: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the action and its details. Raises RequestRefused."""
    action, details = members["action"], members["details"]
    if action in ACTIONS:
        with suppress(ValueError):
            text = json.dumps(details, ensure_ascii=False, allow_nan=False)
            is_readable = len(text) <= MAX_LINE_CHARACTERS and text.count("[") + text.count("{") <= MAX_CONTAINERS
            has_id = isinstance(details.get("action_id", ""), str)
            if is_readable and has_id and not _RESERVED_MEMBERS & details.keys():
                return action, details
    raise RequestRefused("not the audit line of a command")


class CommandAudit:
    """Has the workers of a queue write the audit lines of a command. Without one, stderr has them if `needed`."""

    def __init__(self, settings: QueueSettings, *, needed: bool = True) -> None:
        self._settings = settings
        self._needed = needed

    def write(self, action: str, **details: object) -> None:
        """Write one line. `details` has `who`, and the values are JSON."""
        others = {name: value for name, value in details.items() if name != "who"} | {"action_id": new_id()}
        members = {"action": action, "details": others}
        request = WorkerRequest(kind=RECORD_ACTION, who=str(details["who"]), members=members)
        answers: Sequence[WorkerAnswer] = ()
        with suppress(QueueError, TimeoutError):
            answers = asyncio.run(self._send(request))
        if self._needed and all(answer.problem is not None for answer in answers):
            write_audit(action, **details)

    async def _send(self, request: WorkerRequest) -> Sequence[WorkerAnswer]:
        async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
            _, answers = await send_to_workers(build_queue(self._settings), request, ANSWER_TIMEOUT_SECONDS)
        return answers
