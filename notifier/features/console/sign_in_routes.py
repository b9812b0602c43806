"""Serve `/v1/sign-in`: the provider at which operators sign in, and the exchange of its code for an access token.

The routes require no token, since an operator has none before the sign-in. The responses to a request without a valid
code contain no secrets, and anyone can send a code to the provider's token endpoint directly.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated

from aiohttp import web
from pydantic import Field
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier.features.console.sign_in_provider import Endpoints, ExchangeFailure
from notifier.features.console.sign_in_tokens import MAX_SKEW_SECONDS, SignIn, SignInTokens
from notifier.model.errors import InputIssue
from notifier.model.shared_resources import shared_bound
from notifier.network.http.issuer_document import DocumentIssue
from notifier.network.listeners.openapi import JsonSchema, OperationDescription
from notifier.network.listeners.operation import to_answer
from notifier.network.listeners.problem import Refusal, malformed_refusal, problem_response, read_json_object
from notifier.network.listeners.throttle import RequestSlots
from notifier.publishing.route_steps import ApiLimits, media_type, read_body

PATH = "/v1/sign-in"
MAX_REQUESTS_PER_ROUTE = shared_bound(32)  # at a time: slow strangers do not occupy the slots of publishers
LIMITS = ApiLimits(body_timeout=5.0)  # seconds
MAX_EXCHANGES = shared_bound(8)  # at a time: limits the requests that a flood of invented codes causes at the provider
_VISIBLE = re.compile(r"[!-~]{1,4096}")  # visible ASCII; codes of Entra ID have 1,500 characters
_MEMBERS = ("code", "code_verifier", "redirect_uri", "nonce")
_TEXT: JsonSchema = {"type": "string", "pattern": f"^{_VISIBLE.pattern}$"}
_CODE_SCHEMA: JsonSchema = {"type": "object", "required": list(_MEMBERS), "properties": dict.fromkeys(_MEMBERS, _TEXT)}


class ProviderDocument(TypedDict):
    """The provider, as the sign-in page needs it. `problem`: why nobody can sign in now."""

    issuer: str
    client_id: str
    scope: str
    authorization_endpoint: str | None
    problem: str | None


_GET = OperationDescription(
    summary="Return the provider at which operators sign in with a browser.",
    answers={200: to_answer("`oidc` is null: by a token alone.", oidc=ProviderDocument | None)},
)
_POST = OperationDescription(
    summary="Exchange the code of a sign-in for the access token that the provider gives for it.",
    body={"application/json": _CODE_SCHEMA},
    answers={
        200: to_answer(
            "The token is one of the API.",
            access_token=str,
            expires_at=Annotated[float, Field(description="Epoch seconds.")],
        )
    },
    problems={
        400: "The request is malformed, or the provider has refused the code.",
        401: "The token is not accepted, or not that of this sign-in.",
        403: "The user may do nothing here.",
        404: "Nobody signs in by a provider.",
        408: "The body did not come.",
        413: "The body is too large.",
        415: "The body is not JSON.",
        502: "The provider gives no token.",
        503: "Too many sign-ins at a time, or the provider's keys cannot be read.",
    },
)


class SignInRoutes:
    """The routes of a sign-in. `tokens`: None without a provider, which the GET reports."""

    def __init__(self, tokens: SignInTokens | None) -> None:
        self._tokens = tokens
        self._slots = RequestSlots(2 * MAX_REQUESTS_PER_ROUTE, MAX_REQUESTS_PER_ROUTE, "without a token")
        self._free_exchanges = MAX_EXCHANGES

    def routes(self) -> Iterator[web.RouteDef]:
        """Yield the routes that the API serves."""
        yield web.get(PATH, self.get)
        yield web.post(f"{PATH}/token", self.post)

    @_GET
    async def get(self, _request: web.Request) -> web.Response:
        """Return the provider, or null. A problem with the provider is part of the response."""
        if self._tokens is None:
            return web.json_response({"oidc": None})
        oidc = self._tokens.oidc
        with self._slots.hold_slot("GET"):
            endpoints = await self._tokens.provider.endpoints()
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
        """Exchange a code for an access token. Verify it as the API will, so that the sign-in reports an error."""
        sign_in_tokens = self._tokens
        if sign_in_tokens is None:
            raise Refusal(problem_response(404, "Nobody signs in by a provider here (api.console.oidc)"))
        with self._slots.hold_slot("POST"):
            members = await _parse_body(request)
        with self._reserve_exchange():
            exchanged = await sign_in_tokens.provider.exchange(
                members["code"], members["code_verifier"], members["redirect_uri"]
            )
            if isinstance(exchanged, ExchangeFailure):
                status = 400 if exchanged.refused else 502
                raise Refusal(problem_response(status, f"The provider gives no token: {exchanged.text}"))
            sign_in = SignIn(nonce=members["nonce"], code=members["code"], access_token=exchanged.access_token)
            await sign_in_tokens.check_id_token(exchanged.id_token, sign_in)
            token = await sign_in_tokens.authenticate_bearer(exchanged.access_token)
        if token is None or token.expires is None:
            raise Refusal(problem_response(401, "The provider's access token is not a JWT (RFC 9068)"))
        expires_at = token.expires - MAX_SKEW_SECONDS  # `expires` has this margin for the provider's clock
        return web.json_response({"access_token": exchanged.access_token, "expires_at": expires_at})

    @contextmanager
    def _reserve_exchange(self) -> Iterator[None]:
        """Limit the concurrent exchanges. Raises Refusal (503) if there are too many."""
        if not self._free_exchanges:
            raise Refusal(problem_response(503, "Too many sign-ins at a time; try again", headers={"Retry-After": "1"}))
        self._free_exchanges -= 1
        try:
            yield
        finally:
            self._free_exchanges += 1


async def _parse_body(request: web.Request) -> Mapping[str, str]:
    """Return the texts in the body of a request. Raises Refusal (400, 415).

    Other media types than JSON are refused: the form of another site can send them without a preflight request.
    """
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
