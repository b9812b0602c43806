"""The results of queue inspections for `notifier status` and `notifier doctor`. An inspection changes nothing."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from notifier.model.message import BindingState, Depth, PolicyKey


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueOverview:
    """The depths of the queues, and the states that workers sent (documents of `operators/status/own_state.py`).

    `oldest`: when the first message of a queue was written, in epoch seconds; only for the embedded queue. `workers`:
    their number. `blocked`: why the queue accepts no message, so that no worker can answer; empty if it accepts
    messages. `dead_letters_held`: a pass holds dead letters that the depths may omit.
    """

    depths: Mapping[str, Depth]
    oldest: Mapping[str, float]
    worker_states: Sequence[bytes]
    workers: int = 0
    blocked: str = ""
    dead_letters_held: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerAnswers:
    """Workers' answers to a request. `seen`: the number of workers that should have answered."""

    seen: int
    answers: Sequence[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerState:
    """The state of a broker that accepted the login. `missing` and `different` name queues and exchanges.

    `different` includes the differences. `declares`: workers declare missing ones (`queue.topology`). `blocked`: an
    alarm stops publishing. `bindings`: of sources, and whether they can be created.
    `keeps_expired`: an expired message stays until its next queue has it; None if not tested. `policies`: those that
    change a temporary queue, or why that could not be tested; None if not tested.
    `may_announce`: the user may declare the queue by which a worker announces itself.
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
    bindings: Sequence[BindingState] = ()
    keeps_expired: bool | None = None
    policies: tuple[PolicyKey, ...] | str | None = None
    may_announce: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class FileState:
    """The embedded queue's file. `worker`: whether a worker consumes it now; `fault`: why it cannot be used."""

    path: Path
    size: int | None
    worker: bool
    fault: str | None = None


def parse_release(version: str) -> tuple[int, int]:
    """Return the first two numbers of the broker's version; (0, 0) if it has none."""
    numbers = re.match(r"(\d{1,9})\.(\d{1,9})", version)
    return (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)
