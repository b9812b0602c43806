"""The event: one session (or all sessions) of a user ended at one issuer, and these clients must be notified.

Times are seconds since the epoch. Names are those of OpenID Connect.
"""

from typing import Literal

from notifier.model.client import Algorithm
from notifier.model.frozen import frozen
from notifier.model.reply import ReplyTo


@frozen
class ClientEntry:
    """One entry of `clients`. Members other than `client_id` override the registry, if that is allowed.

    `no_address`: the event says that the client has none. Unless the registry has one, or had one less than
    `registry.grace` ago, it is skipped and never unknown.
    The front-channel members are for the page of a sign-out alone, and only where the registry has no such client.
    """

    client_id: str
    backchannel_logout_uri: str | None = None
    backchannel_logout_session_required: bool | None = None
    id_token_signed_response_alg: Algorithm | None = None
    sub: str | None = None
    sid: str | None = None
    no_address: bool = False
    frontchannel_logout_uri: str | None = None
    frontchannel_logout_session_required: bool | None = None


@frozen
class SessionEnded:
    """The event as it was read. `id_given` is False if notifier made up the id, which then marks no duplicate.

    A plain string in `clients` is a `client_id` without further members. `vouched`: its publisher is known to
    be the issuer's identity server or the operator, even if the issuer names no `publishers`. `unread`: the
    informational members that were dropped, since they could not be read.
    """

    id: str
    id_given: bool
    iss: str
    sub: str | None
    sid: str | None
    clients: tuple[str | ClientEntry, ...] | Literal["*"]
    ended_at: float | None = None
    not_after: float | None = None
    reason: str | None = None
    source: str | None = None
    type: str | None = None
    publisher: str | None = None
    claimed_publisher: str | None = None
    vouched: bool = False
    trace: str | None = None
    reply_to: ReplyTo | None = None
    unread: tuple[str, ...] = ()
