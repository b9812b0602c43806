"""The event: one session (or all sessions) of a user ended at one issuer, and these clients must be notified.

Times are seconds since the epoch. Names are those of OpenID Connect.
"""

from typing import Literal, TypeAlias

from notifier.model.client import Algorithm
from notifier.model.delivery import ClientOverrides
from notifier.model.record import record
from notifier.model.reply import ReplyTo

Identity: TypeAlias = tuple[str, str | None, str | None, ClientOverrides | None]


@record
class ClientEntry:
    """One entry of `clients`. Members other than `client_id` override the registry, if that is allowed.

    `no_address`: according to the event the client has no address. Unless the registry has one, or had one less than
    `registry.grace` ago, the client is skipped and never unknown.
    The front-channel members are only for the page of a sign-out, and only for clients that the registry does not have.
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

    @property
    def overrides(self) -> ClientOverrides | None:
        """The members that override the client's registration; None if there are none."""
        uri, alg = self.backchannel_logout_uri, self.id_token_signed_response_alg
        required = self.backchannel_logout_session_required
        if uri is None and required is None and alg is None:
            return None
        return ClientOverrides(
            backchannel_logout_uri=uri, backchannel_logout_session_required=required, id_token_signed_response_alg=alg
        )


@record
class MisspeltMember:
    """An unknown member of an event, or of an entry of `clients`, that probably means the member `meant`."""

    written: str
    meant: str


@record
class SessionEnded:
    """The event as parsed. `id_given` is False if notifier generated the id, which then identifies no duplicates.

    A plain string in `clients` is a `client_id` without further members. `vouched`: its publisher is known to
    be the issuer's identity server or the operator, even if the issuer has no `publishers`. `unread`: the
    informational members that were dropped because they could not be parsed. `misspelt`: unknown members that probably
    mean a known one. `received_at`: when notifier received the event, if it was kept outside of the queue since: ages
    count from then on.
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
    email: str | None = None
    source: str | None = None
    type: str | None = None
    publisher: str | None = None
    claimed_publisher: str | None = None
    vouched: bool = False
    trace: str | None = None
    reply_to: ReplyTo | None = None
    unread: tuple[str, ...] = ()
    misspelt: tuple[MisspeltMember, ...] = ()
    received_at: float | None = None

    def identity_of(self, entry: str | ClientEntry, *, use_overrides: bool) -> Identity:
        """Return the values that identify the delivery of this entry within the event. Equal values mean a duplicate.

        Entries of one client that differ in any override are different deliveries, since notifier cannot choose
        between them and a second notification does no harm. `use_overrides`: overrides are accepted, now or recently.
        The plan also omits an entry whose overrides change nothing of its client.
        """
        if isinstance(entry, str):
            return entry, self.sub, self.sid, None
        sub = self.sub if entry.sub is None else entry.sub
        sid = self.sid if entry.sid is None else entry.sid
        return entry.client_id, sub, sid, entry.overrides if use_overrides else None
