"""Defines a delivery: the task to notify one client about one event. It has many attempts and never holds a token.

Times are seconds since the epoch. The members of `Delivery` come from the event. Two change: `id_given` becomes True
with the first retry, deferral or replay, and `progress` records all else, so that any worker can continue the delivery.
"""

import hashlib
from typing import Annotated

from pydantic import Field

from notifier.model.client import Algorithm
from notifier.model.progress import NO_PROGRESS, Progress
from notifier.model.record import record
from notifier.model.reply import ReplyTo


@record
class ClientOverrides:
    """The event's members about the client, which override the registry if `Registry.accepts_overrides` permits it.

    `vouched` is that of the event, and is set only while the other members are not accepted.
    """

    backchannel_logout_uri: str | None = None
    backchannel_logout_session_required: bool | None = None
    id_token_signed_response_alg: Algorithm | None = None
    vouched: bool = False


@record
class Delivery:
    """The task to notify one client about one event.

    `sub` and `sid` are taken from the event or its entry; at each attempt the client's profile chooses between them.
    `entry_sub`: `sub` is for this client only (pairwise). `email`: that of the event, if its publisher may set
    overrides. `inline`: overrides that were accepted when the event was planned; `ignored`: overrides that were not. At
    most one of the two is set.
    """

    id: str
    event_id: str
    id_given: bool
    iss: str
    client_id: str
    sub: str | None
    sid: str | None
    entry_sub: bool = False
    email: str | None = None
    inline: ClientOverrides | None = None
    ignored: ClientOverrides | None = None
    ended_at: float | None = None
    not_after: float | None = None
    reason: str | None = None
    source: str | None = None
    publisher: str | None = None
    claimed_publisher: str | None = None
    trace: str | None = None
    reply_to: ReplyTo | None = None
    progress: Annotated[Progress, Field(exclude=True)] = NO_PROGRESS  # `StoredDelivery` stores it

    @property
    def key(self) -> tuple[str, str]:
        """The client's key."""
        return (self.iss, self.client_id)


class DeliveryIds:
    """Creates the ids of the deliveries of one event, as digests.

    `sent_by` is (publisher, CloudEvents `source`): each pair has separate ids. Common parts are hashed only once.
    """

    __slots__ = ("_shared",)

    def __init__(self, *, iss: str, sent_by: tuple[str | None, str | None], event_id: str) -> None:
        self._shared = hashlib.blake2b(_join_parts(iss, *sent_by, event_id), digest_size=16)

    def of(self, client_id: str, sub: str | None, sid: str | None, inline: ClientOverrides | None = None) -> str:
        """Return the id of one delivery. Without `inline`, which adds parts, it is the same in every release."""
        digest = self._shared.copy()
        if inline is None:
            digest.update(_join_parts(client_id, sub, sid))
        else:
            required = inline.backchannel_logout_session_required
            flag = None if required is None else str(required)
            uri, alg = inline.backchannel_logout_uri, inline.id_token_signed_response_alg
            digest.update(_join_parts(client_id, sub, sid, uri, flag, alg))
        return digest.hexdigest()


def _join_parts(*parts: str | None) -> bytes:
    """Join the parts, each after its length, so that different lists never give the same bytes."""
    return b"".join([b"-" if part is None else b"%d:%b" % (len(raw := part.encode()), raw) for part in parts])
