"""Publish the pending events of one lane, oldest first. A failing lane does not delay the other."""

import asyncio
import logging
import random
import time
from collections.abc import Iterator

from logout_notifier_publisher.event_outbox import EventOutbox
from logout_notifier_publisher.event_transport import (
    Confirmed,
    EventTransport,
    NeverTaken,
    NotTaken,
    OutgoingEvent,
    PublishOutcome,
)
from logout_notifier_publisher.lane import Lane
from logout_notifier_publisher.log_limit import LogLimit
from logout_notifier_publisher.outbox_files import REFUSED, Stored
from logout_notifier_publisher.publisher_metrics import Counts
from logout_notifier_publisher.redaction import redact
from logout_notifier_publisher.waiting_events import Waiting

AT_ONCE = 100
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 10.0

log = logging.getLogger("notifier.publisher")


class LaneSender:
    """The loop of one lane. `eager`: connect before there is an event to publish."""

    def __init__(
        self, outbox: EventOutbox, lane: Lane, transport: EventTransport, counts: Counts, *, eager: bool
    ) -> None:
        self._outbox = outbox
        self._lane = lane
        self._transport = transport
        self._counts = counts
        self._eager = eager
        self._log_limit = LogLimit(time.monotonic)
        self._failing = False
        self._pause = FIRST_PAUSE

    async def run(self) -> None:
        """Publish until cancelled."""
        while self._eager and not self._outbox.has_ready(self._lane):
            failed = await self._transport.ready()
            if failed is None:
                break
            self._note(failed)
            await self._rest(failed)
        while True:
            try:
                await self._round()
            except Exception as error:  # an internal error must not end the loop
                if self._log_limit.allows(type(error).__name__):
                    log.exception("the publisher had an internal error and continues; please report it")
                await asyncio.sleep(LONGEST_PAUSE)

    async def _round(self) -> None:
        taken = await self._outbox.take(self._lane, AT_ONCE)
        try:
            read = list(_without_repetitions(await self._outbox.contents(taken)))
            outgoing = [OutgoingEvent(id=stored.id, body=stored.body) for _, stored in read]
            outcomes = await self._transport.publish(outgoing) if outgoing else []
            failed = self._settle(read, outcomes)
        finally:
            self._outbox.give_back(taken)  # ignores the events that are gone
        if failed is not None:
            self._note(failed)
            if any(isinstance(outcome, Confirmed) for outcome in outcomes):
                self._pause = FIRST_PAUSE  # it concerns some events, and the others go on
            await self._rest(failed)
        elif outcomes:
            self._works()

    def _settle(self, read: list[tuple[Waiting, Stored]], outcomes: list[PublishOutcome]) -> NotTaken | None:
        """Apply each outcome to its event. Returns the last failure."""
        failed: NotTaken | None = None
        confirmed: list[Waiting] = []
        for (event, stored), outcome in zip(read, outcomes, strict=True):
            match outcome:
                case Confirmed():
                    confirmed.append(event)
                case NeverTaken(text=text):
                    self._outbox.set_aside(event, REFUSED, _without_names(text, stored))
                case NotTaken():
                    failed = outcome
        self._outbox.gone(*confirmed)
        self._counts.published += len(confirmed)
        return failed

    def _note(self, failed: NotTaken) -> None:
        self._failing = True
        self._counts.failures[failed.why] += 1
        if self._log_limit.allows(failed.why):
            log.warning(
                "publishing fails (lane %s, %s): %s. %d events wait; it is tried again, at most 10 s apart",
                self._lane.value, failed.why.value, failed.text, len(self._outbox),
            )  # fmt: skip

    def _works(self) -> None:
        if self._failing:
            log.info("publishing works again (lane %s)", self._lane.value)
            self._failing = False
        self._pause = FIRST_PAUSE

    async def _rest(self, failed: NotTaken) -> None:
        spread = random.uniform(0.8, 1.0)  # noqa: S311  processes should not come back together; no secret
        await asyncio.sleep(max(self._pause * spread, failed.after))
        self._pause = min(2 * self._pause, LONGEST_PAUSE)


def _without_repetitions(read: list[tuple[Waiting, Stored]]) -> Iterator[tuple[Waiting, Stored]]:
    """Yield the events up to the first repeated id, because the broker's returns cannot distinguish the two."""
    ids: set[str] = set()
    for event, stored in read:
        if stored.id in ids:
            return
        ids.add(stored.id)
        yield event, stored


def _without_names(text: str, stored: Stored) -> str:
    """Return a server's text about an event with the user and the session redacted."""
    clients = stored.event.get("clients")
    entries = [each for each in clients if isinstance(each, dict)] if isinstance(clients, list) else []
    for document in (stored.event, *entries[:100]):
        for name in ("sub", "sid"):
            if isinstance(value := document.get(name), str):
                text = redact(text, value, f"<{name}>")
    return text
