"""A fake of notifier's HTTP API, with scripted answers."""

import asyncio
import contextlib
import json
import secrets
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web


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
    """The answer to the next request. `hangs`: no answer until the caller disconnects."""

    status: int = 202
    text: str = "{}"
    headers: Mapping[str, str] = field(default_factory=dict)
    hangs: bool = False


class Api:
    """See the module. Made by `api`. Requests take their answers from `script`; 202 when it is empty."""

    def __init__(self, folder: Path) -> None:
        self.token = f"token-{secrets.token_hex(16)}"
        self.secret_file = folder / "api-token"
        self.secret_file.write_text(f"{self.token}\n")
        self.script: deque[Answer] = deque()
        self.asked: list[Asked] = []
        self.port = 0

    @property
    def url(self) -> str:
        """Return the address and the secret file for the publisher."""
        return f"http://127.0.0.1:{self.port}"

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(
            Asked(
                path=request.path,
                lane=request.query.get("lane", "events"),
                token=request.headers.get("Authorization", "").removeprefix("Bearer "),
                content_type=request.content_type,
                event=dict(json.loads(await request.read() or b"{}")),
                at=asyncio.get_running_loop().time(),
            )
        )
        answer = self.script.popleft() if self.script else Answer()
        if answer.hangs:
            await asyncio.sleep(3600)
        return web.Response(
            text=answer.text, content_type="application/json", status=answer.status, headers=dict(answer.headers)
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
