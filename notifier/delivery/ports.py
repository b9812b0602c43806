"""Declares what the pipeline needs from outside, beside the queue (`queue_port.py`): signer, channel and transport.

Each is a protocol of a few methods. Other rooms have these methods; `notifier/service` connects them.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from notifier.delivery.facts import Observer
from notifier.delivery.replacements import Move
from notifier.delivery.verdict import Dead
from notifier.model.backoff import Jitter
from notifier.model.client import Algorithm, Client, ClientKey, Encryption
from notifier.model.delivery import Delivery
from notifier.model.documents.dead_letter import DeadLetter
from notifier.model.errors import InternalFault
from notifier.model.frozen import frozen
from notifier.model.message import Message
from notifier.model.moment import Clock
from notifier.model.outcome import Answer, Break, Outcome, Wire
from notifier.model.request import Request
from notifier.model.session_ended import SessionEnded


@frozen
class News:
    """A worker's report of one client to its peers, without a guarantee. All seconds are spans, not moments.

    `failing`: for how long the client had failed; `rest`: for how long its circuit stays open. `parked`: something may
    be in its bucket. `cap` is its concurrency limit, `spacing` the seconds between two attempts if its rate has
    changed, `former_share` the share of failures before it kept that rate; 0 during a trial.
    """

    key: ClientKey
    up: bool
    failing: float = 0.0
    rest: float = 0.0
    cap: int = 1
    spacing: float = 0.0
    former_share: float = 0.0
    parked: bool = False


class Peers(Protocol):
    """The workers that share the queue."""

    def count(self) -> int:
        """Return how many there are, this one included; 0 while that is not known. They share the clients' limits."""

    def report(self, news: News) -> None:
        """Send the report to the others; one that cannot be sent soon is dropped. Never raises, never waits."""


class Signer(Protocol):
    """Signs logout tokens: a key file, an HSM or a key service.

    It bounds its own time. An attempt's deadline is the client's and does not interrupt it.
    """

    async def sign(self, iss: str, alg: Algorithm, typ: str | None, claims: Mapping[str, object]) -> str:
        """Return the compact JWS with its `kid`, signed by the issuer's key that is due now.

        Raises InternalFault(cause=signing).
        """


class Encrypter(Protocol):
    """Encrypts a signed token so that its client alone can read it. It bounds its own time, like a signer."""

    async def encrypt(self, client: Client, encryption: Encryption, token: str) -> str:
        """Return the token as a compact JWE, to a key of the client's. Raises InternalFault(cause=encryption)."""

    def doubted(self, encryption: Encryption) -> str | None:
        """Return why the key may have caused a 400, else None. Called after a 400."""


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
    """A way to notify a client of a logout: the request that is sent, and the meaning of the answer."""

    def uri(self, client: Client) -> str:
        """Return the address to which the client is sent something."""

    async def prepare(self, delivery: Delivery, client: Client) -> Push | Dead:
        """Make the body of a request, new for each one, or the reason why there is none. Raises InternalFault."""

    def read(self, answer: Answer | Break, client: Client) -> Outcome:
        """Return the outcome of the client's answer."""

    def internal_fault(self, outcome: Outcome, client: Client) -> InternalFault | None:
        """Return the internal fault that explains a refusal or failure; None if it lies with the client."""


@frozen
class Alone:
    """The only event of a message of a source, and the dead letter of the rest of that message."""

    event: SessionEnded
    dead_letter: DeadLetter | None


class SourceReader(Protocol):
    """Reads the messages of the sources whose name begins with its name and a slash, or of those without a slash."""

    def received(self, message: Message) -> Message:
        """Return the message without secrets that may not be stored. Never raises."""

    def open(self, message: Message, only: str | None, now: float, rest_until: float | None) -> Move | Alone:
        """Read the message. `only`: positions of events to read, None for all. Replacements are due at `rest_until`.

        Raises MalformedEvent, and UnknownSource if the source is not configured.
        """


class Transport(Protocol):
    """Sends requests to clients."""

    async def post(self, request: Request) -> Wire:
        """Send it and return the answer. Raises InternalFault(cause=tls_files or origin), not for faults of clients."""


@frozen
class Tools:
    """The tools of an attempt. `channel_of` returns the channel by which a client is notified.

    `steady` is a clock that never jumps, and stops while the process is suspended (`UnsuspendedClock`).
    """

    channel_of: Callable[[Client], Channel]
    transport: Transport
    clock: Clock
    steady: Clock
    jitter: Jitter
    observe: Observer
