"""Messages of any queue, as exchanged between the pipeline and the queues.

A message comes from a publisher (`kind` None) or from notifier itself (`Kind`). A queue sets `kind` only if notifier
is proven to be the sender: others can write to its queues only through the exchanges.
"""

from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum

from notifier.model.errors import QueueError
from notifier.model.record import record
from notifier.model.reply import ReplyTo


class Lane(StrEnum):
    """The consumed queues, in the order of their precedence for free slots."""

    EVENTS = "events"
    RETRIES = "retries"
    BULK = "bulk"

    __hash__ = str.__hash__  # Enum's hash is a Python function: nine look-ups per delivery


class Kind(StrEnum):
    """Notifier's own messages, distinguished by the AMQP property `type`."""

    EVENT = "notifier.event"
    DELIVERY = "notifier.delivery"
    DEAD_LETTER = "notifier.dead-letter"
    UNREADABLE = "notifier.unreadable"  # also a dead letter, with the original body: see `unreadable`
    SOURCED = "notifier.sourced"  # a message of a source, unchanged: see `sourced`


class NewerKind(str):
    """The `type` of a message from a later release, which this release does not know. The message stays unchanged."""

    __slots__ = ()


_KINDS: Mapping[str, Kind] = {kind.value: kind for kind in Kind}
OWN_KIND_PREFIX = "notifier."  # the beginning of each `type` of notifier, in any release


def parse_kind(name: str | None) -> Kind | NewerKind | None:
    """Return the kind that a message of this `type` claims to be; None if it is not one of notifier's."""
    if name is None or not name.startswith(OWN_KIND_PREFIX):
        return None
    return _KINDS.get(name) or NewerKind(name)


DELIVERY_LIMIT = 100  # times that a message may be returned to the queue; after one more the queue dead-letters it
# From this count on the worker dead-letters the message: a message that the queue dead-lettered may be a forgery. It is
# one below the limit, so that a worker has two chances.
LAST_CHANCE = DELIVERY_LIMIT - 1
MIN_SUSPECT_CRASHES = 3  # unexplained crashes after which a message is suspected to crash the process
CRASHES_HEADER = "crashes"  # the header of a delivery's message that counts its crashes so far
PART_OF_HEADER = "part_of"  # the header that all parts of one event share
DEAD = "dead"
MAX_PARKED_SECONDS = 1024.0  # the longest time of a delivery in a bucket
PARKED = "parked"  # all buckets together, in depths
PARKED_LARGE = f"{PARKED}-large"  # the beginning of the names of large buckets
SOURCE = "source."  # prefix of the queues of sources
DELAYED = "delay."  # prefix of the queues in which messages wait until they are due


@record
class CutBody:
    """The size in bytes and the SHA-256 of a whole body, of which only the beginning was kept."""

    size: int
    sha256: str


@record
class Message:
    """A message taken from a queue. `tag` is the queue's handle for the ack. `timestamp` is in epoch seconds.

    With `cut_from` the message was too large for an event, and `body` is its beginning. `survived`: how many of the
    `delivery_count` returns were not crashes: this process survived them, or an operator inspected the message.
    `source`: the name of the source from whose queue it came; None if it came through an exchange of notifier. With
    `unrouted` it was written directly into that queue, which bypasses the permissions on the exchanges. `vouched`: its
    author is known to be the operator, or the identity server of the issuer that it names. `received_at`: as in
    `SessionEnded`.
    """

    lane: Lane
    body: bytes
    tag: object
    kind: Kind | NewerKind | None = None
    content_type: str | None = None
    headers: Mapping[str, object] = field(default_factory=dict)
    message_id: str | None = None
    timestamp: float | None = None
    user_id: str | None = None
    app_id: str | None = None
    delivery_count: int = 0
    reply_to: ReplyTo | None = None
    survived: int = field(default=0, compare=False)
    cut_from: CutBody | None = None
    source: str | None = None
    unrouted: bool = False
    vouched: bool = False
    received_at: float | None = None

    @property
    def queue(self) -> str:
        """The queue that delivered the message, without prefix; `retries` for a message of a bucket."""
        return self.lane.value if self.source is None else SOURCE + self.source

    @property
    def unexplained_returns(self) -> int:
        """How many times the message was redelivered for no known reason."""
        return self.delivery_count - self.survived

    @property
    def crashes(self) -> int:
        """How many processes may have died because of this message.

        From `MIN_SUSPECT_CRASHES` on, each trial adds one at most: a message that waits for its next trial does not
        run, so its redeliveries are not evidence.
        """
        counted = read_count(self.headers, CRASHES_HEADER) if self.kind is Kind.DELIVERY else 0
        returns = max(0, self.unexplained_returns)
        if counted >= MIN_SUSPECT_CRASHES:
            return counted + min(1, returns)
        return min(MIN_SUSPECT_CRASHES, counted + returns)

    @property
    def suspect(self) -> bool:
        """True if the message may crash the process, so that a trial must replace it before it runs."""
        return self.unexplained_returns > 0 and self.crashes >= MIN_SUSPECT_CRASHES

    @property
    def at_delivery_limit(self) -> bool:
        """True if the message was redelivered so often that it must become a dead letter now."""
        return self.delivery_count >= LAST_CHANCE or (self.delivery_count > 0 and self.crashes >= LAST_CHANCE)

    @property
    def lasting_headers(self) -> Mapping[str, str]:
        """The headers that a copy of the message in another queue must have."""
        return crash_headers(read_count(self.headers, CRASHES_HEADER)) if self.kind is Kind.DELIVERY else _NO_HEADERS


