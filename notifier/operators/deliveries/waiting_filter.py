"""Selects pending deliveries, and summarises them for lists. A summary never has `sub` or `sid`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Annotated, Any, Literal, Required

from pydantic import ConfigDict, Field, with_config
from pydantic_core import from_json, to_json
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier.model.backoff import MIN_WAIT_SECONDS
from notifier.model.delivery import Delivery
from notifier.model.documents.cloudevents import MAX_TEXT_LENGTH
from notifier.model.documents.documents import load_delivery, load_due, load_event
from notifier.model.errors import InputIssue, MalformedEvent, UnknownVersion
from notifier.model.message import Kind, Lane, Message, MessageDraft, Transfer
from notifier.model.moment import format_optional_moment
from notifier.model.outcome import Cause, Reason
from notifier.operators.deliveries.dead_letter_filter import (
    REASON_DESCRIPTION,
    FilterMembers,
    names_subject,
    read_conditions,
)
from notifier.operators.deliveries.groups import Group
from notifier.operators.deliveries.repair_pass import Filter
from notifier.operators.status.lifetime import GetLifetime
from notifier.queues.passes import OnWait, OpenPass, ignore_holder, make_pass_reader
from notifier.queues.queue_port import WaitingDeliveries

Where = Literal["delayed", "parked"]
HasEnded = Callable[[str, str, str], bool]
"""Returns True if this cause of deferral (or reason of a failure), at this issuer and client, has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingSummary:
    """A pending delivery, or a pending event, which has an empty `client_id`. Times are in epoch seconds.

    `since` is the time when a worker first received it. `due` is the time of the next attempt; None if
    unknown, or for a parked delivery, which waits until its client recovers. `reason` is the cause of its deferral, or
    the reason of its last failure. `failure` is that reason also while it is deferred, with its `status` and `text`.
    `asked`: its client requested the delay (`Retry-After`). `expires` is the time when it is given up if `reason` lasts
    until then, and `has_sid` whether its token has a `sid`; both are None without a registry. `session_at` is the time
    when the session ended or, if unknown, `since`. Lists do not show `session_at`.
    """

    id: str
    event_id: str = ""
    client_id: str = ""
    iss: str
    where: Where
    reason: str = ""
    failure: str = ""
    status: int | None = None
    text: str = ""
    attempts: int = 0
    since: float | None = None
    due: float | None = None
    asked: bool = False
    expires: float | None = None
    has_sid: bool | None = None
    session_at: float | None = field(default=None, metadata={"hidden": True})

    def document(self) -> dict[str, object]:
        """Return the JSON for scripts and the API."""
        members = {name: getattr(self, name) for name in _LISTED_MEMBERS}
        return members | {name: format_optional_moment(getattr(self, name)) for name in ("since", "due", "expires")}

    def group(self) -> Group:
        """Return a group that contains only this message."""
        return Group(
            client_id=self.client_id, iss=self.iss, reason=self.reason, where=self.where, oldest=self.since,
            next=self.due, expires=self.expires, without_sid=int(self.has_sid is False),
        )  # fmt: skip


_LISTED_MEMBERS = tuple(member.name for member in fields(WaitingSummary) if "hidden" not in member.metadata)
REASONS = tuple(dict.fromkeys(str(name) for name in (*Cause, *Reason) if name is not Reason.DELIVERED))


def read_waiting(message: Message, get_lifetime: GetLifetime = lambda _: None) -> WaitingSummary:
    """Summarise any pending message. Never raises.

    Of a message that cannot be parsed or that a later release wrote, only the ID and `due` are known.
    """
    due = load_due(message.body)
    try:
        if message.kind is Kind.DELIVERY:
            return _summarise_delivery(load_delivery(message.body), due, get_lifetime)
        document = load_event(message.body)
    except (MalformedEvent, UnknownVersion):
        return WaitingSummary(id=message.message_id or "", where="delayed", iss="", due=due)
    event, since, lifetime = document.event, document.unknown_since, get_lifetime(document)
    return WaitingSummary(
        id=message.message_id or event.id, where="delayed", iss=event.iss, event_id=event.id, due=due,
        since=since, reason=Cause.UNKNOWN.value if since is not None else "",
        expires=None if lifetime is None else lifetime.expires,
        session_at=event.ended_at if event.ended_at is not None else since,
    )  # fmt: skip


