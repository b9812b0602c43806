"""`GET /v1/openapi.json`: the API as OpenAPI 3.1, built from the descriptions of the handlers.

A handler is described where it is defined, and the document is built from the routes that the application serves. So
every route below `/v1/` has a description, and every description a route. Pages and files for browsers are omitted.
"""

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar, cast

from aiohttp import typedefs, web

from notifier import RELEASE
from notifier.model.documents.event_document import event_schema
from notifier.model.errors import InputIssue
from notifier.model.nearest import find_nearest_name, format_suggestion
from notifier.model.printable import excerpt
from notifier.network.listeners.problem import PROBLEM_TYPE, Refusal, malformed_refusal, problem_response
from notifier.settings.api_tokens import Scope

JsonSchema = Mapping[str, Any]
Handler = TypeVar("Handler", bound=Callable[..., Any])
PATH = "/v1/openapi.json"
MAX_NAMED_PARAMETERS = 20  # unknown parameters
_COMMON_PROBLEMS = {
    400: "The request is malformed.",
    403: "Without api.tokens_file: the caller is a web page.",
    421: "Without api.tokens_file: Host is not a loopback name.",
    429: "Too many requests at a time.",
}
_DESCRIPTION_KEY = "described"
_WORDS = re.compile(r"[^a-z0-9]+")
_PARAMETER = re.compile(r"\{(\w+)(?::[^{}]*)?\}")

EVENT: JsonSchema = {"$ref": "#/components/schemas/event"}
CLOUDEVENT: JsonSchema = {
    "type": "object",
    "description": "CloudEvents 1.0, structured. Binary ones are application/json with `ce-` headers.",
    "required": ["specversion", "id", "source", "type", "data"],
    "properties": {
        "specversion": {"const": "1.0"},
        "id": {"type": "string", "minLength": 1},
        "source": {"type": "string", "minLength": 1},
        "type": {"type": "string", "minLength": 1},
        "data": EVENT,
    },
}
PROBLEM: JsonSchema = {
    "type": "object",
    "description": "An error (RFC 9457). Its `type` identifies notifier: an answer without it is another server's.",
    "required": ["type", "title", "status"],
    "properties": {
        "type": {"type": "string", "const": PROBLEM_TYPE},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "mistakes": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["path", "text"],
                "properties": {"path": {"type": "string"}, "text": {"type": "string"}},
            },
        },
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerDescription:
    """One status. `schema`: of its JSON body, None for no body; `kind`: the media type; `headers`: meanings by name."""

    text: str
    schema: JsonSchema | None = None
    kind: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationDescription:
    """One operation, as a decorator of its handler. `scope` None: no token is required.

    `query`, `path` and `headers` are schemas by name, `body` by media type; `required` lists the mandatory members of
    the query. A problem need not be among `answers`; its status must be in `problems`. `foreign_query`: another
    standard defines further members of the query. `unbound`: only a token without issuers is accepted. `removed`: the
    document omits it.
    """

    summary: str
    scope: Scope | None = None
    query: Mapping[str, JsonSchema] = field(default_factory=dict)
    path: Mapping[str, JsonSchema] = field(default_factory=dict)
    body: Mapping[str, JsonSchema] = field(default_factory=dict)
    answers: Mapping[int, AnswerDescription] = field(default_factory=dict)
    problems: Mapping[int, str] = field(default_factory=dict)
    required: Collection[str] = ()
    foreign_query: bool = False
    unbound: bool = False
    removed: bool = False

    def __call__(self, handler: Handler) -> Handler:
        """Describe the handler."""
        setattr(handler, _DESCRIPTION_KEY, self)
        return handler


def description_of(handler: Callable[..., Any]) -> OperationDescription | None:
    """Return the description of a handler, if it has one."""
    return getattr(handler, _DESCRIPTION_KEY, None)


