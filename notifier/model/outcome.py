"""The outcome of an attempt: exactly one of `Delivered`, `Refused`, `Failed`.

The closed lists of metric labels are here: `Reason` (of an attempt), `DeadReason` (of a dead letter), `Cause` (of a
deferral).

`Signal` is the evidence of an outcome about its client. The client's circuit and rate depend on it.

The transport returns an `HttpResponse`, a `TransportFailure` or a `StaleConnection`. `to_outcome` interprets them
(docs/specification.md B27, B28, R3, R11, R12).
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import ClassVar, Literal, TypeAlias, assert_never

from notifier.model.client import ResponsePolicy
from notifier.model.moment import parse_http_date
from notifier.model.record import record


class Reason(StrEnum):
    """The result of an attempt: the `reason` label of `attempts_total`."""

    DELIVERED = "delivered"
    REDIRECT = "redirect"
    REJECTED_TOKEN = "rejected_token"  # noqa: S105  a reason, not a secret
    REFUSED = "refused"
    SERVER_ERROR = "server_error"
    THROTTLED = "throttled"
    DNS = "dns"
    CONNECT = "connect"
    TLS = "tls"
    TIMEOUT = "timeout"
    DISCONNECTED = "disconnected"
    PROXY = "proxy"
    EGRESS_DENIED = "egress_denied"
    INTERCEPTED = "intercepted"

    __hash__ = str.__hash__  # Enum's hash is a Python function


FinalReason: TypeAlias = Literal[Reason.REDIRECT, Reason.REJECTED_TOKEN, Reason.REFUSED, Reason.EGRESS_DENIED]
"""Reasons that make a delivery a dead letter: each is also a `DeadReason`."""


class DeadReason(StrEnum):
    """Why something is a dead letter: the `reason` label of `dead_letters_total`, and the header `reason`."""

    REDIRECT = Reason.REDIRECT.value
    REJECTED_TOKEN = Reason.REJECTED_TOKEN.value
    REFUSED = Reason.REFUSED.value
    EGRESS_DENIED = Reason.EGRESS_DENIED.value
    EXPIRED = "expired"
    MALFORMED_EVENT = "malformed_event"
    UNKNOWN_CLIENT = "unknown_client"
    UNKNOWN_ISSUER = "unknown_issuer"
    NO_SID = "no_sid"
    NO_SUB = "no_sub"
    NO_EMAIL = "no_email"
    SESSION_ONLY = "session_only"
    PUBLISHER_NOT_ALLOWED = "publisher_not_allowed"
    DELIVERY_LIMIT = "delivery_limit"
    UNRESOLVED = "unresolved"
    QUEUE_REFUSED = "queue_refused"


class Cause(StrEnum):
    """Why a delivery was deferred without an attempt: the `cause` label of `deferrals_total`."""

    SLOT = "slot"
    RATE = "rate"
    CIRCUIT = "circuit"
    PAUSED = "paused"
    RETRY_AFTER = "retry_after"
    UNKNOWN = "unknown"
    SIGNING = "signing"
    ENCRYPTION = "encryption"
    TLS_FILES = "tls_files"
    PROXY = "proxy"
    ORIGIN = "origin"
    ACCESS_TOKEN = "access_token"  # noqa: S105  a cause, not a secret
    OPEN_FILES = "open_files"


# ── what the transport returns ──────────────────────────────────────────────────────────────────────────────────

CHALLENGES: Mapping[str, tuple[Collection[str], str]] = {
    # docs.aws.amazon.com/waf/latest/developerguide/waf-captcha-and-challenge-actions.html: with 202, or with 405
    "x-amzn-waf-action": (("challenge", "captcha"), "AWS WAF"),
    # developers.cloudflare.com/cloudflare-challenges/challenge-types/challenge-pages/detect-response: mostly with 403
    "cf-mitigated": (("challenge",), "Cloudflare"),
}
"""Response headers of firewalls that answer for a client, without passing the request on: values, and the firewall."""


@record
class HttpResponse:
    """A response arrived. `text` is the printable start of the body (at most 1 KiB).

    `code` is the error code of the body, if the request names its member; it is neither stored nor logged.
    `retry_after` and `date` are the raw headers `Retry-After` and `Date`. `challenge`: see `find_challenge`.
    `is_web_page`: the body is HTML.
    """

    status: int
    text: str = ""
    retry_after: str | None = None
    date: str | None = None
    code: str | None = field(default=None, repr=False)
    challenge: str = ""
    is_web_page: bool = False


@record
class TransportFailure:
    """No response arrived. `ambiguous` is True if the request was written: the client may have acted on it (R3).

    `ended_early`: the worker ended the request before its timeout, since other clients needed the slot.
    """

    reason: Reason
    ambiguous: bool
    text: str
    ended_early: bool = False


@dataclass(frozen=True, slots=True)
class StaleConnection:
    """A kept-alive connection closed before any byte of the response. The request is repeated once, uncounted."""


TransportResult = HttpResponse | TransportFailure | StaleConnection


# ── the outcome ─────────────────────────────────────────────────────────────────────────────────────────────────


class Signal(Enum):
    """What an outcome shows about the client, for its circuit and rate."""

    RESPONSIVE = "responsive"  # the client answered and works
    RATE_LIMITED = "rate limited"  # the client requests fewer or later requests (429, 408, 425, other retry statuses)
    UNAVAILABLE = "unavailable"  # no connection, no response, or a status from 500
    NONE = "none"  # nothing: the fault is internal, or a proxy refused


@record
class Delivered:
    """The client accepted the logout token. `is_web_page`: it answered with HTML, so its address may be wrong."""

    status: int
    text: str = ""
    reason: Reason = Reason.DELIVERED
    is_web_page: bool = False

    @property
    def signal(self) -> Signal:
        """What the outcome shows about the client: it works."""
        return Signal.RESPONSIVE


@record
class Refused:
    """The client or the egress policy refused. Another attempt is unlikely to help."""

    is_web_page: ClassVar[bool] = False

    reason: FinalReason
    status: int | None = None
    text: str = ""

    @property
    def signal(self) -> Signal:
        """What the outcome shows about the client: nothing if an egress policy refused the attempt."""
        return Signal.NONE if self.reason is Reason.EGRESS_DENIED else Signal.RESPONSIVE


@record
class Failed:
    """The attempt failed and may be repeated. `retry_after` is the pause that the client requested, in seconds.

    `ended_early`: see `TransportFailure`.
    """

    is_web_page: ClassVar[bool] = False

    reason: Reason
    status: int | None = None
    text: str = ""
    retry_after: float | None = None
    ambiguous: bool = False
    ended_early: bool = False

    @property
    def signal(self) -> Signal:
        """What the outcome shows about the client: nothing if a proxy refused the attempt."""
        if self.reason is Reason.PROXY:
            return Signal.NONE
        if self.status is None or self.status >= 500 or self.reason is Reason.INTERCEPTED:
            return Signal.UNAVAILABLE
        return Signal.RATE_LIMITED


Outcome = Delivered | Refused | Failed


def to_outcome(result: HttpResponse | TransportFailure, policy: ResponsePolicy, now: float) -> Outcome:
    """Return the outcome of an attempt at a client with this response policy. `now` is in epoch seconds."""
    match result:
        case TransportFailure(reason=Reason.EGRESS_DENIED):
            return Refused(reason=Reason.EGRESS_DENIED, text=result.text)
        case TransportFailure():
            ambiguous, ended_early = result.ambiguous, result.ended_early
            return Failed(reason=result.reason, text=result.text, ambiguous=ambiguous, ended_early=ended_early)
        case HttpResponse():
            return _read_response(result, policy, now)
        case _:
            assert_never(result)


def _read_response(response: HttpResponse, policy: ResponsePolicy, now: float) -> Outcome:
    """Return the outcome by the status. The client's response policy has precedence over the usual meanings.

    The answer of a firewall is not the client's, so its status means nothing.
    """
    status, text = response.status, response.text
    if response.challenge:
        pause = read_retry_after(response.retry_after, response.date, now)
        return Failed(reason=Reason.INTERCEPTED, status=status, text=response.challenge, retry_after=pause)
    is_usual_success = 200 <= status < 300 and status not in policy.retry_statuses
    if status in policy.success_statuses or is_usual_success:
        return Delivered(status=status, text=text, is_web_page=response.is_web_page)
    is_usual_retry = status in (408, 425, 429) or status >= 500  # 408 Request Timeout, 425 Too Early: try again
    if status in policy.retry_statuses or is_usual_retry:
        reason = Reason.THROTTLED if status == 429 else Reason.SERVER_ERROR
        pause = read_retry_after(response.retry_after, response.date, now)
        return Failed(reason=reason, status=status, text=text, retry_after=pause)
    if 300 <= status < 400:
        return Refused(reason=Reason.REDIRECT, status=status, text=text)
    if status == 400:
        return Refused(reason=Reason.REJECTED_TOKEN, status=status, text=text)
    return Refused(reason=Reason.REFUSED, status=status, text=text)


def find_challenge(header: Callable[[str], str | None]) -> str:
    """Return a text that names the firewall which answered for the client; empty if the client answered.

    `header` returns the value of a response header by its name in lower case.
    """
    for name, (values, firewall) in CHALLENGES.items():
        value = header(name)
        if value is not None and (value := value.strip().lower()) in values:
            return f"{firewall} answered, and did not pass the request to the client ({name}: {value})"
    return ""


def read_retry_after(value: str | None, date: str | None, now: float) -> float | None:
    """Return the seconds that `Retry-After` requests (RFC 9110 §10.2.3: seconds or an HTTP date); None if unknown.

    An HTTP date is compared with `date`, the header `Date` of the same response, since the server's clock may be wrong.
    Without a valid `date` it is compared with `now`.
    """
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value.lstrip("0")[:12] or "0")  # beyond any limit; float(…) of 10,000 digits is slow
    if (moment := parse_http_date(value)) is None:
        return None
    sent_at = None if date is None else parse_http_date(date.strip())
    return max(0.0, moment - (now if sent_at is None else sent_at))
