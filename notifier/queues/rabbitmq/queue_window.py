"""Bounds the unconfirmed publishes to one queue, so that a queue that confirms nothing delays no other queue.

The publishers of a queue share its window. RabbitMQ (3.10, 4.0) stops reading a channel with more than 32 unconfirmed
publishes to one queue, and after 400 further messages for any queue it stops reading the connection: nothing is
confirmed until that queue recovers. So the window is 32 publishes. It is larger only while more than 16 are confirmed
within a round trip, since 32 would then be too slow; then it is twice their number, 250 at most. Others wait in the
memory of their callers, in order, only for this queue and for 10 s at most. A publish without a confirm fails after 10
s, but keeps its place until the confirm, or until the channel is closed, also if its caller ends. Another channel would
not help: RabbitMQ stops reading a new channel at its first publish to a queue that does not answer.

A queue refuses if it nacks, or confirms nothing. With `patience`, a publish raises OneQueueUnavailable if the queue has
refused for this many seconds, except one trial every half second. It raises after half a second if the queue has nacked
500 publishes, or 250 wait: so callers hold about 300 deliveries at most, of the 1,024 that a worker has memory for.
While a publish is unconfirmed, its confirm shows that the queue is back, and a trial would cost its caller 10 s and
leave another copy; so there is one a minute, in case that this confirm is lost. A nack shows for 10 s that the queue
answers, so that a lost confirm does not delay its trials.
"""

import asyncio
import math
from collections.abc import Mapping

from notifier.model.errors import OneQueueUnavailable, QueueFull, QueueUnavailable
from notifier.model.shared_resources import shared_slots

MIN_WINDOW, MAX_WINDOW = 32, 250  # unconfirmed publishes to one queue
MANY_NACKS, MANY_PUBLISHES = 500, 282  # in a row; and in the window or waiting for it
PATIENCE_SECONDS = 2.0  # after which a message waits elsewhere than in a queue that takes nothing
PLACE_SECONDS = 10.0  # after which a publish without a place fails, if there is no patience
SHORT_PATIENCE_SECONDS = 0.5  # for that many
TRIAL_SECONDS, UNCONFIRMED_TRIAL_SECONDS = 0.5, 60.0  # between publishes to a queue that refuses
CHANNEL_NACKS = 5  # in a row, after which another channel is needed
MIN_REPLACE_SECONDS, MAX_REPLACE_SECONDS = 2.0, 60.0  # between two channels that are opened because of nacks
REPLACE_SHARE = 0.25  # of the time for which the queue has refused: so it accepts again soon after a short refusal
LONG_REFUSAL_SECONDS = 10.0  # after which a refusal is a problem to report
REFUSAL_HELP = "notifier explain NotifierQueueRefuses"


