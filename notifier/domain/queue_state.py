"""How the queue stands, as one who looks without touching anything finds it."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerState:
    """A broker that let us in. `missing` and `different` name queues and exchanges, the latter with what differs.

    `blocked`: an alarm stops publishing. `stamped`: the broker's clock, in epoch seconds, where it stamps messages
    (`message_interceptors`); `asked`: ours at that moment.
    """

    version: str
    may_configure: bool
    may_write: bool
    may_read: bool
    blocked: bool
    missing: tuple[str, ...] = ()
    different: tuple[str, ...] = ()
    stamped: float | None = None
    asked: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FileState:
    """The embedded queue's file. `worker`: one consumes it now; `fault` says why it cannot be used."""

    path: Path
    size: int | None
    worker: bool
    fault: str | None = None
