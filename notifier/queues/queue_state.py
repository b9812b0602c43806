"""The results of a look at the queue, for `notifier status` and `notifier doctor`. A look changes nothing."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from notifier.model.message import DEAD, BindingState, Depth, PolicyOverride


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueOverview:
    """What waits in the queues, and the states that the workers sent (documents of `operators/status/own_state.py`).

    `oldest` is when the first message of a queue was written, in epoch seconds; only a file knows. `blocked`:
    why the queue takes no message, so that no worker can answer; empty if it takes them.
    """

    depths: Mapping[str, Depth]
    oldest: Mapping[str, float]
    worker_states: Sequence[bytes]
    blocked: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerAnswers:
    """The answers of workers to a request. `seen`: how many workers consume the queue, and so should have answered."""

    seen: int
    answers: Sequence[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyLook:
    """Which policies override what our queues were declared with.

    `by` says what told them: the broker's management API, or a temporary queue, which shows only some. `fault`: why the
    management API did not tell them, though it is configured.
    """

    by: Literal["management", "trial"] | None = None
    overrides: tuple[PolicyOverride, ...] = ()
    fault: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerState:
    """A broker that let us in. `missing` and `different` name queues and exchanges, the latter with what differs.

    `declares`: workers declare what is missing (`queue.topology`). `blocked`: an alarm stops publishing. `stamped`: the
    broker's clock in epoch seconds, if it stamps messages (`message_interceptors`); `asked`: our clock at that moment.
    `bindings`: those of the sources, and whether they can be made. `keeps_expired`: whether an expired message stays
    until its next queue has it; None where our permissions or an alarm left that untried.
    """

    prefix: str
    declares: bool

    version: str
    may_configure: bool
    may_write: bool
    may_read: bool
    blocked: bool
    missing: tuple[str, ...] = ()
    different: tuple[str, ...] = ()
    stamped: float | None = None
    asked: float = 0.0
    bindings: Sequence[BindingState] = ()
    keeps_expired: bool | None = None
    policies: PolicyLook = PolicyLook()


@dataclass(frozen=True, slots=True, kw_only=True)
class FileState:
    """The embedded queue's file. `worker`: a worker consumes it now; `fault` says why it cannot be used."""

    path: Path
    size: int | None
    worker: bool
    fault: str | None = None


def release_of(version: str) -> tuple[int, int]:
    """The release of a broker that says this version: its first two numbers; (0, 0) if it says none."""
    numbers = re.match(r"(\d{1,9})\.(\d{1,9})", version)
    return (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)


def with_visited(depths: Mapping[str, Depth], visited: int) -> Mapping[str, Depth]:
    """The depths with as many dead letters as a visit announces, if that is more than the broker counts as ready."""
    dead = depths.get(DEAD)
    if dead is None or dead.ready >= visited:
        return depths
    return {**depths, DEAD: Depth(ready=visited, consumers=dead.consumers)}
