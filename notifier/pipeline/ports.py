"""What the pipeline needs from outside: the queue, the signer, the transport, the registry, the observer.

Each is one or two methods. Adapters satisfy them by shape; the composition root (`app`) connects them.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from notifier.domain.backoff import Rounding
from notifier.domain.client import Algorithm, Route
from notifier.domain.frozen import frozen
from notifier.domain.message import Lane, Message, Outgoing
from notifier.domain.outcome import Wire
from notifier.domain.registry import Registry

Clock = Callable[[], float]
"""Seconds since the epoch."""

CurrentRegistry = Callable[[], Registry]
"""The registry as it stands now."""


class Publisher(Protocol):
    """The durable side of a queue."""

    async def publish(self, queue: str, message: Outgoing) -> None:
        """Return once the message is durable in `queue` (name without prefix). Raises QueueUnavailable."""

    async def publish_later(self, message: Outgoing, *, due: float, rounding: Rounding = "down") -> None:
        """Return once the message is durable. It comes back as a retry when it is due, after 1 s at the least.

        A queue may round the wait, by an eighth down or a seventh up at most. It keeps a wait of 1, 2, 4 … 65,536 s as
        it is. Raises QueueUnavailable.
        """

    async def available(self) -> None:
        """Return when a publish has a chance again: connected and not blocked. Never raises; paces its caller."""


class Acknowledger(Protocol):
    """The other end of taking a message."""

    def ack(self, message: Message) -> None:
        """The message has found its durable fate. Never raises, never waits; without effect where it was lost since."""


class Inbox(Protocol):
    """Receives messages from a queue. Both methods are called on the event loop and must return at once."""

    def take(self, message: Message) -> None:
        """Take a message. It counts against the lane's prefetch until it is acked."""

    def lost(self, lane: Lane) -> None:
        """Forget the unacked messages of a lane: their connection is gone, and all of them will come again."""


class Signer(Protocol):
    """Signs logout tokens."""

    def sign(self, iss: str, alg: Algorithm, typ: str | None, claims: Mapping[str, object]) -> str:
        """The compact JWS, by the key of the issuer that is due now, with its `kid`. Raises OurFault(cause=signing)."""


@frozen
class Request:
    """One POST of a logout token. `timeout` in seconds bounds everything, from name look-up to the last body byte.

    `new_connection` asks for a connection that was not used before.
    """

    uri: str
    token: str
    timeout: float
    route: Route
    new_connection: bool = False


class Transport(Protocol):
    """Sends a logout token."""

    async def post(self, request: Request) -> Wire:
        """POST it and tell what happened. Raises OurFault (cause tls_files), never for a fault of the client's."""
