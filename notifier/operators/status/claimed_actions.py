"""Has the workers log what operators do by commands, so that it is in the service's log and the console's audit log.

A command works on the queue itself. It sends its audit line to all workers, and each logs it. `who` is as the command
claims it, and ends with CLAIMED_SUFFIX, unlike the name of an API token, which is proven. Anyone who may use the queue
can send such a line, so its size and its actions are limited, and it replaces no other line of the audit log.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from notifier.model.errors import QueueError
from notifier.model.ids import new_id
from notifier.operators.status.worker_requests import (
    ANSWER_TIMEOUT_SECONDS,
    WorkerAnswer,
    WorkerRequest,
    send_to_workers,
)
from notifier.queues.building import build_queue
from notifier.settings.queue_settings import QueueSettings
from notifier.telemetry.audit import CLAIMED_SUFFIX, write_audit

RECORD_ACTION = "record_action"
MAX_LINE_CHARACTERS = 16_384
MAX_CONTAINERS = 100  # lists and objects: the console cannot read lines that are nested more than 190 deep
MAX_NAME_CHARACTERS = 200
CONNECT_TIMEOUT_SECONDS = 5.0
_RESERVED_MEMBERS = frozenset({"action", "at", "audit", "event", "level", "self", "time", "who", "worker"})
_REPAIRS = ("replayed", "discarded", "cancelled", "shown", "exported", "looked_for")
ACTIONS = frozenset({"retried_now", *(f"{queue}_{verb}" for queue in ("dead_letters", "waiting") for verb in _REPAIRS)})


async def record_action(request: WorkerRequest) -> Mapping[str, Any]:
    """Log the action in the request of a command."""
    action, details = request.members["action"], request.members["details"]
    text = json.dumps(details, ensure_ascii=False, allow_nan=False)
    is_readable = len(text) <= MAX_LINE_CHARACTERS and text.count("[") + text.count("{") <= MAX_CONTAINERS
    has_id = isinstance(details.get("action_id", ""), str)
    if action not in ACTIONS or not is_readable or not has_id or _RESERVED_MEMBERS & details.keys():
        raise ValueError("not the audit line of a command")
    write_audit(action, who=request.who.removesuffix(CLAIMED_SUFFIX)[:MAX_NAME_CHARACTERS] + CLAIMED_SUFFIX, **details)
    return {}


class CommandAudit:
    """Has the workers of a queue write the audit lines of a command. Without one, stderr has them if `needed`."""

    def __init__(self, settings: QueueSettings, *, needed: bool = True) -> None:
        self._settings = settings
        self._needed = needed

    def write(self, action: str, **details: object) -> None:
        """Write one line. `details` has `who`, and the values are JSON."""
        others = {name: value for name, value in details.items() if name != "who"} | {"action_id": new_id()}
        members = {"action": action, "details": others}
        request = WorkerRequest(name=RECORD_ACTION, who=str(details["who"]), members=members)
        answers: Sequence[WorkerAnswer] = ()
        with suppress(QueueError, TimeoutError):
            answers = asyncio.run(self._send(request))
        if self._needed and all(answer.problem is not None for answer in answers):
            write_audit(action, **details)

    async def _send(self, request: WorkerRequest) -> Sequence[WorkerAnswer]:
        async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
            _, answers = await send_to_workers(build_queue(self._settings), request, ANSWER_TIMEOUT_SECONDS)
        return answers