def _summarise_delivery(delivery: Delivery, due: float | None, get_lifetime: GetLifetime) -> WaitingSummary:
    """Summarise a delivery. While it is deferred, its `reason` is the cause of the deferral."""
    progress, lifetime = delivery.progress, get_lifetime(delivery)
    deferred_for, since = progress.deferred_for, progress.first_taken_at
    failure = progress.history[-1] if progress.history else None
    return WaitingSummary(
        id=delivery.id,
        where="parked" if progress.parked else "delayed",
        iss=delivery.iss,
        client_id=delivery.client_id,
        event_id=delivery.event_id,
        due=None if progress.parked else due,
        since=since,
        session_at=since if delivery.ended_at is None else delivery.ended_at,
        attempts=progress.attempts,
        reason=deferred_for or ("" if failure is None else failure.reason),
        failure="" if failure is None else failure.reason,
        status=None if failure is None else failure.status,
        text="" if failure is None else failure.text,
        asked=progress.delayed_by_client or deferred_for == Cause.RETRY_AFTER.value,
        expires=None if lifetime is None else lifetime.expires,
        has_sid=None if lifetime is None else lifetime.has_sid,
    )


@with_config(ConfigDict(extra="forbid"))
class ClientMembers(TypedDict, total=False):
    """The members that name one client, in a request and as options."""

    client_id: Annotated[
        Required[str], Field(min_length=1, max_length=MAX_TEXT_LENGTH, description="The client, or an alias of it.")
    ]
    iss: Annotated[
        str, Field(min_length=1, max_length=MAX_TEXT_LENGTH, description="Its issuer. Needed if there are several.")
    ]


class WaitingMembers(FilterMembers, total=False):
    """The members that select pending deliveries."""

    reason: Annotated[
        list[Annotated[str, Field(json_schema_extra={"enum": [*REASONS]})]], Field(description=REASON_DESCRIPTION)
    ]


class CancelMembers(WaitingMembers, total=False):
    """The members of a cancellation."""

    all: Annotated[bool, Field(description="Select every pending delivery.")]
    dry_run: Annotated[bool, Field(description="Count the deliveries; change nothing.")]
    limit: Annotated[int, Field(ge=1, description="At most this many.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingFilter(Filter[WaitingDeliveries, WaitingSummary]):
    """Selects pending deliveries. A member that is None does not restrict the selection.

    `has_ended` selects deliveries whose cause of deferral has ended, by (reason, `iss`, `client_id`). Without `parked`,
    only delayed deliveries are selected. `get_lifetime` is used for summaries only.
    """

    has_ended: HasEnded | None = field(default=None, metadata={"unlogged": True})
    parked: bool = True
    get_lifetime: GetLifetime | None = field(default=None, metadata={"unlogged": True})

    @property
    def has_conditions(self) -> bool:
        """Return True if the operator has given a condition; `issuers` and `parked` are none."""
        return self != WaitingFilter(issuers=self.issuers, parked=self.parked, get_lifetime=self.get_lifetime)

    def open_pass(
        self, messages: WaitingDeliveries, on_wait: OnWait = ignore_holder, *, whole: bool
    ) -> OpenPass[WaitingSummary]:
        """Open a pass over the selected deliveries. If single clients are selected, only their buckets are read."""
        clients = None
        if self.client_id is not None and self.iss is not None:
            clients = frozenset({(self.iss, self.client_id)})
        summarise = read_waiting if self.get_lifetime is None else partial(read_waiting, get_lifetime=self.get_lifetime)
        reader = make_pass_reader(summarise, self.matches, whole=whole)
        return messages.open_pass(reader, clients=clients, parked=self.parked, on_wait=on_wait)

    def matches(self, message: Message, summary: WaitingSummary) -> bool:
        """Return True if the filter selects the delivery."""
        return self.matches_summary(summary) and (self.subject is None or names_subject(message.body, self.subject))

    def matches_summary(self, summary: WaitingSummary) -> bool:
        """Return True if the delivery meets all conditions except `subject`."""
        return self._meets_shared_conditions(summary) and (
            self.has_ended is None or self.has_ended(summary.reason, summary.iss, summary.client_id)
        )


def read_waiting_filter(
    members: Mapping[str, Any], now: float, issuers: frozenset[str] | None = None
) -> WaitingFilter | InputIssue:
    """Read an operator's filter from options or a request. Return an InputIssue for an invalid member.

    A time may also be an age, counted back from `now`. A member that is None counts as absent. `issuers` are those
    that the operator may see; None for all.
    """
    conditions = read_conditions(members, now, WaitingMembers, REASONS)
    return conditions if isinstance(conditions, InputIssue) else WaitingFilter(issuers=issuers, **conditions)


def to_due_transfer(message: Message, due_at: float, now: float) -> Transfer:
    """Return the transfer that makes a message due at `due_at`, or at once if that is within MIN_WAIT_SECONDS."""
    document: dict[str, Any] = from_json(message.body, allow_inf_nan=False)
    document.pop("schedule", None)
    wait = due_at - now
    if wait < MIN_WAIT_SECONDS:
        wait = 0.0
    else:
        document["schedule"] = {"due": due_at}
    assert message.kind is not None, "pending messages are notifier's own"
    body, headers = to_json(document), message.lasting_headers
    outgoing = MessageDraft(kind=message.kind, body=body, message_id=message.message_id or "", headers=headers)
    return Transfer(taken=message, queue=Lane.RETRIES.value, outgoing=outgoing, wait=wait)
