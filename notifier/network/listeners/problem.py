"""Reads JSON bodies, and creates error responses for people and programs: `application/problem+json` (RFC 9457)."""

import asyncio
import json
import logging
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler

from notifier.model.errors import InputIssue
from notifier.model.printable import json_text

PROBLEM_TYPE = "urn:notifier:problem"
"""Identifies notifier's answers: proxies and firewalls before it answer too, some also with problem documents."""


def problem_response(
    status: int, title: str, *, mistakes: Iterable[InputIssue] = (), headers: Mapping[str, str] | None = None
) -> web.Response:
    """Return the response. `title` must be safe to show to anybody. `mistakes` have the paths and remedies."""
    document: dict[str, object] = {"type": PROBLEM_TYPE, "title": title, "status": status}
    listed = [{"path": mistake.path, "text": mistake.text} for mistake in mistakes]
    if listed:
        document["mistakes"] = listed
    return web.Response(
        text=json_text(document) + "\n", status=status, content_type="application/problem+json", headers=headers
    )


class Refusal(Exception):  # noqa: N818  an answer, not an error
    """Raised to answer the request with this problem. `log_members`: for the log line of a refused publisher."""

    def __init__(self, response: web.Response, **log_members: str) -> None:
        super().__init__(response.status)
        self.response = response
        self.log_members = log_members


MAX_PATH_SEGMENTS = 32  # more than any path of notifier; aiohttp searches its routes once for each


def is_long_path(request: web.BaseRequest) -> bool:
    """Return True for a path that is not searched: 8 KiB of `/` would block the event loop for 8 ms without a token."""
    return request.rel_url.raw_path.count("/") > MAX_PATH_SEGMENTS


def long_path_response() -> web.Response:
    """Return the response to a path that is not searched."""
    return problem_response(414, f"The path has more than {MAX_PATH_SEGMENTS} segments")


def malformed_refusal(*mistakes: InputIssue) -> Refusal:
    """Return the refusal of a request with these mistakes."""
    return Refusal(problem_response(400, "The request is malformed", mistakes=mistakes))


async def forbid_caching(request: web.Request, answer: web.StreamResponse) -> None:
    """Forbid caches to store responses of the API, and browsers to guess another content type."""
    if request.path.startswith("/v1/"):
        answer.headers.setdefault("Cache-Control", "no-store")
        answer.headers.setdefault("X-Content-Type-Options", "nosniff")


@web.middleware
async def answer_refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer refusals, including those of aiohttp itself (404, 405, 413 …), in the same form."""
    try:
        return await handler(request)
    except Refusal as refusal:
        return refusal.response
    except web.HTTPError as error:
        headers = {name: value for name, value in error.headers.items() if name == "Allow"}
        return problem_response(error.status, HTTPStatus(error.status).phrase, headers=headers)


async def read_json_object(request: web.Request) -> dict[str, Any] | None:
    """Return the object in the body; None if there is none.

    It is UTF-8 regardless of its `charset`: JSON has no other (RFC 8259 §8.1). aiohttp would decode by the charset, and
    among Python's codecs is punycode, which takes seconds for 128 KiB.
    """
    try:
        content = json.loads((await request.read()).decode())
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def is_of_closed_connection(error: Exception, request: web.BaseRequest) -> bool:
    """Return True if a request failed because its connection is closed: nobody reads a response, so it is not logged.

    Other errors of the system, such as a full disk, are logged although the caller has left.
    """
    return isinstance(error, ConnectionError) and (request.transport is None or request.transport.is_closing())


async def remove_server_header(_request: web.Request, response: web.StreamResponse) -> None:
    """Remove the header with the versions of libraries."""
    response.headers.popall("Server", None)


def is_loggable(record: logging.LogRecord) -> bool:
    """Drop aiohttp's log of a request that it cannot parse: the quoted line may contain the token."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError | web.RequestPayloadError))


class ConnectionRefusal(asyncio.Protocol):
    """Refuses a connection before anything is read, because there are too many. With TLS there is no response."""

    def __init__(self, *, secure: bool) -> None:
        self._secure = secure

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        stream = cast("asyncio.Transport", transport)  # uvloop's class does not inherit from asyncio's
        if not self._secure:
            stream.write(
                b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
        stream.close()
