"""A fake of notifier's HTTP API, with scripted answers."""

import asyncio
import contextlib
import json
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

PROBLEM_TYPE = "urn:notifier:problem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request, and when it came."""

    path: str
    lane: str
    token: str
    content_type: str
    event: Mapping[str, Any]
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer. `text`: if None, the event's id, as in notifier's 202. `hangs`: none until the caller disconnects.

    `after`: in seconds.
    """

    status: int = 202
    text: str | None = None
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    hangs: bool = False
    after: float = 0.0


def problem(status: int, kind: str = PROBLEM_TYPE, **headers: str) -> Answer:
    """Return an error of notifier; with another `kind`, the error of another server in the same format (RFC 9457)."""
    text = json.dumps({"type": kind, "title": "The event is malformed", "status": status})
    return Answer(status=status, text=text, content_type="application/problem+json", headers=headers)


def page(status: int, **headers: str) -> Answer:
    """Return the page of a proxy, a firewall or a captive portal that answers in place of notifier."""
    return Answer(status=status, text="<html><title>Blocked</title></html>", content_type="text/html", headers=headers)


class Api:
    """See the module. Made by `api`. Answers come from `by_event`, then from `script`; without either, notifier's 202.

    `asked`: every request. `accepted`: the events that were answered with notifier's 202.
    """

    def __init__(self, folder: Path) -> None:
        self.token = f"token-{secrets.token_hex(16)}"
        self.secret_file = folder / "api-token"
        self.secret_file.write_text(f"{self.token}\n")
        self.script: deque[Answer] = deque()
        self.by_event: Callable[[Mapping[str, Any]], Answer | None] = lambda _: None
        self.asked: list[Asked] = []
        self.accepted: list[Mapping[str, Any]] = []
        self.port = 0

    @property
    def url(self) -> str:
        """Return the address and the secret file for the publisher."""
        return f"http://127.0.0.1:{self.port}"

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        event = dict(json.loads(await request.read() or b"{}"))
        self.asked.append(
            Asked(
                path=request.path,
                lane=request.query.get("lane", "events"),
                token=request.headers.get("Authorization", "").removeprefix("Bearer "),
                content_type=request.content_type,
                event=event,
                at=asyncio.get_running_loop().time(),
            )
        )
        answer = self.by_event(event) or (self.script.popleft() if self.script else Answer())
        await asyncio.sleep(3600 if answer.hangs else answer.after)
        if answer.status == 202 and answer.text is None:
            self.accepted.append(event)
        return web.Response(
            text=json.dumps({"id": event.get("id")}) if answer.text is None else answer.text,
            content_type=answer.content_type,
            status=answer.status,
            headers=dict(answer.headers),
        )


@contextlib.asynccontextmanager
async def api(folder: Path) -> AsyncIterator[Api]:
    """One that listens."""
    made = Api(folder)
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", made._serve)  # noqa: SLF001  its own handler
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        made.port = runner.addresses[0][1]
        yield made
    finally:
        await runner.cleanup()
