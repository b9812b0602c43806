"""Declares what the pipeline needs from outside: queue, signer, channel, transport and registry.

Each is a protocol of a few methods. Adapters have these methods; the composition root (`notifier/app`) connects them.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from notifier.domain.backoff import Rounding
from notifier.domain.client import Algorithm, Client, Encryption, Route
from notifier.domain.delivery import Delivery
from notifier.domain.errors import OurFault
from notifier.domain.frozen import frozen
from notifier.domain.message import Lane, Message, Outgoing
from notifier.domain.outcome import Answer, Break, Outcome, Wire
from notifier.domain.registry import Registry
from notifier.domain.upstream import LocalSessions, Question, SessionsAway
from notifier.domain.verdict import Dead
from notifier.pipeline.known_client import News

Clock = Callable[[], float]
"""Seconds since the epoch."""

CurrentRegistry = Callable[[], Registry]
"""The registry as it stands now."""


class UpstreamSessions(Protocol):
    """Knows which sessions here belong to one at an upstream OpenID Provider."""

    async def look_up(self, upstream: str, question: Question) -> LocalSessions | SessionsAway | None:
        """Return the sessions that are meant; None if no upstream of this name is configured. Never raises.

        It bounds its own time.
        """


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


class Parking(Protocol):
    """Where deliveries wait for a client that is down: in buckets. Several clients may share one."""

    def bucket(self, client: tuple[str, str]) -> str:
        """Return the name of the bucket of this client (`iss`, `client_id`)."""

    def left_behind(self) -> Collection[str]:
        """Return the buckets in which a worker that has ended may have left something."""

    async def park(self, bucket: str, message: Outgoing, *, until: float) -> None:
        """Return once the message is durable in the bucket. Raises QueueUnavailable.

        It stays there until it is fetched. At the latest it comes back as a retry by itself: after `LONGEST_PARKED` on
        RabbitMQ, at `until` (epoch seconds) if the queue can.
        """

    async def fetch(self, bucket: str, most: int) -> Sequence[Message]:
        """Take up to `most` messages out of the bucket, oldest first, to be acked like those of the lane of retries.

        Fewer than `most` mean that nothing else waits there. They may be for another client of the bucket. What is not
        acked before the connection is lost, or the process ends, is in the bucket again. Raises QueueUnavailable.
        """

    async def parked(self, buckets: Collection[str] | None = None) -> Mapping[str, int]:
        """Return how many messages wait in each of these buckets (None: in all), without the empty ones.

        Messages that were taken and not acked do not count. Raises QueueUnavailable.
        """


class Peers(Protocol):
    """The workers that share the queue."""

    def count(self) -> int:
        """Return how many there are, this one included. They share the clients' limits."""

    def tell(self, news: News) -> None:
        """Tell the others, at best effort: what cannot go soon is dropped. Never raises, never waits."""


class Acknowledger(Protocol):
    """The other end of taking a message."""

    def ack(self, message: Message) -> None:
        """The message has found its durable fate. Never raises, never waits; without effect where it was lost since."""


class Inbox(Protocol):
    """Receives messages from a queue. Both methods are called on the event loop and must return at once."""

    def take(self, message: Message) -> None:
        """Take a message. It counts against the lane's prefetch until it is acked."""

    def lost(self, lane: Lane, source: str | None = None) -> None:
        """Forget the unacked messages of a queue: its channel is gone, and all of them will come again.

        It is the queue of this source, which feeds the lane, or else the lane's own.
        """


class Signer(Protocol):
    """Signs logout tokens: a key file, an HSM or a key service.

    It bounds its own time. An attempt's deadline is the client's and does not interrupt it.
    """

    async def sign(self, iss: str, alg: Algorithm, typ: str | None, claims: Mapping[str, object]) -> str:
        """Return the compact JWS with its `kid`, signed by the issuer's key that is due now.

        Raises OurFault(cause=signing).
        """


class Encrypter(Protocol):
    """Makes a signed token one that its client alone can read. It bounds its own time, like a signer."""

    async def encrypt(self, client: Client, encryption: Encryption, token: str) -> str:
        """Return the token as a compact JWE, to a key of the client's. Raises OurFault(cause=encryption)."""

    def doubted(self, encryption: Encryption) -> str | None:
        """Say why a 400 may be the fault of the key that was used; None if it hardly is. Called after a 400."""


@frozen
class Push:
    """What one attempt sends to a client: the body of a POST, or a GET if there is none. No log may show `secret`.

    `uri` is the address if it is another one for each push. `jti` is empty if no token is sent.
    """

    jti: str
    body: bytes | None
    secret: str
    uri: str = ""


class Channel(Protocol):
    """A way to tell a client of a delivery: what it is sent, and what its answer means."""

    def uri(self, client: Client) -> str:
        """Return the address to which the client is sent something."""

    def names_session(self, delivery: Delivery, client: Client) -> bool:
        """Return True if the client is told which session ended; False if all sessions of the user end there."""

    async def prepare(self, delivery: Delivery, client: Client) -> Push | Dead:
        """Make what is sent, new for each request, or say why there can be nothing. Raises OurFault."""

    def read(self, answer: Answer | Break, client: Client) -> Outcome:
        """Say what the client's answer means."""

    def our_fault(self, outcome: Outcome, client: Client) -> OurFault | None:
        """Return the fault of ours that explains a refusal or failure; None if it lies with the client."""


@frozen
class Request:
    """One POST of a form, or a GET without a `body`.

    `timeout` in seconds bounds everything, from name look-up to the last byte of the answer.
    `secret` is taken out of the answer's text. `new_connection` asks for a connection that was not used before.
    """

    uri: str
    body: bytes | None
    secret: str
    timeout: float
    route: Route
    new_connection: bool = False


class Transport(Protocol):
    """Sends requests to clients."""

    async def post(self, request: Request) -> Wire:
        """Send it and say what happened. Raises OurFault(cause=tls_files or origin), never for a client's fault."""
