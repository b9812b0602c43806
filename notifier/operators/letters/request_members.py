"""Reads the members of requests about dead letters and what waits, in a query or a body, and describes them."""

import json
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Annotated, Any, TypeVar, cast

from aiohttp import web
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier.model.errors import Mistake
from notifier.model.validation import mistakes_of
from notifier.network.listeners.json_body import json_object
from notifier.network.listeners.problem import Refusal, malformed, problem
from notifier.operators.letters.visits import Filter

OBJECT = {"type": "object"}
BODY_PROBLEMS = {
    408: "The body did not come.",
    413: "The body is too large.",
    415: "The body is not application/json.",
}
_LISTS = frozenset({"id", "reason"})

T = TypeVar("T")


@with_config(ConfigDict(extra="forbid"))
class PageQuery(TypedDict, total=False):
    """What every page takes."""

    rows: Annotated[int, Field(ge=0, le=1000, description="So many summaries; 50 unless given.")]
    skip: Annotated[int, Field(ge=0, description="Leave out this many of them: for the next page.")]
    age: Annotated[float, Field(ge=0, le=600, description="Seconds that the counts may be old; 60 unless given.")]


@with_config(ConfigDict(extra="forbid"))
class LookFor(TypedDict, total=False):
    """Whom or what somebody looks for. It is in a body, since addresses are in the logs of proxies."""

    subject: Annotated[str, Field(min_length=1, max_length=1000, description="A sub or a sid.")]
    event_id: Annotated[str, Field(min_length=1, max_length=1000, description="An event.")]
    client_id: Annotated[str, Field(min_length=1, description="At this client alone.")]
    iss: Annotated[str, Field(min_length=1, description="At this issuer alone.")]


LOOK_FOR = TypeAdapter(LookFor)


async def looked_for(request: web.Request) -> dict[str, Any]:
    """The members of such a body. Raises Refusal (400, 415)."""
    asked = await asked_in_body(request, LOOK_FOR)
    if "subject" not in asked and "event_id" not in asked:
        raise malformed(Mistake("", "say which subject (a sub or a sid) or event_id you look for"))
    return asked


def query_of(adapter: TypeAdapter[Any]) -> dict[str, Mapping[str, Any]]:
    """Return the schemas of the query's members, for the description of the API."""
    return cast("dict[str, Mapping[str, Any]]", schema_of(adapter)["properties"])


def schema_of(adapter: TypeAdapter[Any]) -> dict[str, Any]:
    """The schema of a body, in one piece."""
    schema = adapter.json_schema()
    parts = schema.pop("$defs", {})
    text = json.dumps(schema)
    for name, part in parts.items():
        text = text.replace(f'{{"$ref": "#/$defs/{name}"}}', json.dumps(part))
    return cast("dict[str, Any]", json.loads(text))


def asked_in_query(request: web.Request, adapter: TypeAdapter[Any]) -> dict[str, Any]:
    """The members of the query. Raises Refusal (400)."""
    members: dict[str, object] = {}
    for name in request.query:
        values = request.query.getall(name)
        members[name] = values if name in _LISTS else values[-1]
        if values[-1] == "" and name in _flags(adapter):
            members[name] = True  # `?dry_run`
    return _checked(adapter.validate_python, members)


@cache
def _flags(adapter: TypeAdapter[Any]) -> frozenset[str]:
    return frozenset(name for name, schema in query_of(adapter).items() if schema.get("type") == "boolean")


async def asked_in_body(request: web.Request, adapter: TypeAdapter[Any]) -> dict[str, Any]:
    """The members of the body. Raises Refusal (400, 415)."""
    if request.content_type != "application/json":
        raise Refusal(problem(415, "The body must be application/json", headers={"Accept": "application/json"}))
    content = await json_object(request)
    if content is None:
        raise malformed(Mistake("", 'must be a JSON object, such as {"client_id": "shop"}'))
    # Strict JSON takes strings as reasons, but not "5" as a number.
    return _checked(partial(adapter.validate_json, strict=True), json.dumps(content))


def require_narrowed(filter_: Filter[Any, Any], asked: Mapping[str, Any], what: str) -> None:
    """A repair of all must say so: `all`. Raises Refusal (400)."""
    if not filter_.narrows and not asked.get("all"):
        raise malformed(Mistake("", f"say which {what} meant, or all: true"))


def _checked(validate: Callable[[T], Any], content: T) -> dict[str, Any]:
    try:
        return cast("dict[str, Any]", validate(content))
    except ValidationError as error:
        raise malformed(*mistakes_of(error)) from None