class QueueWindow:
    """The window of one queue, entered by `async with` for each publish. Moments are those of the event loop.

    `confirmed_count` counts confirms. `refusal`: the text of the last refusal, at `refused_at`, since the last confirm.
    `is_reported`: the refusal is logged.
    """

    def __init__(self, patience: float | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._patience = patience
        self._places = shared_slots(MIN_WINDOW)
        self._size = self._wanted_size = MIN_WINDOW  # places, taken or free
        self._publish_count = 0  # in the window, or waiting for it
        self._nacks = 0
        self._late_count = 0  # publishes without a confirm, which keep their places
        self._silent_since = self._tried_at = 0.0
        self._nacked_at = -math.inf
        self.confirmed_count = 0
        self.refusal: str | None = None
        self.refused_at = 0.0
        self.is_reported = False
        self._keeps_place = False  # of the publish that leaves next

    async def __aenter__(self) -> None:
        """Wait for a place in the window. Raises QueueUnavailable, or with patience OneQueueUnavailable."""
        now = self._loop.time()
        if not self._publish_count and self.refusal is None:
            self._silent_since = now
        elif self._patience is not None:
            many = self._nacks >= MANY_NACKS or self._publish_count >= MANY_PUBLISHES
            if now - self._silent_since > (SHORT_PATIENCE_SECONDS if many else self._patience):
                is_silent = now - self._nacked_at > PLACE_SECONDS and (self._publish_count or self._late_count)
                pause = UNCONFIRMED_TRIAL_SECONDS if is_silent else TRIAL_SECONDS
                if now < max(self._tried_at, self._silent_since) + pause:
                    raise self._refuse()
                self._tried_at = now
        self._publish_count += 1
        try:
            if self._places.locked():
                async with asyncio.timeout(self._patience or PLACE_SECONDS):
                    await self._places.acquire()
            else:  # nearly always
                await self._places.acquire()
        except (asyncio.CancelledError, TimeoutError) as ended:
            self._publish_count -= 1
            if isinstance(ended, TimeoutError):
                raise self._refuse() from ended
            raise

    async def __aexit__(self, *_error: object) -> None:
        """Free the place, and one more or none if the window grows or shrinks. A place that is kept changes nothing."""
        self._publish_count -= 1
        if not self._keeps_place:
            change = (self._wanted_size > self._size) - (self._wanted_size < self._size)
            self._size += change
            for _ in range(1 + change):
                self._places.release()
        self._keeps_place = False

    def _refuse(self) -> QueueUnavailable:
        """Return the error of a publish that is not written, since the queue still refuses."""
        if self.refusal is not None:
            self.refused_at = self._loop.time()
        return self.to_error(self.refusal or "no confirm")

    def to_error(self, text: str) -> QueueUnavailable:
        """Return the error of a publish that the queue has not taken, and has no copy of, with this text."""
        if self._patience is None:
            return QueueUnavailable(text)
        return (QueueFull if self._nacks else OneQueueUnavailable)(text)

    def on_confirmed(self, former_count: int) -> None:
        """Record a confirm. `former_count`: the `confirmed_count` when the publish was written."""
        self.confirmed_count += 1
        self._wanted_size = min(MAX_WINDOW, max(MIN_WINDOW, 2 * (self.confirmed_count - former_count)))
        self._silent_since, self._nacks, self.refusal, self.is_reported = self._loop.time(), 0, None, False

    def on_refused(self, refusal: str, *, is_nack: bool, late_confirm: "asyncio.Future[object] | None" = None) -> None:
        """Record a nack, or a publish that was not confirmed in time, which keeps its place until `late_confirm`."""
        if is_nack:
            self._nacks, self._nacked_at = self._nacks + 1, self._loop.time()
        if late_confirm is not None:
            self.keep_place(late_confirm)
        self.refusal, self.refused_at = refusal, self._loop.time()

    def on_reported(self) -> None:
        """Record that the refusal is logged."""
        self.is_reported = True

    def keep_place(self, late_confirm: "asyncio.Future[object]") -> None:
        """Keep the place of the publish that leaves next until `late_confirm` ends: until then the broker counts it."""
        self._keeps_place = True
        self._late_count += 1
        late_confirm.add_done_callback(self._on_late_confirm)

    def _on_late_confirm(self, _confirm: object) -> None:
        self._late_count -= 1
        self._places.release()

    def needs_channel(self, opened_at: float) -> bool:
        """Return True if nacks in a row require another channel than the present one, which was opened at this moment.

        RabbitMQ 3.10 goes on to nack the publishes of a channel after the queue has room again.
        """
        now = self._loop.time()
        seconds = min(max(REPLACE_SHARE * (now - self._silent_since), MIN_REPLACE_SECONDS), MAX_REPLACE_SECONDS)
        return self._nacks >= CHANNEL_NACKS and now - opened_at >= seconds

    @property
    def refuses_long(self) -> bool:
        """True if the queue refuses for so long that it is a problem to report."""
        return self.refusal is not None and self.refused_at - self._silent_since >= LONG_REFUSAL_SECONDS


def describe_refusals(refusals: Mapping[str, str]) -> str | None:
    """Return the first refusal by the queue's name, the number of other queues that refuse, and the help; or None."""
    if not refusals:
        return None
    others = f", and {len(refusals) - 1} more refuse" if len(refusals) > 1 else ""
    return f"{refusals[min(refusals)]}{others}: {REFUSAL_HELP}"
