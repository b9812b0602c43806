"""Defines a delivery: the task to notify one client about one event. It has many attempts and never holds a token.

Times are seconds since the epoch. A delivery carries its history, so that any worker can continue it.
"""

import hashlib
from typing import Annotated

from pydantic import Field

from notifier.model.backoff import MAX_LATE_FACTOR, MIN_EARLY_FACTOR
from notifier.model.client import Algorithm
from notifier.model.frozen import frozen, replace
from notifier.model.json_size import MAX_CHARACTER_BYTES, cut, size
from notifier.model.reply import ReplyTo

MAX_HISTORY_LENGTH = 10
MAX_HISTORY_BYTES = 2048  # bytes of response texts in the whole history, as written in JSON
MAX_ANSWER_BYTES = 1024
MAX_CLOCK_DIFFERENCE_SECONDS = 60.0  # seconds by which the clocks of two workers may differ

StoredCount = Annotated[int, Field(ge=0, lt=2**31)]


@frozen
class ClientOverrides:
    """The event's members about the client, which override the registry if `Registry.accepts_overrides` permits it.

    `vouched` is that of the event, and is set only while the other members are not accepted.
    """

    backchannel_logout_uri: str | None = None
    backchannel_logout_session_required: bool | None = None
    id_token_signed_response_alg: Algorithm | None = None
    vouched: bool = False


@frozen
class PastOutcome:
    """One earlier outcome. `text` is the printable beginning of the response or error."""

    at: float
    reason: str
    status: int | None = None
    text: str = ""


@frozen
class RecordedWaits:
    """The time that a delivery provably spent: `seconds` of waits and attempts. It is a lower bound of the age.

    `since` and `longest` are the beginning and the longest length of a wait that has not ended yet. `undated`: the
    clock was set back during a wait of unknown length, so the age is unknown.
    """

    seconds: float = 0.0
    since: float | None = None
    longest: float = 0.0
    undated: bool = False

    def end_wait(self, now: float, *, parked: bool) -> "RecordedWaits":
        """Return the record with the wait added, limited to the longest time for which a queue keeps a message.

        If the clock was set back meanwhile, the minimum of the planned wait is added; a parked delivery has none.
        """
        if self.since is None:
            return self
        elapsed_seconds = now - self.since
        if elapsed_seconds >= 0:
            waited_seconds = min(elapsed_seconds, self.longest * MAX_LATE_FACTOR)
        else:
            waited_seconds = 0.0 if parked else self.longest * MIN_EARLY_FACTOR
        undated = self.undated or (parked and elapsed_seconds < -MAX_CLOCK_DIFFERENCE_SECONDS)
        return RecordedWaits(seconds=self.seconds + waited_seconds, undated=undated)


NO_WAITS = RecordedWaits()


@frozen
class Delivery:
    """The task to notify one client about one event.

    `sub` and `sid` are taken from the event or its entry; at each attempt the client's profile chooses between them.
    `entry_sub`: `sub` is for this client only (pairwise). `email`: that of the event, if its publisher may set
    overrides. `inline`: overrides that were accepted when the event was
    planned; `ignored`: overrides that were not. At most one of the two is set. `rejections` counts 400s (R3, R12).

    `first_taken_at`: when a worker first took the delivery, where its age begins; stored by its first deferral or
    retry. `uncounted_seconds`: since then, which do not count as age. `waits`: a lower bound of the age, in case
    clocks are wrong. `waited_for`: all causes of its deferrals, as text, since a later release may add causes.

    `probe_due`: set only for the probe of a client: when it returns for the next attempt. `slot_at`: when the delivery
    has a slot, among the deferred deliveries of a client whose circuit is closed. `backoffs`: the number of failures
    that lengthen the backoff; `charged_at`: the time of the last of these. `parked`: it waits in its client's bucket;
    never set in memory. `delayed_by_client`: it waits because its client requested that (`Retry-After`), until
    `delayed_until`, which is not stored.
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
    attempts: StoredCount = 0
    rejections: StoredCount = 0
    ambiguous: bool = False
    first_taken_at: float | None = None
    first_attempt_at: float | None = None
    uncounted_seconds: float = 0.0
    waits: RecordedWaits = NO_WAITS
    waited_for: tuple[str, ...] = ()
    deferrals: StoredCount = 0
    deferred_for: str | None = None
    probe_due: float | None = None
    slot_at: float | None = None
    backoffs: StoredCount = 0
    charged_at: float | None = None
    parked: bool = False
    delayed_by_client: bool = False
    delayed_until: Annotated[float | None, Field(exclude=True)] = None
    unknown_since: float | None = None
    history: tuple[PastOutcome, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        """The client's key."""
        return (self.iss, self.client_id)

    @property
    def stage(self) -> tuple[int, int, str | None]:
        """The stage, which each retry and each deferral changes."""
        return (self.attempts, self.deferrals, self.deferred_for)

    def age_began_at(self, now: float) -> float:
        """Return when the age began: by the wall clock, or earlier if the recorded waits are longer than its age."""
        return now if self.first_taken_at is None else min(self.first_taken_at, now - self.waits.seconds)

    def with_past(self, past: PastOutcome) -> tuple[PastOutcome, ...]:
        """Return the history with one more outcome: the last ten, and the newest 2 KiB of text."""
        return shorten_history((*self.history, past)[-MAX_HISTORY_LENGTH:], MAX_HISTORY_BYTES)


def shorten_history(history: tuple[PastOutcome, ...], max_bytes: int) -> tuple[PastOutcome, ...]:
    """Return the history with at most `max_bytes` of text in JSON. The newest texts are kept, older ones are cut.

    Each text has at most MAX_ANSWER_BYTES.
    """
    longest = MAX_CHARACTER_BYTES * sum(len(past.text) for past in history)
    if longest <= min(max_bytes, MAX_ANSWER_BYTES):  # the usual case
        return history
    newest_first: list[PastOutcome] = []
    bytes_left = max_bytes
    for past in reversed(history):
        text = cut(past.text, min(bytes_left, MAX_ANSWER_BYTES))
        bytes_left -= size(text)
        newest_first.append(past if text == past.text else replace(past, text=text))
    return tuple(reversed(newest_first))


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
