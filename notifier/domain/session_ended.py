"""The event: one user session (or all sessions of a user) ended at one issuer, and which clients must hear of it.

Moments are seconds since the epoch. Names are OpenID Connect's.
"""

from typing import Literal

from notifier.domain.client import Algorithm
from notifier.domain.errors import Mistake
from notifier.domain.frozen import frozen
from notifier.domain.reply import ReplyTo


@frozen
class ClientEntry:
    """One member of `clients`. What it gives beyond `client_id` wins over the registry, where that is allowed."""

    client_id: str
    backchannel_logout_uri: str | None = None
    backchannel_logout_session_required: bool | None = None
    id_token_signed_response_alg: Algorithm | None = None
    sub: str | None = None
    sid: str | None = None


@frozen
class WrongEntry:
    """A member of `clients` that could not be read, as earlier releases wrote it into their documents.

    `raw` is the member as JSON text. At the first reading none is made any more: see `event_document`.
    """

    client_id: str | None
    raw: str
    mistakes: tuple[Mistake, ...]


@frozen
class SessionEnded:
    """The event as understood. `id_given` is False for an id made up at reading, which marks no duplicate.

    Of `clients` a name alone is a client of which the event tells nothing else.
    """

    id: str
    id_given: bool
    iss: str
    sub: str | None
    sid: str | None
    clients: tuple[str | ClientEntry | WrongEntry, ...] | Literal["*"]
    ended_at: float | None = None
    not_after: float | None = None
    reason: str | None = None
    source: str | None = None
    type: str | None = None
    publisher: str | None = None
    claimed_publisher: str | None = None
    trace: str | None = None
    reply_to: ReplyTo | None = None
