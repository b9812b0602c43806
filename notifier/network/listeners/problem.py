"""Reads JSON bodies, and makes error answers for people and programs: `application/problem+json` (RFC 9457)."""

import json
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from notifier.model.errors import InputIssue
from notifier.model.printable import json_text


def problem_response(
    status: int, title: str, *, mistakes: Iterable[InputIssue] = (), headers: Mapping[str, str] | None = None
) -> web.Response:
    """Make the answer. `title` must be safe to show to strangers. `mistakes` say where, and what to do."""
    document: dict[str, object] = {"type": "about:blank", "title": title, "status": status}
    listed = [{"path": mistake.path, "text": mistake.text} for mistake in mistakes]
    if listed:
        document["mistakes"] = listed
    return web.Response(
        text=json_text(document) + "\n", status=status, content_type="application/problem+json", headers=headers
    )


class Refusal(Exception):  # noqa: N818  an answer, not an error
    """Raised to answer the request with this problem."""

    def __init__(self, response: web.Response) -> None:
        super().__init__(response.status)
        self.response = response


def malformed_refusal(*mistakes: InputIssue) -> Refusal:
    """Return the refusal of a request with these mistakes."""
    return Refusal(problem_response(400, "The request is malformed", mistakes=mistakes))


async def forbid_caching(request: web.Request, answer: web.StreamResponse) -> None:
    """Have nobody keep what the API is about to answer, nor take it for anything else than it says it is."""
    if request.path.startswith("/v1/"):
        answer.headers.setdefault("Cache-Control", "no-store")
        answer.headers.setdefault("X-Content-Type-Options", "nosniff")


@web.middleware
async def answer_refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What is refused is answered, and what aiohttp itself refuses (404, 405, 413 …) in the same form."""
    try:
        return await handler(request)
    except Refusal as refusal:
        return refusal.response
    except web.HTTPError as error:
        headers = {name: value for name, value in error.headers.items() if name == "Allow"}
        return problem_response(error.status, HTTPStatus(error.status).phrase, headers=headers)


async def read_json_object(request: web.Request) -> dict[str, Any] | None:
    """Return the object in the body; None if there is none.

    It is UTF-8 whatever its `charset` says: JSON has no other (RFC 8259 §8.1). aiohttp's own ways decode by it, and
    among Python's codecs is punycode, which takes seconds for 128 KiB.
    """
    try:
        content = json.loads((await request.read()).decode())
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
