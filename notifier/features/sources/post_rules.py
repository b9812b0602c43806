"""Describe a source over HTTP, and check the media type, headers and body of a POST to it.

The proof of the sender is checked elsewhere.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from notifier.features.sources.source import Source
from notifier.features.sources.source_proofs import HeaderSecret, Proof, SetVerifier, SnsVerifier
from notifier.features.sources.source_settings import WebsubSettings
from notifier.model.documents.cloudevents import is_attribute, media_type_of
from notifier.network.listeners.problem import Refusal, problem_response

SET_TYPE = "application/secevent+jwt"  # RFC 8935 §2
MAX_TYPE_LENGTH = 255  # of `content_type` in AMQP
_JSON_TYPES = ("application/json", "application/x-ndjson", "application/ndjson", "application/jsonl")  # and any +json
_ACCEPTED_TYPES = "application/json, application/cloudevents+json"

Challenge = Literal["okta", "websub"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSource:
    """A source that accepts events over HTTP.

    `challenge`: the protocol by which its server verifies the URL. `websub`: the subscription that a WebSub hub may
    verify; None for any. `sends_once`: its sender does not send again.
    """

    compiled: Source
    proof: Proof
    challenge: Challenge | None = None
    websub: WebsubSettings | None = None
    sends_once: bool = False

    @property
    def name(self) -> str:
        """Return the name of the source."""
        return self.compiled.name

    @property
    def is_signed(self) -> bool:
        """Return whether the proof covers the body but not the headers, which then must not describe the event."""
        return not isinstance(self.proof, HeaderSecret)

    def check_type(self, content_type: str | None) -> None:
        """Raise Refusal (415) for a wrong media type. SNS sends JSON as `text/plain`.

        Unless any type is accepted, forms of web pages can send no right type.
        """
        media_type = media_type_of(content_type)
        if isinstance(self.proof, SetVerifier):
            title, accept, is_accepted = f"The body must be {SET_TYPE}", SET_TYPE, media_type == SET_TYPE
        elif self.compiled.as_json or isinstance(self.proof, SnsVerifier):
            return
        else:
            title, accept = "The body must be application/json, or of a type that ends with +json", _ACCEPTED_TYPES
            is_json = media_type in _JSON_TYPES or media_type.endswith("+json")
            is_accepted = is_json and len(media_type) <= MAX_TYPE_LENGTH
        if not is_accepted:
            raise Refusal(problem_response(415, title, headers={"Accept": accept}))

    def find_unsigned_header(self, names: Iterable[str]) -> str | None:
        """Return the error of an unsigned CloudEvents header, which would change a signed event; None without one."""
        name = next(filter(is_attribute, names), None) if self.is_signed else None
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
        if not body.strip() and not self.compiled.accepts_empty:
            raise Refusal(problem_response(400, "The body is empty"))


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
