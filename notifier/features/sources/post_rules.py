"""Check a post to a source apart from its proof."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from notifier.features.sources.source import Source
from notifier.features.sources.source_settings import SourceHttpSettings
from notifier.model.documents.cloudevents import is_attribute, media_type_of
from notifier.network.listeners.problem import Refusal, problem_response

SET_TYPE = "application/secevent+jwt"  # RFC 8935 §2
MAX_TYPE_LENGTH = 255  # of a media type in AMQP
_JSON_TYPES = ("application/json", "application/x-ndjson", "application/ndjson", "application/jsonl")  # and any +json
_ACCEPTED_TYPES = "application/json, application/cloudevents+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class PostRules:
    """The rules of one source. `body`: a token, or JSON by its media type, or JSON whatever the media type.

    `signed`: the proof covers the body but not the headers, so headers must not describe the event.
    `accepts_empty`: the source's `when` evaluates an empty body.
    """

    body: Literal["json", "any", "token"] = "json"
    signed: bool = False
    accepts_empty: bool = False

    def check_type(self, content_type: str | None) -> None:
        """Raise Refusal (415) for a wrong media type; forms of web pages cannot send JSON."""
        media_type = media_type_of(content_type)
        title, accept = "The body must be application/json, or of a type that ends with +json", _ACCEPTED_TYPES
        good = (media_type in _JSON_TYPES or media_type.endswith("+json")) and len(media_type) <= MAX_TYPE_LENGTH
        if self.body == "token":
            title, accept, good = f"The body must be {SET_TYPE}", SET_TYPE, media_type == SET_TYPE
        if not good and self.body != "any":
            raise Refusal(problem_response(415, title, headers={"Accept": accept}))

    def find_unsigned_header(self, names: Iterable[str]) -> str | None:
        """Return an error for an unsigned header that would change the id or type of a signed body."""
        name = next(filter(is_attribute, names), None) if self.signed else None
        text = "is not signed: send structured CloudEvents, application/cloudevents+json"
        return None if name is None else f"The header {name.lower()[:60]} {text}"

    def check_headers(self, names: Iterable[str]) -> None:
        """Raise Refusal (400) for such a header."""
        if (title := self.find_unsigned_header(names)) is not None:
            raise Refusal(problem_response(400, title))

    def check_body(self, body: bytes) -> None:
        """Raise Refusal (400) for an empty body, unless `when` evaluates it."""
        if not body.strip() and not self.accepts_empty:
            raise Refusal(problem_response(400, "The body is empty"))


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
