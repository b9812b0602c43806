"""`GET` and `PUT /v1/log-level`: shows and changes the level of this worker's log, without a restart."""

from aiohttp import web

from notifier.model.errors import Mistake
from notifier.network.listeners.authorization import Authorization
from notifier.network.listeners.json_body import json_object
from notifier.network.listeners.openapi import AnswerDescription, JsonSchema, OperationDescription
from notifier.network.listeners.problem import malformed
from notifier.telemetry.log_level import LogLevel

LEVELS = ("debug", "info", "warning", "error")
_LEVEL: JsonSchema = {"type": "string", "enum": list(LEVELS)}
_WANTED: JsonSchema = {"type": "object", "required": ["level"], "properties": {"level": _LEVEL}}
_TOLD: JsonSchema = {
    "type": "object",
    "required": ["level", "configured"],
    "properties": {"level": {"type": "string"}, "configured": {"type": "string"}},
}
_ANSWERS = {200: AnswerDescription(text="As it is now, and as it is again after a restart.", schema=_TOLD)}


def log_level_routes(authorization: Authorization, level: LogLevel) -> list[web.RouteDef]:
    """Return the routes. Looking needs the scope `read`, a change `repair` and no issuers: it is for all."""

    @OperationDescription(summary="Tell what this worker logs.", scope="read", answers=_ANSWERS)
    async def get(request: web.Request) -> web.Response:
        authorization.require(request)
        return _answer(level)

    @OperationDescription(
        summary="Change what this worker logs, until it ends.",
        scope="repair",
        unbound=True,
        body={"application/json": _WANTED},
        answers=_ANSWERS,
        problems={
            400: "No such level.",
            408: "The body did not come.",
            413: "The body is too large.",
        },
    )
    async def put(request: web.Request) -> web.Response:
        token = authorization.require(request)
        level.set(await _wanted(request), by="the API" if token is None else token.name)
        return _answer(level)

    return [web.get("/v1/log-level", get), web.put("/v1/log-level", put)]


def _answer(level: LogLevel) -> web.Response:
    return web.json_response({"level": level.now, "configured": level.configured})


async def _wanted(request: web.Request) -> str:
    body = await json_object(request)
    wanted = None if body is None else body.get("level")
    if wanted not in LEVELS:
        raise malformed(Mistake("level", f'must be one of {", ".join(LEVELS)}: {{"level": "debug"}}'))
    return str(wanted)
