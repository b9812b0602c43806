"""`POST /v1/events?wait=5s`: the answer tells what became of each client so far, so that a user can be told honestly.

200 where the last word on all of them was said, 202 with what is known else. The event is durable in either case, and
goes on in either case. Where too many wait already, nobody waits: 202 at once.
"""

from collections.abc import Mapping

from aiohttp import web

from notifier.domain.durations import parse_duration
from notifier.domain.errors import Mistake
from notifier.domain.printable import json_text
from notifier.operations.fates import Account
from notifier.operations.waiting import LONGEST
from notifier.server.problem import Refusal, problem

WAIT: Mapping[str, object] = {
    "type": "string",
    "pattern": r"^(0|[0-9]{1,3}(\.[0-9]{1,3})?(ms|s))$",
    "description": f"How long to wait for what becomes of it: at most {LONGEST:.0f}s.",
    "examples": ["500ms", "5s"],
}
ACCOUNT: Mapping[str, object] = {
    "type": "object",
    "required": ["id", "complete", "clients"],
    "properties": {
        "id": {"type": "string"},
        "complete": {"type": "boolean"},
        "clients": {"type": "array", "items": {"type": "object"}},
    },
}


def asked_to_wait(request: web.Request) -> float | None:
    """For how many seconds. Raises Refusal: 400."""
    text = request.query.get("wait")
    if text is None:
        return None
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise _refusal(str(error)) from None
    if seconds > LONGEST:
        raise _refusal(f"must be at most {LONGEST:.0f}s")
    return seconds


def _refusal(text: str) -> Refusal:
    return Refusal(problem(400, "The request is malformed", mistakes=[Mistake("wait", text)]))


def told(event_id: str, account: Account | None) -> web.Response:
    """The answer after the wait."""
    account = account or Account()
    return web.json_response(
        {"id": event_id, **account.document()}, status=200 if account.settled else 202, dumps=json_text
    )
