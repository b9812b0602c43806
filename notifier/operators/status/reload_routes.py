"""`POST /v1/reload`: all workers read their configuration and their registry sources now."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from notifier.model.errors import Mistake, QueueError
from notifier.model.printable import json_text
from notifier.network.listeners.authorization import Authorization, caller
from notifier.network.listeners.openapi import AnswerDescription, OperationDescription
from notifier.network.listeners.problem import Refusal, malformed, problem
from notifier.operators.status.reload_request import Reload, Reloads

_ANSWERS = {
    200: AnswerDescription(
        text="What each worker did. `taken` is true if all of them have the new configuration and registry.",
        schema={
            "type": "object",
            "required": ["taken", "workers"],
            "properties": {"taken": {"type": "boolean"}, "workers": {"type": "object"}},
        },
    )
}


_BOOL = {"true": True, "false": False}


def reload_routes(authorization: Authorization, reload: Callable[[Reload], Awaitable[Reloads]]) -> list[web.RouteDef]:
    """Return the route. It needs the scope `repair` and no issuers."""

    @OperationDescription(
        summary="Have all workers read their configuration and registry sources now.",
        scope="repair",
        unbound=True,
        query={
            "accept_loss": {"type": "string", "enum": list(_BOOL), "default": "false"},
            "drop": {"type": "string", "description": "A registry source: drop its answers and cache."},
        },
        answers=_ANSWERS,
        problems={400: "accept_loss is neither true nor false.", 503: "The queue cannot be reached."},
    )
    async def post(request: web.Request) -> web.Response:
        token = authorization.require(request)
        try:
            asked = Reload(who=caller(token), accept_loss=_accepts_loss(request), drop=request.query.get("drop"))
            reloads = await reload(asked)
        except QueueError:
            title = "The queue is away; try again soon"
            raise Refusal(problem(503, title, headers={"Retry-After": "5"})) from None
        return web.json_response(reloads.document(), dumps=json_text)

    return [web.post("/v1/reload", post)]


def _accepts_loss(request: web.Request) -> bool:
    """True if the caller accepts that many clients could no longer be told. Raises Refusal: 400."""
    accept = _BOOL.get(request.query.get("accept_loss", "false") or "true")  # `?accept_loss`
    if accept is None:
        raise malformed(Mistake("accept_loss", "must be true or false"))
    return accept
