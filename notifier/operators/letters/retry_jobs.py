"""The job that has what waits for one client attempted at once, and accounts for it: see `retry_now`.

It has what waits alone only while it goes through it, so a busy client's retry holds up no other's.
"""

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, Literal

from notifier.model.errors import QueueError
from notifier.network.listeners.problem import Refusal
from notifier.operators.letters.jobs import AWAY, ENDED, Job, JobEnds, Turns
from notifier.operators.letters.repair_audit import WriteAudit
from notifier.operators.letters.retry_now import RetryResult, RetryWish, retry_now
from notifier.queues.passes import RepairOptions
from notifier.queues.queue_port import Queue

WATCHED = 600.0  # seconds


class RetryWork:
    """One retry. To end it ends the watching alone, once the workers have been asked."""

    kind: Literal["retry"] = "retry"

    def __init__(self, queue: Queue, wish: RetryWish, turns: Turns, write_audit: WriteAudit) -> None:
        self.wish = wish
        self.issuers = frozenset({wish.key[0]})
        self.wanted: Mapping[str, object] = {"iss": wish.key[0], "client_id": wish.key[1], "force": wish.force}
        self._queue = queue
        self._turns = turns
        self._write_audit = write_audit
        self._result = RetryResult(waited={})
        self._counted = False

    def account(self) -> dict[str, Any]:
        """See Work. `waited` is None until it is counted."""
        members = {**self.wanted, "dry_run": False, **self._result.document()}
        return members if self._counted else members | {"waited": None}

    async def carry_out(self, job: Job) -> None:
        """See Work."""
        until = job.steady() + WATCHED

        def alone() -> AbstractAsyncContextManager[None]:
            return job.turn(self._turns)

        def tell(result: RetryResult) -> None:
            self._result, self._counted = result, True
            if job.free.is_set():
                job.state = "watching"

        options = RepairOptions(
            clock=job.clock,
            steady=job.steady,
            pause=asyncio.sleep,
            stop=lambda: job.ending is not None or job.steady() >= until,
        )
        try:
            self._result = await retry_now(self._queue, self.wish, options, alone=alone, tell=tell)
        except JobEnds as ends:
            self._result = replace(self._result, unfinished=str(ends))
        except (QueueError, Refusal):  # its own text names hosts and files
            self._result = replace(self._result, unfinished=AWAY)
        except asyncio.CancelledError:
            self._result = replace(self._result, unfinished=job.ending or ENDED)
            raise
        finally:
            self._write_audit("retried_now", who=self.wish.who, **self.wanted, **self._result.document())
