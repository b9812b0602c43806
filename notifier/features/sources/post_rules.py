"""Check a POST to a source: its media type, headers and body. The proof of the sender is checked elsewhere."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from notifier.features.sources.source import Source
from notifier.features.sources.source_settings import SourceHttpSettings
from notifier.model.documents.cloudevents import is_attribute, media_type_of
from notifier.network.listeners.problem import Refusal, problem_response

SET_TYPE = "application/secevent+jwt"  # RFC 8935 §2
MAX_TYPE_LENGTH = 255  # of `content_type` in AMQP
_JSON_TYPES = ("application/json", "application/x-ndjson", "application/ndjson", "application/jsonl")  # and any +json
_ACCEPTED_TYPES = "application/json, application/cloudevents+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class PostRules:
    """The rules of one source. `body`: `json` of a JSON media type, `any` media type, or a `token` (SET).

    `signed`: the proof covers the body but not the headers, so that headers must not describe the event.
    `accepts_empty`: the body may be empty, since the source's `when` evaluates it.
    """

    body: Literal["json", "any", "token"] = "json"
    signed: bool = False
    accepts_empty: bool = False

    def check_type(self, content_type: str | None) -> None:
        """Raise Refusal (415) for a wrong media type. Except with `any`, forms of web pages can send no right type."""
        if self.body == "any":
            return
        media_type = media_type_of(content_type)
        if self.body == "token":
            title, accept, is_accepted = f"The body must be {SET_TYPE}", SET_TYPE, media_type == SET_TYPE
        else:
            title, accept = "The body must be application/json, or of a type that ends with +json", _ACCEPTED_TYPES
            is_json = media_type in _JSON_TYPES or media_type.endswith("+json")
            is_accepted = is_json and len(media_type) <= MAX_TYPE_LENGTH
        if not is_accepted:
            raise Refusal(problem_response(415, title, headers={"Accept": accept}))

    def find_unsigned_header(self, names: Iterable[str]) -> str | None:
        """Return the error of an unsigned CloudEvents header, which would change a signed event; None without one."""
        name = next(filter(is_attribute, names), None) if self.signed else None
        if name is None:
            return None
        remedy = "send structured CloudEvents, application/cloudevents+json"
        return f"The header {name.lower()[:60]} is not signed: {remedy}"

    def check_headers(self, names: Iterable[str]) -> None:
        """Raise Refusal (400) for an unsigned CloudEvents header, which would change a signed event's id or type."""
        title = self.find_unsigned_header(names)
        if title is not None:
            raise Refusal(problem_response(400, title))

    def check_body(self, body: bytes) -> None:
        """Raise Refusal (400) for an empty body, unless `when` evaluates it."""
        if not body.strip() and not self.accepts_empty:
            raise Refusal(problem_response(400, "The body is empty"))


def create_post_rules(http: SourceHttpSettings, source: Source) -> PostRules:
    """Return the rules of a source with `http`. SNS sends JSON as `text/plain`."""
    body: Literal["json", "any", "token"] = "json"
    if http.set is not None:
        body = "token"
    elif source.as_json or http.sns is not None:
        body = "any"
    return PostRules(body=body, signed=http.signed, accepts_empty=source.accepts_empty)


_CONNECTION_HEADERS = frozenset(
    {"connection", "content-length", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)  # of the connection and the framing of the post, not of its content


def join_headers(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the headers of the content by lower-case name. The values of a repeated header are joined by commas.

    Invalid UTF-8 is replaced.
    """
    joined: dict[str, str] = {}
    for header, value in headers:
        name, text = header.lower(), value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        if name not in _CONNECTION_HEADERS:
            joined[name] = f"{joined[name]}, {text}" if name in joined else text  # RFC 9110 §5.2
    return joined
