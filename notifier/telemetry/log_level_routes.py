"""`GET` and `PUT /v1/log-level`: shows and changes the level of this worker's log, without a restart."""

from typing import Literal, get_args

from aiohttp import web
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier.network.listeners.authorization import Authorization
from notifier.network.listeners.operation import ApiOperation, ApiRequest, answer_of, route_of
from notifier.telemetry.log_level import LogLevel

Level = Literal["debug", "info", "warning", "error"]
LEVELS: tuple[Level, ...] = get_args(Level)
_ANSWERS = {200: answer_of("As it is now, and as it is again after a restart.", level=str, configured=str)}


class LevelMembers(TypedDict):
    """The body of a change."""

    level: Level


def log_level_routes(authorization: Authorization, level: LogLevel) -> list[web.RouteDef]:
    """Return the routes. A change concerns all issuers, so it needs a token without issuers."""

    def answer() -> web.Response:
        return web.json_response({"level": level.now, "configured": level.configured})

    @ApiOperation(route="GET /v1/log-level", summary="Tell what this worker logs.", scope="read", answers=_ANSWERS)
    async def get(_request: ApiRequest) -> web.Response:
        return answer()

    @ApiOperation(
        route="PUT /v1/log-level",
        summary="Change what this worker logs, until it ends.",
        scope="repair",
        unbound=True,
        body=LevelMembers,
        answers=_ANSWERS,
        problems={400: "No such level."},
    )
    async def put(request: ApiRequest) -> web.Response:
        level.set(request.members["level"], by=request.who)
        return answer()

    return [route_of(get, authorization), route_of(put, authorization)]