_NO_HEADERS: Mapping[str, str] = {}


def crash_headers(crashes: int) -> Mapping[str, str]:
    """Return the headers with this crash count for a delivery's message; a trial has `MIN_SUSPECT_CRASHES` or more."""
    return {CRASHES_HEADER: str(crashes)} if crashes else _NO_HEADERS


def read_count(headers: Mapping[str, object], name: str) -> int:
    """Return the count in this header; 0 if there is none, or if notifier cannot have written it."""
    counted = str(headers.get(name, ""))
    return int(counted) if counted.isdecimal() and len(counted) < 5 else 0


@record
class MessageDraft:
    """A message of notifier to publish. Its headers are built, never copied from a received message."""

    kind: Kind | NewerKind
    body: bytes
    message_id: str
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"


@record
class Transfer:
    """A message `taken` from a queue, and the message that replaces it in `queue`, after `wait` seconds."""

    taken: Message
    queue: str
    outgoing: MessageDraft
    wait: float = 0.0


@record
class TransferResult:
    """The messages that were replaced. `failure`: why others were not, unless another worker had taken them."""

    done: tuple[Message, ...]
    failure: QueueError | None = None


@record
class Binding:
    """The binding of a source's queue to an exchange outside notifier."""

    source: str
    exchange: str
    routing_key: str = "#"


@record
class BindingState:
    """A binding, the problem why it is missing, and the remedy. Both texts are empty if no problem is known."""

    binding: Binding
    problem: str = ""
    advice: str = ""

    def row(self) -> dict[str, str]:
        """Return the members as a flat mapping, for JSON."""
        binding = self.binding
        names = {"source": binding.source, "exchange": binding.exchange, "routing_key": binding.routing_key}
        return names | {"problem": self.problem, "advice": self.advice}

    def __str__(self) -> str:
        """Return a sentence on one line."""
        is_bound = f"source {self.binding.source} is {'not ' if self.problem else ''}bound to exchange"
        why = f": {'; '.join(filter(None, (self.problem, self.advice)))}" if self.problem else ""
        return f"{is_bound} {self.binding.exchange}{why}"


class PolicyKey(StrEnum):
    """Settings of a broker policy that conflict with notifier's queues, as far as a temporary queue shows them."""

    OVERFLOW = "overflow"
    MESSAGE_TTL = "message-ttl"
    MAX_LENGTH = "max-length"
    DELIVERY_LIMIT = "delivery-limit"

    @property
    def text(self) -> str:
        """The problem, on one line."""
        return f"a policy sets {self} on our queues"


@record
class QueueStatus:
    """The state of the connection to the queue. `problem`: what is wrong, or None.

    `bindings`: the bindings of the sources; a missing binding is not a `problem`, since everything else works.
    `overrides`: settings of a broker policy, which only the broker's operator can remove. `moved_on`: how many overdue
    messages were moved out of delay queues. `dead_letters`: their number when no pass held any; 0 on queues that count
    held ones. `refusing`: how many queues have refused messages for long. `lacks_large_buckets`: they were missing at
    the start, so that a client with a large backlog may delay others in its bucket.
    """

    connected: bool
    consuming: bool
    blocked: bool = False
    problem: str | None = None
    bindings: tuple[BindingState, ...] = ()
    overrides: tuple[PolicyKey, ...] = ()
    moved_on: int = 0
    dead_letters: int = 0
    refusing: int = 0
    lacks_large_buckets: bool = False


@record
class Depth:
    """The ready messages of a queue (unacked ones do not count), and its consumers."""

    ready: int
    consumers: int


@record
class Unsettled:
    """The messages of one queue that a worker has taken and not acked.

    `set_aside` of them do not count against the prefetch, since they are late. `oldest`: the publishing time of the
    message that was taken first, of the others and those held for over 15 minutes; None without any. `last_taken`: that
    of the last message that was taken, acked or not; None before the first. Both are in epoch seconds, and the time of
    taking if the publishing time is unknown.
    """

    messages: int = 0
    set_aside: int = 0
    oldest: float | None = None
    last_taken: float | None = None
