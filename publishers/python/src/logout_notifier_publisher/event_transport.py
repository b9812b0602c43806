"""The way to the broker or the API, as a lane uses it: events in, one outcome for each out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeAlias


class Failure(StrEnum):
    """Why an event was not taken and is tried again. It is the metric's label too."""

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
class NotTaken:
    """Not accepted now. `after`: seconds that the server requested to wait."""

    why: Failure
    text: str
    after: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NeverTaken:
    """The event is rejected for good."""

    text: str


PublishOutcome: TypeAlias = Confirmed | NotTaken | NeverTaken
OnOutcome: TypeAlias = Callable[[int, PublishOutcome], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingEvent:
    """What is published: the event as JSON."""

    id: str
    body: bytes


class EventTransport(Protocol):
    """Publishes the events of one lane. Nothing is raised but a cancellation."""

    async def ready(self) -> NotTaken | None:
        """Connect if necessary. Returns the reason of a failure."""
        ...

    async def publish(self, events: Sequence[OutgoingEvent], on_outcome: OnOutcome) -> None:
        """Publish them in this order. Call `on_outcome` with the index and outcome of each event that was sent."""
        ...

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        ...

    async def close(self) -> None:
        """End the connection, within a second."""
        ...
