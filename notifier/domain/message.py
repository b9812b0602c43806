"""What goes through a queue, whichever queue it is: the words that the pipeline and the queue adapters share.

Two kinds of message come in: what publishers wrote (`kind` None), and what we wrote ourselves (`Kind`). An adapter
sets `kind` only where the sender is proven to be us: nobody else can write to our queues but through the exchanges.
"""

from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum
from types import MappingProxyType

from notifier.domain.errors import QueueError
from notifier.domain.frozen import frozen
from notifier.domain.reply import ReplyTo


class Lane(StrEnum):
    """The queues that are consumed, in the order of their precedence for free slots."""

    EVENTS = "events"
    RETRIES = "retries"
    BULK = "bulk"


class Kind(StrEnum):
    """Our own messages, told apart by the AMQP property `type`."""

    EVENT = "notifier.event"
    DELIVERY = "notifier.delivery"
    DEAD_LETTER = "notifier.dead-letter"
    UNREADABLE = "notifier.unreadable"  # a dead letter too: its body is what came, see `unreadable`


class NewerKind(str):
    """The `type` of a message that a later release wrote and this one does not know. It keeps it as it goes on."""

    __slots__ = ()


_KINDS: Mapping[str, Kind] = MappingProxyType({kind.value: kind for kind in Kind})
OURS = "notifier."  # how every `type` of ours begins, in any release


def kind_named(name: str | None) -> Kind | NewerKind | None:
    """What a message of ours says it is. None where it says nothing of the sort."""
    if name is None or not name.startswith(OURS):
        return None
    return _KINDS.get(name) or NewerKind(name)


DELIVERY_LIMIT = 100  # times that a message is given back; at the next it is given up
# From so many on, what is given up is buried by the worker that has it in hand, since what a queue gives up by itself
# cannot be told from what somebody has forged. One below the limit, so that it has two chances for it.
LAST_CHANCE = DELIVERY_LIMIT - 1
SUSPECT = 3  # times that a message was given back for no known reason, after which it may be what kills the process
DEAD = "dead"
DELAYED = "delay."  # how the name of every queue begins in which messages wait until they are due


@frozen
class Whole:
    """What is known of a body of which only the beginning was kept: size in bytes and SHA-256, of all of it."""

    size: int
    sha256: str


@frozen
class Message:
    """A message as taken from a queue. `tag` is the adapter's own handle for the ack. `timestamp` in epoch seconds.

    Where `cut_from` is there the message was too large to be an event, and `body` is its beginning.
    `survived`: how many of the `delivery_count` times that it was given back this process has lived through.
    """

    lane: Lane
    body: bytes
    tag: object
    kind: Kind | NewerKind | None = None
    content_type: str | None = None
    headers: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    message_id: str | None = None
    timestamp: float | None = None
    user_id: str | None = None
    app_id: str | None = None
    delivery_count: int = 0
    reply_to: ReplyTo | None = None
    survived: int = field(default=0, compare=False)
    cut_from: Whole | None = None

    @property
    def suspect(self) -> bool:
        """Whether it may be what kills the process."""
        return self.delivery_count - self.survived >= SUSPECT

    @property
    def worn_out(self) -> bool:
        """Whether it has been given back so often that it must be buried now, whoever is to blame."""
        return self.delivery_count >= LAST_CHANCE


@frozen
class Outgoing:
    """A message of ours to be made durable. Headers are always built anew, never copied from a message that came."""

    kind: Kind | NewerKind
    body: bytes
    message_id: str
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    content_type: str = "application/json"


@frozen
class Transfer:
    """A dead letter that was taken, and the message to be made durable in `queue` in its place."""

    letter: Message
    queue: str
    outgoing: Outgoing


@frozen
class Transferred:
    """The letters whose place was taken, and why not all were, None where they were or somebody else was quicker."""

    done: tuple[Message, ...]
    failure: QueueError | None = None


@frozen
class QueueStatus:
    """How the connection to the queue stands. `problem` says in words what is wrong, None where nothing is."""

    connected: bool
    consuming: bool
    blocked: bool = False
    problem: str | None = None


@frozen
class Depth:
    """What waits in one queue: ready messages (unacked ones are not counted) and consumers."""

    ready: int
    consumers: int


@frozen
class Unsettled:
    """The messages of one lane that a worker has taken and not acked.

    `oldest` and `last_taken` say when the oldest of them, and the one taken last, were published (taken, if that is
    unknown), in epoch seconds; None if there is none.
    """

    messages: int = 0
    oldest: float | None = None
    last_taken: float | None = None
