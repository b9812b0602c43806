"""What all stand-ins share: they record each request, may fail before or after their checks, and may stop for good."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from aiohttp import web

from tests.system.loopback import LoopbackServer


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer. `text` is JSON if it begins with a brace. `last`: the receiver stops listening after it."""

    status: int
    text: str = ""
    last: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One request with the status that answered it."""

    path: str
    content_type: str
    headers: Mapping[str, str]
    body: bytes
    status: int
    text: str


class ReplyError(Exception):
    """A check failed; the receiver answers this."""

    def __init__(self, status: int, text: str = "", *, last: bool = False) -> None:
        super().__init__(f"{status} {text}")
        self.reply = Reply(status=status, text=text, last=last)


class FakeReceiver(LoopbackServer):
    """Answers POSTs by `receive` of its subclass, which raises ReplyError and adds to `ended` what a request has ended.

    `outage`: a status for every request, without any check. `failing`: statuses that the application answers after all
    checks, one per request; a `jti` is used up then. `quotes`: a text that every answer begins with.
    """

    path = "/receiver"

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        super().__init__(self._handle)
        self.requests: list[Received] = []
        self.ended: list[Mapping[str, Any]] = []
        self.outage: int | None = None
        self.failing: list[int] = []
        self.quotes = ""
        self.clock = clock
        self._stopping: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Return its address."""
        return self.base + self.path

    @property
    def statuses(self) -> list[int]:
        """Return the statuses that it has answered, in order."""
        return [request.status for request in self.requests]

    async def until_stopped(self) -> None:
        """Return once it listens no more, after an answer that was its last."""
        assert self._stopping is not None
        await self._stopping

    async def receive(self, request: web.BaseRequest, body: bytes) -> Reply:
        """Check the request and act on it."""
        raise NotImplementedError

    def fail_if_asked(self) -> None:
        """Raise ReplyError with the next status of `failing`, if there is one."""
        if self.failing:
            raise ReplyError(self.failing.pop(0))

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        reply = Reply(status=self.outage) if self.outage is not None else await self._checked(request, body)
        self.requests.append(
            Received(
                path=request.path,
                content_type=request.headers.get("Content-Type", ""),
                headers=dict(request.headers),
                body=body,
                status=reply.status,
                text=reply.text,
            )
        )
        kind = "application/json" if reply.text.startswith("{") else "text/plain"
        text = self.quotes + reply.text
        response = web.Response(status=reply.status, text=text or None, content_type=kind if text else None)
        if reply.last and self._stopping is None:
            response.force_close()
            self._stopping = asyncio.create_task(self.close())
        self.changed.set()
        return response

    async def _checked(self, request: web.BaseRequest, body: bytes) -> Reply:
        if request.method != "POST":
            return Reply(status=405)
        if request.path != self.path:
            return Reply(status=404)
        try:
            return await self.receive(request, body)
        except ReplyError as refusal:
            return refusal.reply

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stopping is not None:
            await self._stopping
        else:
            await self.close()


def parse_object(body: bytes) -> dict[str, Any] | None:
    """Return the JSON object in a body; None if it has none."""
    try:
        content = json.loads(body)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None
