"""The port between the conformance suite and a publisher in an identity server or a small host.

A module `subjects/NAME.py` has a function `subject(folder: Path) -> Subject`. The suite makes one for each module
of cases, with a separate `folder`, and uses only the members below. Everything is asynchronous; a call that blocks for
more than some milliseconds runs in a thread. `subject` or `start` raises `Missing` where the server is unavailable: the
suite then skips it, or fails where NOTIFIER_TEST_PUBLISHERS is `required`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

__all__ = ["Away", "Missing", "Session", "Settings", "SignOutFailed", "Subject", "Traits"]


class Missing(Exception):  # noqa: N818  a state of the machine; the text has the remedy
    """The server of this subject is unavailable here. The text has the reason and the remedy."""


class SignOutFailed(Exception):  # noqa: N818  named after the event
    """The identity server answered a sign-out with anything but what the user should see."""


class Away(Exception):  # noqa: N818  named after the event
    """Nobody answered: the server was killed before or while it was asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the publisher is set to. A subject writes them in its publisher's own spelling.

    `url` has no password: `amqp://user@127.0.0.1:5672/`, `amqps://…`, or `http://127.0.0.1:8080`, notifier's API. The
    password of the broker's user, or the API's token, is in `secret_file`. `environment` comes on top of the subject's
    own. Times are in seconds.
    """

    url: str
    secret_file: Path
    outbox: Path
    ca_file: Path | None = None
    max_events: int = 100_000
    max_bytes: int = 268_435_456
    max_age: float = 30 * 86_400.0
    sign_out_limit: float = 2.0
    publish_limit: float = 10.0
    drain_limit: float = 5.0
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One session of a user, as the identity server has it.

    `key`: what `Subject.key_of` reads from its event. `expected`: members that its event has, word for word, `iss`
    and `clients` among them; those of `clients` are compared without their order. `secret`: words that never stand in a
    log: session ids, the user's name, cookies.
    """

    key: str
    expected: Mapping[str, Any]
    secret: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What a publisher is like, where they differ.

    `looks_up`: it asks the server whether the session of a `.pending` or `.prepared` lives. Otherwise it stores which
    sessions live, and writes no event before the end: an end for which the outbox has no room is published later.
    `lane_after_kill`: that of a session end without a file, which is found after the kill that came in between.
    `sign_ins`: how many sessions the short form may make for one case.
    """

    looks_up: bool = True
    lane_after_kill: str = "events"
    sign_ins: int = 100


class Subject(Protocol):
    """An identity server with the publisher in it: one process, started and ended by the suite."""

    @property
    def name(self) -> str:
        """Such as `python`: its module's name."""

    @property
    def traits(self) -> Traits:
        """What it is like."""

    async def start(self, settings: Settings) -> None:
        """Start the process, return once it takes sign-ins. After `stop` or `kill` its sessions are those of before."""

    async def stop(self) -> None:
        """End it as an operator does, with SIGTERM. Nothing happens if it does not run."""

    async def kill(self) -> None:
        """SIGKILL, and return once it is gone. Nothing happens if it does not run."""

    async def close(self) -> None:
        """End it and whatever else was started for it (a database, …). Nothing is left behind."""

    async def sibling(self) -> "Subject":
        """A second process beside it, not started: same outbox, same store of sessions."""

    async def sign_in(self, count: int = 1) -> list[Session]:
        """Create sessions, each with at least two clients to notify."""

    async def sign_out(self, session: Session) -> float:
        """End it as its user does. Seconds that the user waited. Raises SignOutFailed, or Away."""

    async def end_in_bulk(self, sessions: Sequence[Session]) -> None:
        """End them in one go, as an administrator or an expiry job does."""

    async def die_deleting(self, session: Session) -> None:
        """Its user signs out, and SIGKILL comes while the store has the deletion in hand.

        The store completes it a second after the next start, when it has been asked whether the session lives.
        """

    async def lives(self, session: Session) -> bool:
        """Whether the identity server still has the session."""

    def key_of(self, event: Mapping[str, Any]) -> str:
        """The `key` of the session that the event is about."""

    def log(self) -> str:
        """Everything that the process has written since the first start: its standard output, error and log files."""

    def memory(self) -> int:
        """Return the bytes of memory in use, after a garbage collection if possible; else the resident ones."""
