"""Says what a post to a source must be like, beside its proof. `notifier sources try` judges by the same rules."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from notifier.features.sources.source import Source
from notifier.features.sources.source_settings import SourceHttpSettings
from notifier.model.documents.cloudevents import is_attribute, media_type_of

SET_KIND = "application/secevent+jwt"  # RFC 8935 §2
LONGEST_KIND = 255  # characters of a media type that AMQP can carry
_KINDS = ("application/json", "application/x-ndjson", "application/ndjson", "application/jsonl")  # and any +json
_ACCEPTED = "application/json, application/cloudevents+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class PostObjection:
    """Why a post is not taken. `title` is safe to show to strangers. `accept`: the media types that are taken."""

    status: Literal[400, 415]
    title: str
    accept: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PostRules:
    """The rules of one source. `body`: a token, or JSON by its media type, or JSON whatever the header says.

    `signed`: the proof covers the body. Then the headers, which it does not cover, say nothing of the event.
    `takes_empty`: the source says what an empty body means.
    """

    body: Literal["json", "any", "token"] = "json"
    signed: bool = False
    takes_empty: bool = False

    def of_kind(self, content_type: str | None) -> PostObjection | None:
        """Object to a media type: a form of a web page sends no JSON."""
        kind = media_type_of(content_type)
        if self.body == "any":
            return None
        if self.body == "token":
            title = f"The body must be {SET_KIND}"
            return None if kind == SET_KIND else PostObjection(status=415, title=title, accept=SET_KIND)
        if (kind in _KINDS or kind.endswith("+json")) and len(kind) <= LONGEST_KIND:
            return None
        title = "The body must be application/json, or of a type that ends with +json"
        return PostObjection(status=415, title=title, accept=_ACCEPTED)

    def of_headers(self, names: Iterable[str]) -> PostObjection | None:
        """Object to a header beside a signed body, if nobody signed it and it would give another id or type."""
        name = next(filter(is_attribute, names), None) if self.signed else None
        if name is None:
            return None
        text = "is not signed: send structured CloudEvents, application/cloudevents+json"
        return PostObjection(status=400, title=f"The header {name.lower()[:60]} {text}")

    def of_body(self, body: bytes) -> PostObjection | None:
        """Object to an empty body, unless `when` sees it."""
        empty = not body.strip() and not self.takes_empty
        return PostObjection(status=400, title="The body is empty") if empty else None


def post_rules(http: SourceHttpSettings, source: Source) -> PostRules:
    """Return the rules of a source that takes posts."""
    body: Literal["json", "any", "token"] = "any" if source.as_json or http.sns is not None else "json"
    return PostRules(body="token" if http.set is not None else body, signed=http.signed, takes_empty=source.takes_empty)


_HOP = frozenset(
    {"connection", "content-length", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)  # headers that concern this connection alone


def joined_headers(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The headers by name in lower case. One that is there several times is joined (RFC 9110 §5.2)."""
    joined: dict[str, str] = {}
    for raw, value in headers:
        name, text = raw.lower(), value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        if name not in _HOP:
            joined[name] = f"{joined[name]}, {text}" if name in joined else text
    return joined
