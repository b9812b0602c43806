"""Reads the queries and bodies of `/v1/dead-letters`. A refusal lists every mistake."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, cast

from aiohttp import web
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier.model.api_token import ApiToken
from notifier.model.errors import Mistake
from notifier.model.outcome import DeadReason
from notifier.model.printable import excerpt
from notifier.model.validation import mistakes_of
from notifier.network.listeners.problem import Refusal, problem
from notifier.operators.letters.letter_filter import LetterFilter, read_filter

MOST_AT_ONCE = 10_000  # letters repaired by one request
_LISTS = frozenset({"id", "reason"})
_FLAGS = frozenset({"all", "dry_run"})
_STRICT = ConfigDict(extra="forbid")


@with_config(_STRICT)
class FilterQuery(TypedDict, total=False):
    """The members that choose letters. A letter must match all of them."""

    id: Annotated[list[str], Field(max_length=1000, description="Only the letters with these ids.")]
    client_id: Annotated[str, Field(description="Only letters of this client.")]
    iss: Annotated[str, Field(description="Only letters of this issuer.")]
    event_id: Annotated[str, Field(description="Only letters of this event.")]
    reason: Annotated[list[DeadReason], Field(description="Only letters with one of these reasons.")]
    since: Annotated[str, Field(description="Only letters given up since then: RFC 3339, or 24h (ago).")]
    until: Annotated[str, Field(description="Only letters given up until then, in the same form.")]
    subject: Annotated[str, Field(description="Only letters about this sub or sid.")]
    source: Annotated[str, Field(description="Only letters of messages that came from this source.")]


class ListQuery(FilterQuery, total=False):
    """The query of a list."""

    rows: Annotated[int, Field(ge=0, le=1000, description="Show this many letters beside the counts, oldest first.")]


class DiscardRequest(FilterQuery, total=False):
    """The query of a discard."""

    all: Annotated[bool, Field(description="Take every letter.")]
    dry_run: Annotated[bool, Field(description="Count them; change nothing.")]
    limit: Annotated[int, Field(ge=1, le=MOST_AT_ONCE, description="At most this many, oldest first.")]


class ReplayRequest(DiscardRequest, total=False):
    """The body of a replay."""

    end_newer_sessions: Annotated[
        bool, Field(description="Also replay old letters that name no session: they end newer sessions of the user.")
    ]
    rate: Annotated[float, Field(gt=0, le=100_000, allow_inf_nan=False, description="At most this many a second.")]


WHICH, LOOK, DISCARD, REPLAY = (
    TypeAdapter(FilterQuery),
    TypeAdapter(ListQuery),
    TypeAdapter(DiscardRequest),
    TypeAdapter(ReplayRequest),
)


def query_of(adapter: TypeAdapter[Any]) -> dict[str, Mapping[str, Any]]:
    """The schemas of the query's members, for the description of the API."""
    schema = schema_of(adapter)
    return cast("dict[str, Mapping[str, Any]]", schema["properties"])


def schema_of(adapter: TypeAdapter[Any]) -> dict[str, Any]:
    """The schema of a body, in one piece."""
    schema = adapter.json_schema()
    reasons = schema.pop("$defs", {}).get("DeadReason", {})
    text = json.dumps(schema).replace('{"$ref": "#/$defs/DeadReason"}', json.dumps(reasons))
    return cast("dict[str, Any]", json.loads(text))


def asked_in_query(request: web.Request, adapter: TypeAdapter[Any]) -> dict[str, Any]:
    """The members of the query. Raises Refusal (400)."""
    found: dict[str, object] = {}
    for name in request.query:
        values = request.query.getall(name)
        found[name] = values if name in _LISTS else values[-1]
        if name in _FLAGS and values[-1] == "":
            found[name] = True  # `?dry_run`
    return _checked(adapter, found, strict=False)


async def asked_in_body(request: web.Request, adapter: TypeAdapter[Any]) -> dict[str, Any]:
    """The members of the body. Raises Refusal (400, 415)."""
    if request.content_type != "application/json":
        raise Refusal(problem(415, "The body must be application/json", headers={"Accept": "application/json"}))
    try:
        content = json.loads(await request.text())
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise _malformed([Mistake("", 'must be a JSON object, such as {"client_id": "shop"}')])
    return _checked(adapter, content, strict=True)


def filter_of(asked: Mapping[str, Any], token: ApiToken | None, now: float) -> LetterFilter:
    """The letters that the request means, of those that the token may see. Raises Refusal (400)."""
    found = read_filter(asked, now, issuers=None if token is None else token.issuers)
    if isinstance(found, Mistake):
        raise _malformed([Mistake(found.path, excerpt(found.text, 200))])
    return found


def check_narrowed(chosen: LetterFilter, asked: Mapping[str, Any]) -> None:
    """A repair of all letters must say so: `all`. Raises Refusal (400)."""
    if not chosen.narrows and not asked.get("all"):
        raise _malformed([Mistake("", "say which letters are meant, or all: true")])


def _checked(adapter: TypeAdapter[Any], content: Mapping[str, object], *, strict: bool) -> dict[str, Any]:
    try:
        # Strict JSON takes strings as reasons, but not "5" as a number.
        checked = (
            adapter.validate_json(json.dumps(content), strict=True) if strict else adapter.validate_python(content)
        )
    except ValidationError as error:
        raise _malformed(mistakes_of(error)) from None
    return cast("dict[str, Any]", checked)


def _malformed(mistakes: list[Mistake]) -> Refusal:
    return Refusal(problem(400, "The request is malformed", mistakes=mistakes))
