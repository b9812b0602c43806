"""The port between a lane and the broker or the API, and the outcomes of a publish."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeAlias


class FailureReason(StrEnum):
    """Why an event stays pending. Also the label of the metric."""

    UNREACHABLE = "unreachable"
    DENIED = "denied"
    TIMED_OUT = "timed_out"
    UNROUTABLE = "unroutable"
    REJECTED = "rejected"
    DISCONNECTED = "disconnected"
    INTERCEPTED = "intercepted"
    FILES = "files"


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The broker or API has stored the event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishFailure:
    """The event was not accepted, and stays pending. `retry_after`: seconds that the server requested to wait.

    `concerns_others`: whether other events would probably fail as well.
    """

    reason: FailureReason
    text: str
    retry_after: float = 0.0
    concerns_others: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The server refuses the event permanently."""

    text: str


PublishOutcome: TypeAlias = Confirmed | PublishFailure | Refused
OnOutcome: TypeAlias = Callable[[int, PublishOutcome], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingEvent:
    """An event to publish, as JSON."""

    id: str
    body: bytes


class EventTransport(Protocol):
    """Publishes the events of one lane. Raises only CancelledError."""

    async def connect(self) -> PublishFailure | None:
        """Connect if necessary. Returns the failure, if any."""
        ...

    async def publish(self, events: Sequence[OutgoingEvent], on_outcome: OnOutcome) -> None:
        """Publish the events in order. Call `on_outcome` with the index and outcome of each event that was sent."""
        ...

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        ...

    async def close(self) -> None:
        """Close the connection within a second."""
        ...
