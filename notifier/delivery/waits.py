"""Returns the deferral of a delivery by the wall clock, and the queue and delay of a retry.

`KnownClient.defer` decides where the delivery waits. Here this is limited by the delivery's last attempt.
"""

from notifier.delivery.admission import Deferral, Later, Ticket
from notifier.delivery.ages import waits_until
from notifier.delivery.circuit import OPEN_SHARE_OF_OUTAGE
from notifier.delivery.known_client import KnownClient
from notifier.delivery.known_clients import Slots
from notifier.delivery.ports import Tools
from notifier.delivery.verdict import AttemptResult, Defer, RetryAt, WaitsAs, retry, uncharged
from notifier.model.backoff import EARLY, LATE, SOON
from notifier.model.client import Client
from notifier.model.delivery import Delivery
from notifier.model.frozen import replace
from notifier.model.outcome import Cause, Signal

SHORT_LIVED = 60.0  # seconds: a delivery that expires within them is not parked, or it would expire in the bucket


class Waits:
    """Makes deferrals and retries. `leaving`: this worker stops, and parks nothing any more."""

    def __init__(self, tools: Tools, slots: Slots) -> None:
        self._tools = tools
        self._slots = slots
        self.leaving = False

    def defer(self, known: KnownClient, delivery: Delivery, later: Later, client: Client) -> Deferral:
        """Return the deferral by the wall clock. A delivery comes back for its last attempt, if there is time for one.

        What is parked in a bucket may stay there beyond that, and is judged when it comes back. So one with little
        time left is not parked, nor is any by a worker that stops, since it looks after no bucket any more: they wait
        in the delay queues for half of their age, again and again.
        """
        now = self._tools.clock()
        ahead = self._slots.ahead()
        due, turn = later.due + ahead, None if later.turn is None else later.turn + ahead
        if delivery.turn != turn:
            delivery = replace(delivery, turn=turn)
        last = waits_until(delivery, client, now)
        if later.waits_as is WaitsAs.PARKED and last - now >= SHORT_LIVED and not self.leaving:
            return delivery, Defer(due=due, cause=later.cause, waits_as=WaitsAs.PARKED, until=last)
        if later.waits_as is WaitsAs.PARKED:
            age = 0.0 if delivery.first_taken_at is None else now - delivery.first_taken_at
            due = now + max(SOON, min(due - now, OPEN_SHARE_OF_OUTAGE * age))
        if later.waits_as is not WaitsAs.PROBE:
            return delivery, Defer(due=min(due, last), cause=later.cause)
        if (due - now) * LATE <= last - now:
            asked = later.cause is Cause.RETRY_AFTER  # several passes, of which the last may end a second early
            known.on_probe_sent(due - ahead - (SOON if asked else 0))
            return delivery, Defer(due=due, cause=later.cause, waits_as=WaitsAs.PROBE, rounding="up")
        known.on_probe_sent(now - ahead + min(due - now, last - now) * EARLY)
        return delivery, Defer(due=min(due, last), cause=later.cause, waits_as=WaitsAs.PROBE)

    def after_failure(self, known: KnownClient, ticket: Ticket, result: AttemptResult, now: float) -> AttemptResult:
        """Return the result, including the queue and delay for a retry.

        A failure is not charged to the delivery's own backoff while the circuit is open or the client paused. While it
        is closed it is charged, if another delivery has succeeded since the last charge.
        """
        verdict, before, client = result.verdict, ticket.delivery, ticket.client
        if not isinstance(verdict, RetryAt) or result.signal not in (Signal.UNAVAILABLE, Signal.RATE_LIMITED):
            return result
        if result.asked and result.pause is None:
            return result  # the client said when this delivery is to come again
        up = ticket.rotated is None and known.is_available(now)
        paced = result.signal is Signal.RATE_LIMITED and known.rate.spacing > 0  # it may come again at that pace
        before_at = None if before.charged_at is None else before.charged_at - self._slots.ahead()
        if up and not paced and (before_at is None or before_at < known.circuit.succeeded_at):
            return result
        after = uncharged(result.delivery, before)
        if up and not paced:
            verdict = retry(after, client, None, self._tools.clock(), self._tools.jitter)
            return replace(result, delivery=after, verdict=verdict)
        tried = not ticket.rotated and (ticket.opened_circuit or before.leash is not None)
        later = known.defer(after, self._slots, now, tried=tried)
        after, defer = self.defer(known, after, later, client)
        leash = defer.due if defer.waits_as is WaitsAs.PROBE else None
        verdict = RetryAt(due=defer.due, rounding=defer.rounding, waits_as=defer.waits_as, until=defer.until)
        return replace(result, delivery=replace(after, leash=leash), verdict=verdict)
