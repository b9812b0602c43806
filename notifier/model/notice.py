"""Defines the fates of deliveries, and the notices that report them.

A notice goes to the publisher that requested it (`notice_wait.py`), and to audit systems by the feed
(`feed_event.py`).
"""

from enum import StrEnum

from notifier.model.record import record


class SkipReason(StrEnum):
    """Why a client is skipped: it has no address, or one session ended and its channel ends all sessions of a user."""

    NO_URI = "no_uri"
    SESSION_ONLY = "session_only"


class DeliveryResult(StrEnum):
    """The result of a delivery, or of a whole event. After `retrying` another notice follows."""

    DELIVERED = "delivered"
    RETRYING = "retrying"
    DEAD = "dead"
    SKIPPED = "skipped"
    DUPLICATE = "duplicate"


class ClientChange(StrEnum):
    """A change of a client's state: its deliveries began to fail, or succeed again."""

    FAILING = "failing"
    RECOVERED = "recovered"


@record
class LastAttempt:
    """The attempt that led to a fate. `jti` is None if no token was made."""

    number: int
    jti: str | None
    status: int | None
    seconds: float


@record
class Notice:
    """Reports the fate of one delivery, or of a whole event, with an empty `client_id`.

    Times are in epoch seconds. `reason`: the reason of the last attempt or dead letter, or the cause of the deferral.
    """

    fate: DeliveryResult
    iss: str
    event_id: str
    client_id: str = ""
    delivery_id: str = ""
    reason: str = ""
    next_due: float | None = None

    # Only replies hold these. `of` is the number of final notices of the event; None if the event could not be parsed.
    text: str = ""
    status: int | None = None
    attempts: int = 0
    of: int | None = None

    # Only the feed holds these. `id` is the same in each copy of the notice. `propagation` counts from `ended_at`.
    id: str = ""
    at: float = 0.0
    publisher: str | None = None
    ended_at: float | None = None
    propagation: float | None = None
    last_attempt: LastAttempt | None = None

    @property
    def settled(self) -> bool:
        """True when no further notice follows."""
        return self.fate is not DeliveryResult.RETRYING


@record
class ClientNotice:
    """Reports in the feed that a client started or stopped failing."""

    id: str
    at: float
    state: ClientChange
    iss: str
    client_id: str


FeedNotice = Notice | ClientNotice
