"""Clients of system tests: one server on loopback for all clients, which keeps every
token and answers as configured.
"""

import base64
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

from tests.support.verifier import verify
from tests.system.loopback import LoopbackServer
from tests.system.waiting import PATIENCE


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One request: where it came, its token and what that claims (not verified yet), and when."""

    path: str
    token: str
    claims: Mapping[str, Any]
    header: Mapping[str, Any]
    at: float
    nth: int

    @property
    def who(self) -> str:
        """The session, or the user where there is none."""
        return str(self.claims.get("sid") or self.claims.get("sub"))


Answer = int | web.Response
Judge = Callable[[Hit], Answer | Awaitable[Answer]]


def always(_hit: Hit) -> int:
    """A healthy client."""
    return 200


class Clients(LoopbackServer):
    """The server. `judge` returns the answer to a request; `hit.nth` counts those of one session at one path.

    `opens` decrypts the body for a path; if it returns None, the answer is 400 and there is no hit.
    """

    def __init__(self, judge: Judge = always) -> None:
        super().__init__(self._handle)
        self.hits: list[Hit] = []
        self.judge = judge
        self.opens: Callable[[str, str], str | None] = lambda _path, token: token
        # By path and session: which of the requests was the first that was answered with a success.
        self.accepted: dict[tuple[str, str], int] = {}
        self._counts: Counter[tuple[str, str, str]] = Counter()

    def url(self, path: str) -> str:
        """The `backchannel_logout_uri` of one client."""
        return f"{self.base}/{path}"

    def at(self, path: str) -> list[Hit]:
        """Return the requests to one client, in order."""
        return [hit for hit in self.hits if hit.path == f"/{path}"]

    def notified(self, path: str) -> list[str]:
        """Return the sessions that one client was notified of, in order."""
        return [hit.who for hit in self.at(path)]

    async def until(self, condition: Callable[[], bool], patience: float = PATIENCE) -> None:
        """Return once the condition holds. It is looked at after each request and each success."""
        try:
            await super().until(condition, patience)
        except TimeoutError:
            counts = Counter(hit.path for hit in self.hits)
            raise AssertionError(f"waited {patience} s; received so far: {counts.most_common(10)}") from None

    async def until_notified(self, path: str, sessions: Collection[str], patience: float = PATIENCE) -> None:
        """Return once the client has been notified of all these sessions."""
        missing = set(sessions)
        seen = 0

        def complete() -> bool:
            nonlocal seen
            missing.difference_update(hit.who for hit in self.hits[seen:] if hit.path == f"/{path}")
            seen = len(self.hits)
            return not missing

        await self.until(complete, patience)

    def hang_up(self) -> None:
        """Close every connection, as a server does with idle ones."""
        for connection in self._server.connections:
            connection.force_close()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "GET":  # by front-channel: there is no token
            return await self._take(request, "", {}, dict(request.query))
        body = (await request.read()).decode()
        if request.content_type != "application/x-www-form-urlencoded":
            return await self._take(request, *_pushed(request.headers.get("Authorization"), body))
        [(name, sent)] = parse_qsl(body, keep_blank_values=True)
        assert name == "logout_token"
        if (token := self.opens(request.path.removeprefix("/"), sent)) is None:
            return web.Response(status=400)
        header, claims = (_decoded(part) for part in token.split(".")[:2])
        return await self._take(request, token, header, claims)

    async def _take(
        self, request: web.BaseRequest, token: str, header: Mapping[str, Any], claims: Mapping[str, Any]
    ) -> web.StreamResponse:
        who = str(claims.get("sid") or claims.get("sub"))
        key = (request.path, claims["iss"], who)
        self._counts[key] += 1
        hit = Hit(path=request.path, token=token, claims=claims, header=header, at=time.time(), nth=self._counts[key])
        self.hits.append(hit)
        self.changed.set()
        answer = self.judge(hit)
        if isinstance(answer, Awaitable):
            answer = await answer
        response = web.Response(status=answer) if isinstance(answer, int) else answer
        if response.status < 300:
            self.accepted.setdefault((hit.path, hit.who), hit.nth)
            self.changed.set()
        return response


def _pushed(proof: str | None, body: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return the token of a security event, or of a revocation's proof, its header and its claims.

    Their `sub` is the user's, and `client_id` what a proof has there.
    """
    token = body if proof is None else proof.removeprefix("Bearer ")
    header, claims = (_decoded(part) for part in token.split(".")[:2])
    user = claims["sub_id"]["user"] if proof is None else json.loads(body)["sub_id"]
    return token, header, claims | {"sub": user["sub"], "client_id": claims.get("sub")}


def _decoded(part: str) -> dict[str, Any]:
    return dict(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))))


def verify_all(hits: Sequence[Hit], jwks: Callable[[str], Mapping[str, Sequence[Mapping[str, Any]]]]) -> None:
    """Every token is valid for the client at whose path it came (named as the client), and no `jti` came twice (R2)."""
    for hit in hits:
        iss = hit.claims["iss"]
        verify(hit.token, jwks(iss), iss=iss, aud=hit.path.removeprefix("/"), now=hit.at)
    jtis = Counter(hit.claims["jti"] for hit in hits)
    assert [jti for jti, count in jtis.items() if count > 1] == []
