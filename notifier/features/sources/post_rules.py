"""Check a post to a source apart from its proof. `notifier sources try` applies the same rules."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from notifier.features.sources.source import Source
from notifier.features.sources.source_settings import SourceHttpSettings
from notifier.model.documents.cloudevents import is_attribute, media_type_of

SET_TYPE = "application/secevent+jwt"  # RFC 8935 §2
MAX_TYPE_LENGTH = 255  # of a media type in AMQP
_JSON_TYPES = ("application/json", "application/x-ndjson", "application/ndjson", "application/jsonl")  # and any +json
_ACCEPTED_TYPES = "application/json, application/cloudevents+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class PostObjection:
    """Why a post is refused. `title` is safe to show to unauthenticated clients. `accept`: the allowed media types."""

    status: Literal[400, 415]
    title: str
    accept: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PostRules:
    """The rules of one source. `body`: a token, or JSON by its media type, or JSON whatever the media type.

    `signed`: the proof covers the body but not the headers, so headers must not describe the event.
    `accepts_empty`: the source's `when` evaluates an empty body.
    """

    body: Literal["json", "any", "token"] = "json"
    signed: bool = False
    accepts_empty: bool = False

    def check_type(self, content_type: str | None) -> PostObjection | None:
        """Refuse a wrong media type; forms of web pages cannot send JSON."""
        media_type = media_type_of(content_type)
        if self.body == "any":
            return None
        if self.body == "token":
            title = f"The body must be {SET_TYPE}"
            return None if media_type == SET_TYPE else PostObjection(status=415, title=title, accept=SET_TYPE)
        if (media_type in _JSON_TYPES or media_type.endswith("+json")) and len(media_type) <= MAX_TYPE_LENGTH:
            return None
        title = "The body must be application/json, or of a type that ends with +json"
        return PostObjection(status=415, title=title, accept=_ACCEPTED_TYPES)

    def check_headers(self, names: Iterable[str]) -> PostObjection | None:
        """Refuse an unsigned header that would change the id or type of a signed body."""
        name = next(filter(is_attribute, names), None) if self.signed else None
        if name is None:
            return None
        text = "is not signed: send structured CloudEvents, application/cloudevents+json"
        return PostObjection(status=400, title=f"The header {name.lower()[:60]} {text}")

    def check_body(self, body: bytes) -> PostObjection | None:
        """Refuse an empty body, unless `when` evaluates it."""
        empty = not body.strip() and not self.accepts_empty
        return PostObjection(status=400, title="The body is empty") if empty else None


def create_post_rules(http: SourceHttpSettings, source: Source) -> PostRules:
    """Return the rules of a source that takes posts."""
    body: Literal["json", "any", "token"] = "any" if source.as_json or http.sns is not None else "json"
    return PostRules(
        body="token" if http.set is not None else body, signed=http.signed, accepts_empty=source.accepts_empty
    )


_CONNECTION_HEADERS = frozenset(
    {"connection", "content-length", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)  # of the connection and the framing of the post, not of its content


def join_headers(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the headers by lower-case name, without those of the connection. Joins repeated ones (RFC 9110 §5.2)."""
    joined: dict[str, str] = {}
    for raw, value in headers:
        name, text = raw.lower(), value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        if name not in _CONNECTION_HEADERS:
            joined[name] = f"{joined[name]}, {text}" if name in joined else text
    return joined
