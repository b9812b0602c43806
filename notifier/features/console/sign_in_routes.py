"""Serve `/v1/sign-in`: how operators sign in, and the exchange of the provider's code.

No token is required, since operators have none yet. Nothing here is secret, and anyone could send the same requests to
the provider's token endpoint directly.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from aiohttp import web

from notifier.features.console.sign_in_provider import Endpoints, ExchangeFailure
from notifier.features.console.sign_in_tokens import MAX_SKEW_SECONDS, SignIn, SignInTokens
from notifier.model.errors import InputIssue
from notifier.network.http.issuer_document import DocumentIssue
from notifier.network.listeners.openapi import AnswerDescription, JsonSchema, OperationDescription
from notifier.network.listeners.problem import Refusal, malformed_refusal, problem_response, read_json_object
from notifier.network.listeners.throttle import RequestSlots
from notifier.publishing.route_steps import ApiLimits, media_type, read_body

PATH = "/v1/sign-in"
MAX_SIGN_INS = 32  # per route: slow bodies without a token must not occupy publishers' slots
LIMITS = ApiLimits(body_timeout=5.0)  # seconds
MAX_CONCURRENT_SIGN_INS = 8  # codes: limits the flood of invented codes that reaches the provider
_VISIBLE = re.compile(r"[!-~]{1,4096}")  # codes of Entra ID have 1,500
_MEMBERS = ("code", "code_verifier", "redirect_uri", "nonce")
_TEXT: JsonSchema = {"type": "string", "pattern": f"^{_VISIBLE.pattern}$"}
_OPTIONAL_TEXT: JsonSchema = {"type": ["string", "null"]}
_TOLD: JsonSchema = {
    "type": "object",
    "required": ["oidc"],
    "properties": {
        "oidc": {
            "type": ["object", "null"],
            "required": ["issuer", "client_id", "scope", "authorization_endpoint", "problem"],
            "properties": {
                "issuer": {"type": "string"},
                "client_id": {"type": "string"},
                "scope": {"type": "string"},
                "authorization_endpoint": _OPTIONAL_TEXT,
                "problem": _OPTIONAL_TEXT,
            },
        }
    },
}
_GIVEN: JsonSchema = {"type": "object", "required": list(_MEMBERS), "properties": dict.fromkeys(_MEMBERS, _TEXT)}
_MOMENT: JsonSchema = {"type": "number", "description": "Epoch seconds."}
_TOKEN: JsonSchema = {
    "type": "object",
    "required": ["access_token", "expires_at"],
    "properties": {"access_token": {"type": "string"}, "expires_at": _MOMENT},
}
_GET = OperationDescription(
    summary="Return the provider at which operators sign in with a browser.",
    answers={200: AnswerDescription(text="`oidc` is null: by a token alone.", schema=_TOLD)},
)
_POST = OperationDescription(
    summary="Exchange the code of a sign-in for the access token that the provider gives for it.",
    body={"application/json": _GIVEN},
    answers={200: AnswerDescription(text="The token is one of the API.", schema=_TOKEN)},
    problems={
        400: "The request is malformed, or the provider has refused the code.",
        401: "The token is not accepted, or not that of this sign-in.",
        403: "The user may do nothing here.",
        404: "Nobody signs in by a provider.",
        408: "The body did not come.",
        413: "The body is too large.",
        415: "The body is not JSON.",
        502: "The provider gives no token.",
        503: "Too many sign in at a time, or the provider's keys cannot be read.",
    },
)


class SignInRoutes:
    """The routes. They are served with the console, also without a provider (`signed_in` None)."""

    def __init__(self, signed_in: SignInTokens | None) -> None:
        self._signed_in = signed_in
        self._slots = RequestSlots(2 * MAX_SIGN_INS, MAX_SIGN_INS, "without a token")
        self._room = MAX_CONCURRENT_SIGN_INS

    def routes(self) -> Iterator[web.RouteDef]:
        """Yield the routes that the API serves."""
        yield web.get(PATH, self.get)
        yield web.post(f"{PATH}/token", self.post)

    @_GET
    async def get(self, _request: web.Request) -> web.Response:
        """Return the provider at which operators sign in, or null."""
        if self._signed_in is None:
            return web.json_response({"oidc": None})
        oidc = self._signed_in.oidc
        with self._slots.hold_slot("GET"):
            endpoints = await self._signed_in.provider.endpoints()
        answer = {
            "issuer": oidc.issuer,
            "client_id": oidc.client_id,
            "scope": oidc.scope,
            "authorization_endpoint": endpoints.authorization if isinstance(endpoints, Endpoints) else None,
            "problem": endpoints.text if isinstance(endpoints, DocumentIssue) else None,
        }
        return web.json_response({"oidc": answer})

    @_POST
    async def post(self, request: web.Request) -> web.Response:
        """Exchange a code. The user's permissions are checked, so that the sign-in reports a wrong setting."""
        signed_in = self._signed_in
        if signed_in is None:
            raise Refusal(problem_response(404, "Nobody signs in by a provider here (api.console.oidc)"))
        with self._slots.hold_slot("POST"):
            members = await _parse_body(request)
        with self._reserve_slot():
            tokens = await signed_in.provider.exchange(
                members["code"], members["code_verifier"], members["redirect_uri"]
            )
            if isinstance(tokens, ExchangeFailure):
                raise Refusal(
                    problem_response(400 if tokens.refused else 502, f"The provider gives no token: {tokens.text}")
                )
            sign_in = SignIn(nonce=members["nonce"], code=members["code"], access_token=tokens.access_token)
            await signed_in.refuse_identity(tokens.id_token, sign_in)
            token = await signed_in.authenticate_bearer(tokens.access_token)
        if token is None or token.expires is None:
            raise Refusal(problem_response(401, "The provider's access token is not a JWT (RFC 9068)"))
        return web.json_response({"access_token": tokens.access_token, "expires_at": token.expires - MAX_SKEW_SECONDS})

    @contextmanager
    def _reserve_slot(self) -> Iterator[None]:
        if not self._room:
            raise Refusal(problem_response(503, "Too many sign in at a time; try again", headers={"Retry-After": "1"}))
        self._room -= 1
        try:
            yield
        finally:
            self._room += 1


async def _parse_body(request: web.Request) -> Mapping[str, str]:
    """Return the members of the request. JSON excludes forms of other sites. Raises Refusal (400, 415)."""
    if media_type(request) != "application/json":
        raise Refusal(
            problem_response(415, "The body must be application/json", headers={"Accept": "application/json"})
        )
    await read_body(request, LIMITS)
    body = await read_json_object(request) or {}
    members = {name: text for name, text in body.items() if isinstance(text, str)}
    wrong = [name for name in _MEMBERS if _VISIBLE.fullmatch(members.get(name, "")) is None]
    if wrong:
        raise malformed_refusal(
            *(InputIssue(name, "must be a text of 1 to 4,096 visible ASCII characters") for name in wrong)
        )
    return members
