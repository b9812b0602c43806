"""The parameter `wait` of `POST /v1/events`: the answer tells what has become of each client so far.

200 means that every client has its last notice; 202 means that more may follow. The event is durable in both cases. If
too many requests wait already, the answer is 202 at once.
"""

from collections.abc import Mapping

from aiohttp import web

from notifier.domain.errors import Mistake
from notifier.domain.printable import json_text
from notifier.operations.notice_wait import LONGEST, EventNotices, read_wait
from notifier.server.problem import Refusal, problem

WAIT: Mapping[str, object] = {
    "type": "string",
    "pattern": r"^(0|[0-9]{1,3}(\.[0-9]{1,3})?(ms|s))$",
    "description": f"How long to wait for what becomes of it: at most {LONGEST:.0f}s.",
    "examples": ["500ms", "5s"],
}
NOTICES: Mapping[str, object] = {
    "type": "object",
    "required": ["id", "complete", "clients"],
    "properties": {
        "id": {"type": "string"},
        "complete": {"type": "boolean"},
        "clients": {"type": "array", "items": {"type": "object"}},
    },
}


def asked_to_wait(request: web.Request) -> float | None:
    """Return the seconds to wait, None without the parameter. Raises Refusal (400)."""
    text = request.query.get("wait")
    if text is None:
        return None
    try:
        return read_wait(text)
    except ValueError as error:
        mistakes = [Mistake("wait", str(error))]
        raise Refusal(problem(400, "The request is malformed", mistakes=mistakes)) from None


def notices_response(event_id: str, notices: EventNotices) -> web.Response:
    """Return the answer after the wait."""
    document = {"id": event_id, **notices.document()}
    return web.json_response(document, status=200 if notices.settled else 202, dumps=json_text)
