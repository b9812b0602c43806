"""`POST /v1/reload`: all workers read their configuration and their registry sources now."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from aiohttp import web
from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier.model.errors import QueueError
from notifier.model.printable import json_text
from notifier.network.listeners.authorization import Authorization
from notifier.network.listeners.openapi import AnswerDescription
from notifier.network.listeners.operation import ApiOperation, ApiRequest, route_of
from notifier.network.listeners.problem import Refusal, problem
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


@with_config(ConfigDict(extra="forbid"))
class ReloadQuery(TypedDict, total=False):
    """The query of a reload."""

    accept_loss: Annotated[bool, Field(description="Accept that many clients would no longer be notified.")]
    drop: Annotated[str, Field(description="A registry source: drop its answers and cache.")]


def reload_routes(authorization: Authorization, reload: Callable[[Reload], Awaitable[Reloads]]) -> list[web.RouteDef]:
    """Return the route. It needs the scope `repair` and no issuers."""

    @ApiOperation(
        route="POST /v1/reload",
        summary="Have all workers read their configuration and registry sources now.",
        scope="repair",
        unbound=True,
        query=ReloadQuery,
        answers=_ANSWERS,
        problems={503: "The queue cannot be reached."},
    )
    async def post(request: ApiRequest) -> web.Response:
        asked = request.members
        try:
            reloads = await reload(
                Reload(who=request.who, accept_loss=asked.get("accept_loss", False), drop=asked.get("drop"))
            )
        except QueueError:
            title = "The queue is away; try again soon"
            raise Refusal(problem(503, title, headers={"Retry-After": "5"})) from None
        return web.json_response(reloads.document(), dumps=json_text)

    return [route_of(post, authorization)]
