"""`GET /v1/registry` and `POST /v1/registry/refresh`: the registry sources of this worker, and a reading now."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from aiohttp import web

from notifier.configuration.clients.registry_refresh import SourceState
from notifier.model.errors import Mistake
from notifier.network.listeners.authorization import Authorization, caller, concerns_all
from notifier.network.listeners.openapi import AnswerDescription, JsonSchema, OperationDescription
from notifier.network.listeners.problem import malformed

_ANSWERS = {
    200: AnswerDescription(
        text="How each source fares.",
        schema={
            "type": "object",
            "required": ["sources"],
            "properties": {"sources": {"type": "array", "items": {"type": "object"}}},
        },
    )
}
_BOOL = {"true": True, "false": False}
ACCEPT_LOSS: Mapping[str, JsonSchema] = {"accept_loss": {"type": "string", "enum": list(_BOOL), "default": "false"}}


class Refresh(Protocol):
    """The registry sources of this worker."""

    def states(self) -> Sequence[SourceState]:
        """Return the state of each."""

    async def refresh(self, *, accepted_by: str | None) -> Sequence[SourceState]:
        """Read all now. `accepted_by`: who accepts a loss of clients."""


def registry_routes(authorization: Authorization, sources: Refresh) -> list[web.RouteDef]:
    """Return the routes. Looking needs the scope `read`, a refresh `repair` and no issuers.

    A token with issuers sees no clients.
    """

    @OperationDescription(summary="Tell how the registry sources of this worker fare.", scope="read", answers=_ANSWERS)
    async def get(request: web.Request) -> web.Response:
        token = authorization.require(request, "read")
        return _answer(sources.states(), whole=concerns_all(token))

    @OperationDescription(
        summary="Read all registry sources of this worker now.",
        scope="repair",
        query=ACCEPT_LOSS,
        answers=_ANSWERS,
        problems={400: "accept_loss is neither true nor false."},
    )
    async def post(request: web.Request) -> web.Response:
        token = authorization.require_unbound(request, "repair")
        return _answer(await sources.refresh(accepted_by=caller(token) if accepts_loss(request) else None), whole=True)

    return [web.get("/v1/registry", get), web.post("/v1/registry/refresh", post)]


def accepts_loss(request: web.Request) -> bool:
    """True if the caller accepts that many clients could no longer be told. Raises Refusal: 400."""
    accept = _BOOL.get(request.query.get("accept_loss", "false") or "true")  # `?accept_loss`
    if accept is None:
        raise malformed(Mistake("accept_loss", "must be true or false"))
    return accept


def _answer(states: Sequence[SourceState], *, whole: bool) -> web.Response:
    return web.json_response({"sources": [state.document(whole=whole) for state in states]})
