"""Run the worker with one poisoned event, which kills the process, and a supervisor that restarts it.

    python killed_by.py reading|telling EVENT CLIENT run -c …

`reading`: the process dies when it reads the event or a delivery of it. `telling`: when it starts the attempt at that
client. The supervisor is the started process: it forks a worker, and another whenever that worker was killed; any
other exit is its own. Each worker logs the redelivery count of the poison's neighbours, whenever it grows.
"""

import ctypes
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import FrameType

from notifier.cli import main
from notifier.delivery import pipeline
from notifier.delivery.line_and_parking import AdmittedDelivery
from notifier.delivery.ports import Tools
from notifier.delivery.verdict import AttemptReport
from notifier.messages.message_planner import DeliverySteps, MessagePlanner
from notifier.messages.replacements import Replacement
from notifier.messages.worker import Worker
from notifier.model.message import Message

PR_SET_PDEATHSIG = 1

_plan = MessagePlanner.plan
_attempt: Callable[[AdmittedDelivery, Tools], Awaitable[AttemptReport]] = vars(pipeline)["attempt"]
_take = Worker.take


def say(event: str, **more: object) -> None:
    """A line of the worker's log."""
    sys.stderr.write(json.dumps({"event": event, **more}) + "\n")
    sys.stderr.flush()


def poison(when: str, event: str, client: str) -> None:
    """Kill this process at that event, and log the redelivery count of the others."""
    most = -1

    def marked(message: Message) -> bool:
        content = json.loads(message.body)
        inner = content.get("event") or content.get("delivery") or content
        return event in (inner.get("id"), inner.get("event_id")) and (
            when == "reading" or "client_id" not in inner or inner["client_id"] == client
        )

    def take(self: Worker, message: Message) -> None:
        nonlocal most
        if message.delivery_count > most and not marked(message):
            most = message.delivery_count
            say("neighbour", count=most)
        _take(self, message)

    def reading(self: MessagePlanner, message: Message) -> DeliverySteps | Replacement:
        if when == "reading" and marked(message):
            os.kill(os.getpid(), signal.SIGKILL)
        return _plan(self, message)

    async def telling(ticket: AdmittedDelivery, tools: Tools) -> AttemptReport:
        if when == "telling" and (ticket.delivery.event_id, ticket.client.client_id) == (event, client):
            os.kill(os.getpid(), signal.SIGKILL)
        return await _attempt(ticket, tools)

    Worker.take = take  # type: ignore[method-assign]
    vars(pipeline)["attempt"] = telling
    MessagePlanner.plan = reading  # type: ignore[method-assign]


def supervise() -> int:
    """Returns 0 in each worker that is to run, and only there; the supervisor ends here, with its worker's code.

    A SIGTERM that comes while a worker is dying or not there yet ends the supervisor all the same, as it would
    systemd's: so it is held back while a worker is made, and remembered.
    """
    child = 0
    stopping = False

    def forward(number: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True
        with suppress(ProcessLookupError):
            os.kill(child, number)

    while True:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        if stopping:
            sys.exit(128 + signal.SIGTERM)
        child = os.fork()
        if child == 0:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # never outlives its supervisor
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            return 0
        signal.signal(signal.SIGTERM, forward)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        _, status = os.waitpid(child, 0)
        if (code := os.waitstatus_to_exitcode(status)) != -signal.SIGKILL:
            sys.exit(code if code >= 0 else 128 - code)
        say("killed")


if __name__ == "__main__":
    when, event, client = sys.argv[1:4]
    del sys.argv[1:4]
    supervise()
    poison(when, event, client)
    main()
