"""Decide the outcome of a published event by the response of the API. No I/O.

Proxies, firewalls and captive portals respond in place of notifier, with any status. A response is notifier's if its
body proves it: a 202 by the event's id, an error by the type of its problem document (RFC 9457).
"""

import json
from dataclasses import dataclass

from logout_notifier_publisher.event_transport import Confirmed, FailureReason, PublishFailure, PublishOutcome, Refused
from logout_notifier_publisher.redaction import redact

MAX_BODY_BYTES = 64 * 1024
MAX_PROBLEM_CHARACTERS = 300
MAX_EXCERPT_CHARACTERS = 200
PROBLEM_TYPE = "urn:notifier:problem"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishResponse:
    """A response to a posted event. `body`: at most its first `MAX_BODY_BYTES`. `retry_after`: seconds."""

    status: int
    content_type: str = ""
    server: str | None = None
    retry_after: float = 0.0
    body: bytes = b""

    def to_outcome(self, event_id: str, token: str | None, host: str) -> PublishOutcome:
        """Return the outcome for the event with this id, which was posted to the host with this token."""
        if self.status == 202 and self._read_member("id") == event_id:
            return Confirmed()
        if self.content_type == "application/problem+json" and self._read_member("type") == PROBLEM_TYPE:
            return self._to_problem_outcome(host)
        server = "no header Server" if self.server is None else f"Server: {_to_line(self.server)}"
        text = f"{host} answered {self.status} ({server}): {self._excerpt(event_id, token)}"
        if self.status in (408, 429) or 500 <= self.status <= 599:
            return PublishFailure(reason=FailureReason.REJECTED, text=text, retry_after=self.retry_after)
        return PublishFailure(
            reason=FailureReason.INTERCEPTED,
            text=f"{text}: this is not notifier's answer; check `url`, and proxies before it",
            concerns_others=False,
        )

    def _to_problem_outcome(self, host: str) -> PublishOutcome:
        text = f"{host} answered {self.status}: {_to_line(self._text(), MAX_PROBLEM_CHARACTERS)}"
        if self.status in (400, 413, 422):
            return Refused(text=text)
        if self.status == 401:
            return PublishFailure(reason=FailureReason.DENIED, text=f"{text}: check the token in `secret_file`")
        if self.status == 403:
            remedy = "check the token's scope `publish`, its `issuers`, and the issuer's `publishers`"
            return PublishFailure(reason=FailureReason.DENIED, text=f"{text}: {remedy}", concerns_others=False)
        return PublishFailure(reason=FailureReason.REJECTED, text=text, retry_after=self.retry_after)

    def _read_member(self, name: str) -> str | None:
        """Return the text of a member of the body, None if the body is not an object that has it."""
        try:
            document = json.loads(self.body)
        except (ValueError, RecursionError):
            return None
        value = document.get(name) if isinstance(document, dict) else None
        return value if isinstance(value, str) else None

    def _excerpt(self, *secrets: str | None) -> str:
        """Return the beginning of the body. A page that repeats the request would log the token, user or session."""
        text = self._text()
        if any(secret and redact(text, secret, "") != text for secret in secrets):
            return "a page that repeats the request"
        return _to_line(text) or "no body"

    def _text(self) -> str:
        return self.body.decode("utf-8", errors="replace")


def _to_line(text: str, max_characters: int = MAX_EXCERPT_CHARACTERS) -> str:
    """Return the beginning of a text on one line, so that it cannot forge a log line."""
    printable = "".join(each if each.isprintable() else " " for each in text[: 4 * max_characters])
    return " ".join(printable.split())[:max_characters]
