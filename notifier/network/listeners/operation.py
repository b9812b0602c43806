"""Declares an operation of the API once: its route, its description, and the checks before its handler runs.

The handler runs only for a token with the declared scope, and only if the members of the query or the body conform to
the declared TypedDict.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Annotated, Any, NotRequired, TypeAlias, TypeVar, cast, get_args, get_origin
from weakref import WeakValueDictionary

from aiohttp import web
from pydantic import Field, TypeAdapter, ValidationError

from notifier.model.errors import InputIssue
from notifier.model.printable import json_text
from notifier.model.shared_resources import shared_lock
from notifier.model.validation import to_issues
from notifier.network.listeners.authorization import Authorization, name_of_caller, permits_issuer
from notifier.network.listeners.openapi import AnswerDescription, JsonSchema, OperationDescription
from notifier.network.listeners.problem import Refusal, malformed_refusal, problem_response, read_json_object
from notifier.settings.api_tokens import ApiToken, Scope

Document: TypeAlias = dict[str, Any]
Items: TypeAlias = list[Document]
Counts: TypeAlias = dict[str, int]
MomentText: TypeAlias = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
BODY_PROBLEMS = {
    408: "The body did not come.",
    413: "The body is too large.",
    415: "The body is not application/json.",
}
_DECLARED = "declared"

T = TypeVar("T")
Method = TypeVar("Method", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiRequest:
    """An authorized request. `members`: those of its query or body, as declared. `path`: the parameters of its path."""

    http: web.Request
    token: ApiToken | None
    members: Mapping[str, Any]
    path: Mapping[str, str]

    @property
    def who(self) -> str:
        """The name of the caller, for the audit."""
        return name_of_caller(self.token)

    @property
    def issuers(self) -> frozenset[str] | None:
        """The issuers that the token covers; None for all."""
        return None if self.token is None else self.token.issuers

    def require_issuer(self, iss: str) -> None:
        """Raise Refusal (403) unless the token covers this issuer."""
        if not permits_issuer(self.token, iss):
            raise Refusal(problem_response(403, "The token does not cover this issuer"))


class CallerTurns:
    """Lets the requests of each caller follow each other, so that one of them at most waits for those of others."""

    def __init__(self) -> None:
        self._locks = WeakValueDictionary[str, Any]()  # by the name of the caller

    @asynccontextmanager
    async def turn(self, request: ApiRequest) -> AsyncIterator[None]:
        """Wait for the caller's earlier requests, and let its later ones wait for the block."""
        lock = self._locks.get(request.who) or self._locks.setdefault(request.who, shared_lock())
        async with lock:
            yield


ApiAnswer: TypeAlias = web.StreamResponse | Document
"""A response, or the JSON of a response with the lowest declared status."""
ApiHandler: TypeAlias = Callable[[ApiRequest], Awaitable[ApiAnswer]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiOperation:
    """One operation, as a decorator of its handler. `route`: method and path.

    `query` or `body`: the TypedDict of its members. For the other fields see OperationDescription.
    """

    route: str
    summary: str
    scope: Scope
    query: type | None = None
    body: type | None = None
    answers: Mapping[int, AnswerDescription]
    problems: Mapping[int, str] = field(default_factory=dict)
    unbound: bool = False

    def __call__(self, handler: Method) -> Method:
        """Declare the handler."""
        setattr(handler, _DECLARED, self)
        return handler


def routes_of(holder: object, authorization: Authorization) -> list[web.RouteDef]:
    """Return the routes of the declared methods of an object, in order of declaration."""
    methods = [name for name, method in vars(type(holder)).items() if hasattr(method, _DECLARED)]
    return [_route_of(getattr(holder, name), authorization) for name in methods]


def _route_of(handler: ApiHandler, authorization: Authorization) -> web.RouteDef:
    """Return the route of a declared handler."""
    operation: ApiOperation = getattr(handler, _DECLARED)
    adapter, schema = _adapter_of(operation.query or operation.body or dict)
    query = schema if operation.query else {}
    body = {"application/json": schema} if operation.body else {}

    @OperationDescription(
        summary=operation.summary,
        scope=operation.scope,
        query=query.get("properties", {}),
        required=query.get("required", ()),
        body=body,
        answers=operation.answers,
        problems={**operation.problems, **(BODY_PROBLEMS if body else {})},
        unbound=operation.unbound,
    )
    async def serve(http: web.Request) -> web.StreamResponse:
        token = authorization.require(http)
        members: Mapping[str, Any] = {}
        if query:
            members = _validate(adapter.validate_python, _read_query_members(http, query["properties"]))
        elif body:
            # Strict JSON accepts strings as reasons, but not "5" as a number.
            members = _validate(partial(adapter.validate_json, strict=True), json.dumps(await _read_body_members(http)))
        answer = await handler(ApiRequest(http=http, token=token, members=members, path=http.match_info))
        if isinstance(answer, dict):
            return web.json_response(answer, status=min(operation.answers), dumps=json_text)
        return answer

    method, _, path = operation.route.partition(" ")
    return web.RouteDef(method, path, serve, {})


def to_answer(text: str, /, **members: Any) -> AnswerDescription:
    """Describe a response: a JSON object with members of these types, of which those NotRequired may be absent."""
    optional = {name for name, kind in members.items() if get_origin(kind) is NotRequired}
    kinds = {name: get_args(kind)[0] if name in optional else kind for name, kind in members.items()}
    schemas = {name: _adapter_of(kind)[1] for name, kind in kinds.items()}
    required = [name for name in members if name not in optional]
    return AnswerDescription(text=text, schema={"type": "object", "required": required, "properties": schemas})


@cache
def _adapter_of(kind: Any) -> tuple[TypeAdapter[Any], dict[str, Any]]:
    """Return the validator of a type and its schema, with all references resolved."""
    adapter = TypeAdapter[Any](kind)
    schema = adapter.json_schema()
    parts = schema.pop("$defs", {})
    text = json.dumps(schema)
    for name, part in parts.items():
        text = text.replace(f'{{"$ref": "#/$defs/{name}"}}', json.dumps(part))
    return adapter, json.loads(text)


def _read_query_members(request: web.Request, schemas: Mapping[str, JsonSchema]) -> dict[str, object]:
    members: dict[str, object] = {}
    for name in request.query:
        values, kind = request.query.getall(name), schemas.get(name, {}).get("type")
        members[name] = values if kind == "array" else values[-1]
        if values[-1] == "" and kind == "boolean":
            members[name] = True  # `?dry_run`
    return members


async def _read_body_members(request: web.Request) -> dict[str, Any]:
    if request.content_type != "application/json":
        raise Refusal(
            problem_response(415, "The body must be application/json", headers={"Accept": "application/json"})
        )
    content = await read_json_object(request)
    if content is None:
        raise malformed_refusal(InputIssue("", 'must be a JSON object, such as {"client_id": "shop"}'))
    return content


def _validate(validate: Callable[[T], Any], content: T) -> dict[str, Any]:
    try:
        return cast("dict[str, Any]", validate(content))
    except ValidationError as error:
        raise malformed_refusal(*to_issues(error)) from None