def build_openapi(routes: Iterable[web.RouteDef]) -> dict[str, Any]:
    """Return the document for these routes. Raises LookupError for a route below `/v1/` without a description."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        description = description_of(route.handler)
        if description is None and route.path.startswith("/v1/"):
            raise LookupError(f"{route.method} {route.path} has no description")
        if description is None or description.removed:
            continue
        path = _PARAMETER.sub(r"{\1}", route.path)
        operation = _build_operation(description, path)
        operation["operationId"] = (
            f"{route.method.lower()}_{_WORDS.sub('_', path.removeprefix('/v1/').lower()).strip('_')}"
        )
        paths.setdefault(path, {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": "notifier",
            "version": RELEASE,  # answered without a token, so without the commit
            "description": "Delivers OpenID Connect Back-Channel Logout notifications.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "Of api.tokens_file."}},
            "schemas": {"problem": dict(PROBLEM), **_event_schema()},
        },
    }


@web.middleware
async def check_query(request: web.Request, handler: typedefs.Handler) -> web.StreamResponse:
    """Refuse (400) unknown parameters, and repeated single values: a misspelt filter would select everything."""
    description = description_of(request.match_info.handler)
    if description is not None and not description.foreign_query:
        unknown = [name for name in dict.fromkeys(request.query) if name not in description.query]
        if unknown:
            mistakes = [
                InputIssue(excerpt(name), _describe_unknown(name, description.query))
                for name in unknown[:MAX_NAMED_PARAMETERS]
            ]
            raise Refusal(
                problem_response(400, "The request has a parameter that is not known here", mistakes=mistakes)
            )
        once = (name for name, schema in description.query.items() if schema.get("type") != "array")
        if twice := [name for name in once if len(request.query.getall(name, ())) > 1]:
            raise malformed_refusal(*(InputIssue(name, "may be given once only") for name in twice))
    return await handler(request)


def _describe_unknown(name: str, known: Iterable[str]) -> str:
    near = find_nearest_name(name, known)
    if near is not None:
        return f"there is no such parameter; {format_suggestion(near, name)}"
    return f"there is no such parameter; there are {', '.join(known) or 'none'}"


@cache
def _event_schema() -> dict[str, Any]:
    """Return the event's schema, as `notifier schema event` prints it, with the referenced schemas beside it."""
    schema = event_schema()
    parts = cast("dict[str, object]", schema.pop("$defs", {}))
    event = {name: value for name, value in schema.items() if name not in ("$schema", "$id")}
    whole: dict[str, object] = {"event": event, **parts}
    moved: dict[str, Any] = json.loads(json.dumps(whole).replace("#/$defs/", "#/components/schemas/"))
    return moved


def _named_parameters(path: str, schemas: Mapping[str, JsonSchema]) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": dict(schemas.get(name, {"type": "string"}))}
        for name in _PARAMETER.findall(path)
    ]


def _build_operation(description: OperationDescription, path: str) -> dict[str, Any]:
    asked = [
        {"name": name, "in": "query", "required": name in description.required, "schema": dict(schema)}
        for name, schema in description.query.items()
    ]
    operation: dict[str, Any] = {
        "summary": description.summary,
        "parameters": [*_named_parameters(path, description.path), *asked],
        "responses": _build_responses(description),
    }
    if description.scope is not None:
        operation["security"] = [{"token": [description.scope]}]
    if description.body:
        operation["requestBody"] = {
            "required": True,
            "content": {kind: {"schema": dict(schema)} for kind, schema in description.body.items()},
        }
    return operation


def _build_responses(description: OperationDescription) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, answer in description.answers.items():
        response: dict[str, Any] = {"description": answer.text}
        if answer.headers:
            response["headers"] = {
                name: {"description": text, "schema": {"type": "string"}} for name, text in answer.headers.items()
            }
        if answer.schema is not None:
            response["content"] = {answer.kind: {"schema": dict(answer.schema)}}
        responses[str(status)] = response
    problems = dict(_COMMON_PROBLEMS)
    if description.scope is not None:
        issuer_problem = "is bound to issuers" if description.unbound else "the issuer"
        problems |= {
            401: "No token of tokens_file.",
            403: f"The token lacks the scope {description.scope}, or {issuer_problem}.",
        }
    for status, text in sorted({**problems, **description.problems}.items()):
        content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/problem"}}}
        other_content = responses.get(str(status), {}).get("content", {})  # of a response that is not a problem
        responses[str(status)] = {"description": text, "content": {**other_content, **content}}
        if status in (429, 503):
            retry_after = {"description": "Seconds.", "schema": {"type": "string", "pattern": "^[0-9]+$"}}
            responses[str(status)]["headers"] = {"Retry-After": retry_after}
    return responses


def openapi_route(routes: Iterable[web.RouteDef]) -> web.RouteDef:
    """Return the route of the document, which covers itself too. It has no secrets, so it requires no token."""

    @OperationDescription(
        summary="This document.", answers={200: AnswerDescription(text="OpenAPI 3.1.", schema={"type": "object"})}
    )
    async def serve(_request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json", charset="utf-8")

    route = web.get(PATH, serve)
    body = json.dumps(build_openapi([*routes, route])).encode()  # one for all callers that do not read it
    return route
