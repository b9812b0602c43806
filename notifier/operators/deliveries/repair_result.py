"""Declares the result of a repair, and the reasons why one ended early, which are closed texts for all callers."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import islice

import structlog

from notifier.model.client import ClientKey

MAX_CLIENTS = 20  # clients that a result lists, the largest counts first
STOPPED_TEXT = "stopped; the rest is unchanged, and the same command goes on with it"
QUEUE_UNAVAILABLE_TEXT = "the queue is unavailable, or its disk is full; the rest is unchanged"
RESULTS_UNAVAILABLE_TEXT = "the queue became unavailable, and nothing was lost: the workers go on"


def log_queue_failure(error: object) -> None:
    """Log why the queue failed. The text names hosts and files, so answers of the API have a closed reason instead."""
    structlog.get_logger().warning("repair_failed", error=str(error))


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairResult:
    """The result of a pass. `done` is the number of removed or moved messages. A dry run counts them without a change.

    `by_reason` and `by_client` count these messages too. An event that became a dead letter as a whole has an empty
    client ID. `kept` counts the selected messages that were left unchanged, by reason. `unfinished` is the reason for
    an early end; None after a complete pass. `limited`: the pass ended at its limit. `failed`: the queue failed, or
    others hold the messages (`busy`). `missing` has the IDs of the filter that no message has; empty unless the pass
    was complete.
    """

    done: int
    by_reason: Mapping[str, int]
    by_client: Mapping[ClientKey, int] = field(default_factory=dict)
    kept: Mapping[str, int] = field(default_factory=dict)
    unfinished: str | None = None
    limited: bool = False
    failed: bool = False
    busy: bool = False
    missing: frozenset[str] = frozenset()

    def add(self, later: "RepairResult") -> "RepairResult":
        """Return the result of this pass and of a later one, which counts the kept messages again."""
        return replace(
            later,
            done=self.done + later.done,
            by_reason=dict((Counter(self.by_reason) + Counter(later.by_reason)).most_common()),
            by_client=dict((Counter(self.by_client) + Counter(later.by_client)).most_common()),
        )

    @property
    def ended_early(self) -> bool:
        """Return True if the pass failed or was stopped."""
        return self.unfinished is not None and not self.limited

    def document(self) -> dict[str, object]:
        """Return the JSON for scripts and the API."""
        return {
            "by_reason": dict(self.by_reason),
            "by_client": [
                {"iss": iss, "client_id": client_id, "count": count}
                for (iss, client_id), count in islice(self.by_client.items(), MAX_CLIENTS)
            ],
            "clients": len(self.by_client),
            "kept": dict(self.kept),
            "more": self.unfinished is not None,
            "unfinished": self.unfinished,
        }


def close_failure(result: RepairResult) -> RepairResult:
    """Return the result for answers: the failure of the queue is logged, and replaced by a closed reason."""
    if not result.failed or result.busy:
        return result
    log_queue_failure(result.unfinished)
    return replace(result, unfinished=QUEUE_UNAVAILABLE_TEXT)


def format_limit(limit: int | None) -> str:
    """Return the reason why a repair with this limit ended early."""
    return f"the limit of {limit:,} is reached; the same command goes on with the rest"
