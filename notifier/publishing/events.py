"""`POST /v1/events`: takes events over HTTP, from servers that speak no AMQP. 202 means that the event is durable."""

from collections.abc import Iterable, Mapping

from aiohttp import web

from notifier.network.listeners.authorization import Authorization, JudgeBearer, judge_others
from notifier.network.listeners.openapi import AnswerDescription, OperationDescription, known_query, openapi_route
from notifier.network.listeners.problem import private, problems
from notifier.network.listeners.throttle import Throttle
from notifier.publishing.event_requests import BODY, EVENT_ID, NOTE, PROBLEMS, QUERY, EventRequests
from notifier.publishing.route_steps import BODY_LATER

_NOTICES: Mapping[str, object] = {
    "type": "object",
    "required": ["id", "complete", "clients"],
    "properties": {
        "id": {"type": "string"},
        "complete": {"type": "boolean"},
        "clients": {"type": "array", "items": {"type": "object"}},
        "note": NOTE,
    },
}
_POST_EVENT = OperationDescription(
    summary="Publish one event: a session ended. The answer says that it is durable.",
    scope="publish",
    query=QUERY,
    body=BODY,
    answers={
        200: AnswerDescription(text="With wait: every client has its last notice.", schema=_NOTICES),
        202: AnswerDescription(
            text="The event is durable. With wait: what has become of it so far.",
            schema={"type": "object", "required": ["id"], "properties": {"id": EVENT_ID, "note": NOTE}},
        ),
    },
    problems=PROBLEMS,
)


def api_app(
    requests: EventRequests, more: Iterable[web.RouteDef] = (), judge: JudgeBearer | None = None
) -> web.Application:
    """Return the application. The routes of `more` share its limits; each authorises for itself.

    `judge` knows bearer tokens beside those of the tokens file.
    """
    tokens, limits = requests.sources.tokens, requests.limits
    throttle = Throttle(tokens, limits.requests, limits.requests_of_token, limits.body_timeout + BODY_LATER)
    others = () if judge is None else (judge_others(tokens, judge),)
    guards = [problems, Authorization(tokens).local, *others, throttle.middleware, known_query]

    @_POST_EVENT
    async def post_event(request: web.Request) -> web.Response:
        return await requests.take(request)

    app = web.Application(client_max_size=limits.max_event, middlewares=guards)
    routes = [web.post("/v1/events", post_event), *more]
    app.add_routes([*routes, openapi_route(routes)])
    app.on_response_prepare.append(private)
    return app
