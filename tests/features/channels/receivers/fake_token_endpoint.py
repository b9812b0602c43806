"""An OAuth token endpoint for client credentials (RFC 6749 §4.4), and the hostile forms of its answer.

A hostile answer either has a token that must be used for a stated time, or none that may be used.
"""

import asyncio
import base64
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from urllib.parse import parse_qsl, unquote_plus

from aiohttp import web

from tests.system.loopback import LoopbackServer

MAX_TOKEN_CHARACTERS = 8 * 1024
MAX_BODY_BYTES = 64 * 1024
DEFAULT_LIFETIME_SECONDS = 60.0
MAX_LIFETIME_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenAnswer:
    """One answer. `text` may contain {token}, {secret} and {trap}, a URL that must not be requested.

    `lifetime_seconds`: how long a client of the endpoint may use the token; None: it must not use any. `hangs`: the
    answer does not come.
    """

    text: str
    status: int = 200
    location: str | None = None
    lifetime_seconds: float | None = None
    hangs: bool = False


def _answer(more: str, lifetime: float | None = None, token: str = '"{token}"', kind: str = '"Bearer"') -> TokenAnswer:
    text = f'{{{{"access_token": {token}, "token_type": {kind}{more}}}}}'
    return TokenAnswer(text=text, lifetime_seconds=lifetime)


_ERROR = '{{"error": "invalid_client", "error_description": "{secret}"}}'
GOOD = _answer(', "expires_in": 600', 600.0)
CLAMPED: Mapping[str, TokenAnswer] = MappingProxyType(
    {
        "lower-case bearer": _answer(', "expires_in": 600', 600.0, kind='"bearer"'),
        "no expires_in": _answer("", DEFAULT_LIFETIME_SECONDS),
        "expires_in NaN": _answer(', "expires_in": NaN', DEFAULT_LIFETIME_SECONDS),
        "expires_in negative": _answer(', "expires_in": -5', DEFAULT_LIFETIME_SECONDS),
        "expires_in text": _answer(', "expires_in": "600"', DEFAULT_LIFETIME_SECONDS),
        "expires_in true": _answer(', "expires_in": true', DEFAULT_LIFETIME_SECONDS),
        "expires_in null": _answer(', "expires_in": null', DEFAULT_LIFETIME_SECONDS),
        "expires_in zero": _answer(', "expires_in": 0', 0.0),
        "expires_in ten years": _answer(', "expires_in": 315360000', MAX_LIFETIME_SECONDS),
        "longest token": _answer("", DEFAULT_LIFETIME_SECONDS, token=f'"{"t" * MAX_TOKEN_CHARACTERS}"'),
    }
)
"""Answers whose token may be used, with the time for which it may."""
UNUSABLE: Mapping[str, TokenAnswer] = MappingProxyType(
    {
        "redirect": TokenAnswer(text="", status=307, location="{trap}"),
        "see other": TokenAnswer(text="", status=303, location="{trap}"),
        "too large": TokenAnswer(text='{{"access_token": "{token}", "token_type": "Bearer"}}' + " " * MAX_BODY_BYTES),
        "no answer": TokenAnswer(text="", hangs=True),
        "no token_type": TokenAnswer(text='{{"access_token": "{token}", "expires_in": 600}}'),
        "token_type DPoP": _answer("", kind='"DPoP"'),
        "token_type list": _answer("", kind='["Bearer"]'),
        "token too long": _answer("", token=f'"{"t" * (MAX_TOKEN_CHARACTERS + 1)}"'),
        "token with a line break": _answer("", token='"a\\r\\nX-Injected: 1"'),
        "token with a space": _answer("", token='"{token} more"'),
        "token with a quote": _answer("", token='"a\\"b"'),
        "token beyond ASCII": _answer("", token='"tökén"'),
        "empty token": _answer("", token='""'),
        "token is a number": _answer("", token="12345"),
        "token is null": _answer("", token="null"),
        "not JSON": TokenAnswer(text="<html>{secret}</html>"),
        "a list": TokenAnswer(text='["{token}"]'),
        "deeply nested": TokenAnswer(text="[" * 20_000),
        "error with status 200": TokenAnswer(text='{{"error": "invalid_client", "error_description": "{secret}"}}'),
        "invalid_client": TokenAnswer(
            text='{{"error": "invalid_client", "error_description": "{secret}"}}', status=401
        ),
        "unavailable": TokenAnswer(text="{secret}", status=503),
        "created": TokenAnswer(text='{{"access_token": "{token}", "token_type": "Bearer"}}', status=201),
    }
)
"""Answers that have no usable token. Some quote the client's secret, which must not appear in any output."""


class FakeTokenEndpoint(LoopbackServer):
    """Issues tokens to one client by HTTP Basic authentication; its `answer` may be one of the hostile ones.

    `issued` has every token with its scope and end. `trapped` counts requests to the URL of a redirect.
    """

    def __init__(
        self, client_id: str, client_secret: str, answer: TokenAnswer = GOOD, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(self._handle)
        self.answer = answer
        self.refusals: list[str] = []
        self.requests = 0
        self.trapped = 0
        self.client_secret = client_secret
        self.issued: dict[str, tuple[str, float]] = {}
        self._client_id = client_id
        self._clock = clock
        self._released = asyncio.Event()

    @property
    def url(self) -> str:
        """Return the address of the token endpoint."""
        return f"{self.base}/token"

    def revoke_all(self) -> None:
        """Invalidate the tokens issued so far."""
        self.issued = dict.fromkeys(self.issued, ("", 0.0))

    def scope_of(self, token: str) -> str | None:
        """Return the scope of a valid token; None for any other."""
        scope, until = self.issued.get(token, ("", 0.0))
        return scope if self._clock() < until else None

    def release(self) -> None:
        """Answer the requests that hang, by the present `answer`."""
        self._released.set()
        self._released = asyncio.Event()

    async def close(self) -> None:
        """Release the requests that hang, and listen no more."""
        self._released.set()
        await super().close()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/trap":
            self.trapped += 1
            return web.Response(status=200)
        self.requests += 1
        self.changed.set()
        form = dict(parse_qsl((await request.read()).decode()))
        if (why := self._refusal(request, form)) is not None:
            self.refusals.append(why)
            return web.json_response({"error": why}, status=401 if why == "invalid_client" else 400)
        if self.answer.hangs:
            await self._released.wait()
        return self._respond(form.get("scope", ""))

    def _refusal(self, request: web.BaseRequest, form: Mapping[str, str]) -> str | None:
        """Return the error code of RFC 6749 §5.2; None for a good request."""
        if request.method != "POST" or request.path != "/token":
            return "invalid_request"
        if request.content_type != "application/x-www-form-urlencoded" or not form.keys() <= {"grant_type", "scope"}:
            return "invalid_request"
        scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
        user, _, password = base64.b64decode(encoded).decode().partition(":") if scheme == "Basic" else ("", "", "")
        if (unquote_plus(user), unquote_plus(password)) != (self._client_id, self.client_secret):
            return "invalid_client"
        return None if form.get("grant_type") == "client_credentials" else "unsupported_grant_type"

    def _respond(self, scope: str) -> web.Response:
        token, answer = f"access-token-{len(self.issued) + 1}", self.answer
        self.issued[token] = (scope, self._clock() + (answer.lifetime_seconds or 600.0))
        values = {"token": token, "secret": self.client_secret, "trap": f"{self.base}/trap"}
        headers = {"Content-Type": "application/json"}
        if answer.location is not None:
            headers["Location"] = answer.location.format(**values)
        return web.Response(status=answer.status, text=answer.text.format(**values), headers=headers)
