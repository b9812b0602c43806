"""Publish the ready events of one lane, oldest first. A failing lane does not delay the other lane."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace

from logout_notifier_publisher.backoff import Backoff
from logout_notifier_publisher.event_outbox import EventOutbox
from logout_notifier_publisher.event_transport import (
    Confirmed,
    EventTransport,
    FailureReason,
    OutgoingEvent,
    PublishFailure,
    PublishOutcome,
    Refused,
)
from logout_notifier_publisher.guarded_log import log
from logout_notifier_publisher.interception_tracker import MAX_ATTEMPTS, InterceptionTracker
from logout_notifier_publisher.lane import Lane
from logout_notifier_publisher.log_limit import LogLimit
from logout_notifier_publisher.outbox_files import REFUSED, StoredEvent
from logout_notifier_publisher.pending_events import EventState, PendingEvent
from logout_notifier_publisher.publisher_metrics import PublisherCounters
from logout_notifier_publisher.redaction import redact

BATCH_SIZE = 100
FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS = 0.25, 10.0
_REASONS_OF_RESPONSES = {FailureReason.DENIED, FailureReason.REJECTED, FailureReason.INTERCEPTED}


class LanePublisher:
    """Publishes the events of one lane. `connect_at_start`: connect before there is an event to publish."""

    def __init__(
        self,
        outbox: EventOutbox,
        lane: Lane,
        transport: EventTransport,
        counts: PublisherCounters,
        *,
        connect_at_start: bool,
    ) -> None:
        self._outbox = outbox
        self._lane = lane
        self._transport = transport
        self._counts = counts
        self._connect_at_start = connect_at_start
        self._log_limit = LogLimit(time.monotonic)
        self._failing = False
        # With jitter, so that processes do not reconnect at the same time.
        self._backoff = Backoff(FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS, jitter=0.2)
        self._interceptions = InterceptionTracker(time.monotonic)

    async def run(self) -> None:
        """Publish until cancelled."""
        while self._connect_at_start and not self._outbox.has_ready(self._lane):
            failed = await self._transport.connect()
            if failed is None:
                break
            self._failing = True
            self._record_failure(failed)
            await self._wait_to_retry(failed)
        while True:
            try:
                await self._publish_next_batch()
            except Exception as error:  # noqa: BLE001  an internal error must not end the loop
                if self._log_limit.allows(type(error).__name__):
                    log.exception("the publisher had an internal error and continues; please report it")
                await asyncio.sleep(LONGEST_DELAY_SECONDS)

    async def _publish_next_batch(self) -> None:
        taken = await self._take_probe_or_batch()
        is_probe = bool(taken) and taken[0].state is EventState.DEFERRED
        failed: PublishFailure | None = None
        confirmed = False

        def on_outcome(index: int, outcome: PublishOutcome) -> None:
            nonlocal failed, confirmed
            event, stored = read[index]
            failed = self._apply_outcome(event, stored, outcome) or failed
            confirmed = confirmed or isinstance(outcome, Confirmed)

        try:
            read = list(_take_until_repeated_id(await self._outbox.read_or_set_aside(taken)))
            if read:
                outgoing = [OutgoingEvent(id=stored.id, body=stored.body) for _, stored in read]
                await self._transport.publish(outgoing, on_outcome)
        finally:
            self._outbox.requeue(taken)  # ignores removed and deferred events
        if failed is None:
            if read:
                self._on_success()
            return
        self._record_failure(failed)
        if is_probe and not failed.concerns_others:
            return
        self._failing = True
        if confirmed:
            self._backoff.reset()  # other events are accepted
        await self._wait_to_retry(failed)

    async def _take_probe_or_batch(self) -> list[PendingEvent]:
        """Return a deferred event if it is time to probe one, otherwise wait for the oldest events."""
        if not self._outbox.list_deferred(self._lane):
            return await self._outbox.take(self._lane, BATCH_SIZE)
        wait = self._interceptions.seconds_until_probe()
        if wait and (taken := await self._outbox.take(self._lane, BATCH_SIZE, wait)):
            return taken
        deferred = {event.name: event for event in self._outbox.list_deferred(self._lane)}
        return [deferred[self._interceptions.select_probe([*deferred])]] if deferred else []

    def _apply_outcome(
        self, event: PendingEvent, stored: StoredEvent, outcome: PublishOutcome
    ) -> PublishFailure | None:
        """Apply the outcome to its event. Returns the failure if the event stays in the outbox."""
        match outcome:
            case Confirmed():
                if event.state is EventState.DEFERRED:
                    self._outbox.restore_deferred(self._lane)
                self._outbox.remove(event)
                self._counts.published += 1
                return None
            case Refused(text=text):
                self._outbox.set_aside(event, REFUSED, _redact_sub_and_sid(text, stored))
                return None
        failed = outcome
        if failed.reason in _REASONS_OF_RESPONSES:
            failed = replace(failed, text=_redact_sub_and_sid(failed.text, stored))
        if failed.concerns_others or event.state is EventState.DEFERRED:
            return failed
        if failed.reason is FailureReason.INTERCEPTED:
            self._on_intercepted(event, failed)
            return failed
        self._record_failure(failed)
        self._defer(event)
        return None

    def _on_intercepted(self, event: PendingEvent, failed: PublishFailure) -> None:
        self._interceptions.on_intercepted(event.name)
        if self._interceptions.attempt_count == 1:
            # so each intercepted event delays the others by 1.75 s and its requests, unless a longer wait is requested
            self._backoff.reset()
        if self._interceptions.exhausted:
            self._defer(event)
            log.warning(
                "event %s is deferred after %d responses that are not notifier's: %s. The other events are"
                " published. One deferred event is sent again every 10 to 60 s, in rotation",
                event.id, MAX_ATTEMPTS, failed.text,
            )  # fmt: skip

    def _defer(self, event: PendingEvent) -> None:
        if not self._outbox.list_deferred(self._lane):
            self._interceptions.on_first_deferred()
        self._outbox.defer(event)

    def _record_failure(self, failed: PublishFailure) -> None:
        self._counts.failures[failed.reason] += 1
        if self._log_limit.allows(failed.reason):
            log.warning(
                "publishing fails (lane %s, %s): %s. It is retried. %d events of both lanes are pending",
                self._lane.value, failed.reason.value, failed.text, len(self._outbox),
            )  # fmt: skip

    def _on_success(self) -> None:
        if self._failing:
            log.info("publishing works again (lane %s)", self._lane.value)
            self._failing = False
        self._backoff.reset()

    async def _wait_to_retry(self, failed: PublishFailure) -> None:
        await asyncio.sleep(max(self._backoff.next_delay(), failed.retry_after))


def _take_until_repeated_id(read: list[tuple[PendingEvent, StoredEvent]]) -> Iterator[tuple[PendingEvent, StoredEvent]]:
    """Yield the events before the first repeated id.

    A message that RabbitMQ returns as unroutable is identified only by its id.
    """
    ids: set[str] = set()
    for event, stored in read:
        if stored.id in ids:
            return
        ids.add(stored.id)
        yield event, stored


def _redact_sub_and_sid(text: str, stored: StoredEvent) -> str:
    """Redact the user and the session in a server's text about an event."""
    clients = stored.event.get("clients")
    entries = [each for each in clients if isinstance(each, dict)] if isinstance(clients, list) else []
    for document in (stored.event, *entries[:100]):
        for name in ("sub", "sid"):
            if isinstance(value := document.get(name), str):
                text = redact(text, value, f"<{name}>")
    return text
