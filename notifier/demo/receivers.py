"""Sample clients that verify logout tokens, in one process, each on its own loopback port.

`healthy` answers 204, `slow` answers 204 after a pause, `flaky` answers 503 to every other POST, `down` always answers
503, `rejecting` always answers 400, and `dead` does not listen. Each stores its sessions and records every POST.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from aiohttp import web

from notifier.demo.token_check import InvalidToken, TokenCheck, VerifiedToken
from notifier.model.moment import Clock

PATH = "/backchannel-logout"
LOOPBACK = "127.0.0.1"
MAX_SESSIONS = 10_000  # per client: the memory of a process that runs for weeks is bounded


class Behaviour(StrEnum):
    """The behaviour of a sample client."""

    HEALTHY = "healthy"
    SLOW = "slow"
    FLAKY = "flaky"
    DOWN = "down"
    REJECTING = "rejecting"
    DEAD = "dead"


SAMPLE_BEHAVIOURS: Mapping[str, Behaviour] = {
    "shop": Behaviour.HEALTHY,
    "reports": Behaviour.SLOW,
    "forum": Behaviour.FLAKY,
    "payroll": Behaviour.REJECTING,
    "museum": Behaviour.DEAD,
}


@dataclass(slots=True)
class SessionRecord:
    """How many requests a client accepted for one session, and when the first of them ended it (epoch seconds)."""

    accepted: int = 0
    logged_out_at: float | None = None


class Receiver:
    """One sample client: its behaviour, its open sessions, and its record of requests.

    `place`: the address to listen on; port 0 selects a free port. `kind` may change while it listens.
    """

    def __init__(
        self,
        *,
        client_id: str,
        kind: Behaviour,
        check: TokenCheck,
        clock: Clock,
        pause: float,
        place: tuple[str, int] = (LOOPBACK, 0),
    ) -> None:
        self.client_id = client_id
        self.kind = kind
        self.backchannel_logout_uri = ""
        self.sessions: set[str] = set()
        self.session_records: dict[str, SessionRecord] = {}
        self.invalid: list[str] = []
        self._posts = 0
        self._check = check
        self._clock = clock
        self._pause = pause
        self._place = place

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[None]:
        """Bind the port for the block and answer requests. A dead client only binds it, and refuses connections."""
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(self._place)
            host, port = listener.getsockname()
            self.backchannel_logout_uri = f"http://{host}:{port}{PATH}"
            if self.kind is Behaviour.DEAD:  # a bound port without a listener refuses connections
                yield
                return
            app = web.Application()
            app.router.add_post(PATH, self._handle)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
            await runner.setup()
            try:
                await web.SockSite(runner, listener).start()
                yield
            finally:
                await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.Response:
        """Verify the token of the request. Answer 400 if it is invalid, otherwise by this client's behaviour."""
        form = await request.post()
        fields = form.getall("logout_token", [])
        if request.content_type != "application/x-www-form-urlencoded" or len(fields) != 1:
            return self._reject("not a form with exactly one logout_token (B19, R9)")
        match self._check.verify(str(fields[0])):
            case InvalidToken(reason=reason):
                return self._reject(reason)
            case VerifiedToken() as token:
                return await self._answer(token)

    def _reject(self, reason: str) -> web.Response:
        self.invalid.append(reason)
        return _json_answer(400, error="invalid_request", error_description=reason)

    async def _answer(self, token: VerifiedToken) -> web.Response:
        """Return the answer of this client's behaviour to a valid token, and end the session if it is a success."""
        session = token.sid or token.sub
        self._posts += 1
        record = self.session_records.setdefault(session, SessionRecord())
        if len(self.session_records) > MAX_SESSIONS:
            del self.session_records[next(iter(self.session_records))]
        if self.kind is Behaviour.SLOW:
            await asyncio.sleep(self._pause)
        if self.kind is Behaviour.REJECTING:
            return _json_answer(400, error="application_error", error_description="the session store is read-only")
        if self.kind is Behaviour.DOWN or (self.kind is Behaviour.FLAKY and self._posts % 2):
            return _json_answer(503, error="temporarily_unavailable")
        record.accepted += 1
        record.logged_out_at = record.logged_out_at or self._clock()
        self.sessions.discard(session)
        return web.Response(status=204, headers={"Cache-Control": "no-store"})


@asynccontextmanager
async def sample_receivers(
    *,
    iss: str,
    jwks: Mapping[str, Any],
    clock: Clock,
    pause: float = 0.6,
    behaviours: Mapping[str, Behaviour] = SAMPLE_BEHAVIOURS,
) -> AsyncIterator[Mapping[str, Receiver]]:
    """Run these clients for the block, and yield them by client_id. `pause`: the slow client's seconds."""
    async with AsyncExitStack() as stack:
        receivers: dict[str, Receiver] = {}
        for client_id, kind in behaviours.items():
            check = TokenCheck(iss=iss, client_id=client_id, alg="RS256", jwks=jwks, clock=clock)
            receiver = Receiver(client_id=client_id, kind=kind, check=check, clock=clock, pause=pause)
            receivers[client_id] = receiver
            await stack.enter_async_context(receiver.listen())
        yield receivers


def _json_answer(status: int, **body: str) -> web.Response:
    return web.json_response(body, status=status, headers={"Cache-Control": "no-store"})
