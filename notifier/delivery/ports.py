"""Declares what the pipeline needs from outside, beside the queue (`queue_port.py`): signer, channel and transport.

Each is a protocol of a few methods. Other rooms have these methods; `notifier/service` connects them.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from typing import Protocol, runtime_checkable

from notifier.delivery.facts import Observer
from notifier.delivery.verdict import Dead
from notifier.model.backoff import Jitter
from notifier.model.client import Algorithm, Client, ClientKey, Encryption
from notifier.model.delivery import Delivery
from notifier.model.errors import InternalFault
from notifier.model.message import Lane
from notifier.model.moment import Clock
from notifier.model.outcome import HttpResponse, Outcome, TransportFailure, TransportResult
from notifier.model.pauses import Pause
from notifier.model.record import record
from notifier.model.request import PreparedRequest, Request


@record
class ClientReport:
    """A worker's report of one client to its peers, without a guarantee.

    `failing_seconds`: how long the client has been failing. `open_seconds`: how long its circuit stays open. `parked`:
    deliveries may be in its bucket. `concurrency`: its concurrency limit. `spacing`: the seconds between two attempts
    if its rate limit has changed, otherwise 0. `former_share`: the share of failed attempts before that limit; 0 if
    the limit is a trial.
    """

    key: ClientKey
    circuit_closed: bool
    failing_seconds: float = 0.0
    open_seconds: float = 0.0
    concurrency: int = 1
    spacing: float = 0.0
    former_share: float = 0.0
    parked: bool = False


class Peers(Protocol):
    """The workers that share the queue."""

    def count(self) -> int:
        """Return the number of workers, including this one; 0 while it is unknown."""

    def report(self, report: ClientReport) -> None:
        """Send the report to the other workers soon, or drop it. Never raises, never waits."""


class Signer(Protocol):
    """Signs logout tokens, by a key file, an HSM or a key service, within its own time limit."""

    async def sign(self, iss: str, alg: Algorithm, typ: str | None, claims: Mapping[str, object]) -> str:
        """Return a compact JWS with a `kid`, signed by the issuer's present key.

        Raises InternalFault(cause=signing).
        """


class Encrypter(Protocol):
    """Encrypts signed tokens so that only their client can read them, within its own time limit."""

    async def encrypt(self, client: Client, encryption: Encryption, token: str) -> str:
        """Return the token as a compact JWE for a key of the client. Raises InternalFault(cause=encryption)."""

    def explain_rejection(self, encryption: Encryption) -> str | None:
        """Return why the client's key may have caused a 400; None if no reason is known. Call it after a 400 only."""


class Channel(Protocol):
    """A way to notify a client of a logout: it makes the requests and reads the answers."""

    async def prepare(self, delivery: Delivery, client: Client) -> PreparedRequest | Dead:
        """Return a new request, or Dead if the client can never be sent one. Raises InternalFault."""

    def read(self, result: HttpResponse | TransportFailure, client: Client) -> Outcome:
        """Return the outcome of the request."""

    def internal_fault(self, outcome: Outcome, client: Client) -> InternalFault | None:
        """Return the internal fault that explains a refusal or failure; None if the client caused it."""


@runtime_checkable
class CanaryChannel(Protocol):
    """A channel with another request than the usual one that has no effect on sessions."""

    async def prepare_canary(self, delivery: Delivery, client: Client) -> PreparedRequest | Dead:
        """Return a request without effect, for a user and a session that do not exist. Raises InternalFault."""


@record
class ChannelTools:
    """What channels make requests with. `new_jti` never returns the same id twice. `jti_prefixes`: by issuer.

    `unverifiable` returns why a client cannot verify our signatures, None if no reason is known; it is called only
    after a client rejected a signature.
    """

    signer: Signer
    clock: Clock
    new_jti: Callable[[], str]
    unverifiable: Callable[[Client], str | None] = lambda _client: None
    jti_prefixes: Mapping[str, str] = field(default_factory=dict)


class Transport(Protocol):
    """Sends requests to clients."""

    async def post(self, request: Request) -> TransportResult:
        """Send the request and return what happened.

        Raises InternalFault (tls_files, origin, open_files), never for the client. If its task is cancelled, it raises
        CancelledRequest where a timeout has a meaning.
        """


class MessageOfDelivery(Protocol):
    """The message that a delivery came in. It is acked once each of its deliveries is settled."""

    @property
    def lane(self) -> Lane:
        """The lane of the message."""

    @property
    def crashes(self) -> int:
        """How many workers have died while they had the message."""

    def on_delivery_settled(
        self, delivery: Delivery, *, covers_copies_until: float | None
    ) -> "Iterable[tuple[MessageOfDelivery, Delivery]]":
        """Settle the delivery, and return the copies that waited for it and must run, each with its message.

        `covers_copies_until`: until then copies in an event need no attempt (monotonic clock); infinite if the client
        was notified, None for a dead letter.
        """


class Pauses(Protocol):
    """The pauses that operators requested, as this worker has read them.

    `in_force`: by client, empty mostly. `outdated_at`: from when on `refresh` must precede an attempt, since this
    process was suspended (epoch seconds).
    """

    in_force: Mapping[ClientKey, Pause]
    outdated_at: float

    async def refresh(self) -> None:
        """Read the pauses, for a bounded time. Never raises."""


@record
class Tools:
    """What an attempt uses. `channels`: the channels by which clients are notified, by `Client.channel_kind`.

    `monotonic` is a clock that never jumps and stops while the process is suspended (`UnsuspendedClock`).
    """

    channels: Mapping[str, Channel]
    transport: Transport
    clock: Clock
    monotonic: Clock
    jitter: Jitter
    observe: Observer
    pauses: Pauses
