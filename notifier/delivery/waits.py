"""Decides where and how long a delivery waits that may neither start nor wait in memory.

- While the circuit of its client is closed or untried, a delivery is deferred until its turn, which follows from the
  deliveries deferred before and the client's pace. Until then it waits in the delay queues, each time for no longer
  than it is old, or for a second.
- If the circuit is open or the client paused, a delivery becomes the *probe*: it waits in a delay queue until the
  circuit is half-open, and is the next attempt. While a probe of this worker cannot have returned yet, other deliveries
  are *parked* in the bucket.

So a worker that parks has a probe in a delay queue.
"""

from dataclasses import dataclass

from notifier.delivery.admission import Deferral, Ticket
from notifier.delivery.ages import waits_until
from notifier.delivery.circuit import MIN_OPEN_SECONDS, OPEN_SHARE_OF_OUTAGE, State
from notifier.delivery.known_client import KnownClient
from notifier.delivery.known_clients import KnownClients, Slots
from notifier.delivery.ports import Tools
from notifier.delivery.verdict import AttemptResult, Defer, RetryAt, WaitsAs, retry, uncharged
from notifier.model.backoff import EARLY, LATE, SOON, Rounding, one_pass
from notifier.model.client import Client
from notifier.model.delivery import Delivery
from notifier.model.frozen import replace
from notifier.model.message import Lane
from notifier.model.outcome import Cause, Signal

SHORT_LIVED = 60.0  # seconds: a delivery that expires within them is not parked, or it would expire in the bucket
LEAST_LINE, MOST_LINE = 1.0, 64.0  # seconds of one deferral, however young or old the delivery is …
LONGEST_LINE = 1024.0  # … or at most, where a registered rate determines the turn
SAME = 0.1  # seconds by which the clocks may have drifted apart since a probe was sent
BUSY_TRY = 2.0  # seconds that a probe waits for the end of another one, or for a slot


@dataclass(frozen=True, slots=True, kw_only=True)
class Later:
    """A delivery is deferred. `due`: the moment of its return or, if it is parked, of the client's next probe."""

    due: float
    cause: Cause
    waits_as: WaitsAs
    rounding: Rounding = "down"
    turn: float | None = None


class Waits:
    """Chooses where deliveries wait. `leaving`: this worker stops, and parks nothing any more."""

    def __init__(self, tools: Tools, clients: KnownClients, slots: Slots) -> None:
        self._tools = tools
        self._clients = clients
        self._slots = slots
        self.leaving = False

    def pace(self, known: KnownClient, now: float) -> float:
        """Return the seconds between two attempts at the client. What it may have at a time grows as they are made."""
        grows = min(known.limit, known.concurrency + known.waiting // 2) if known.up else known.concurrency
        return known.pace(now, grows if self._slots.free(known, Lane.EVENTS) > 0 else len(known.running))

    def put(
        self,
        known: KnownClient,
        delivery: Delivery,
        client: Client,
        now: float,
        *,
        pulled: bool = False,
        tried: bool = False,
    ) -> Deferral:
        """Return the delivery with its turn, and where it waits.

        `tried`: it is a probe, or its failure opened the circuit. A probe that comes early stays the probe: an operator
        or a reload had it come, and no other one is out.
        """
        tried = tried or self.is_only_probe(known, delivery)
        age = 0.0 if delivery.first_taken_at is None else self._tools.clock() - delivery.first_taken_at
        if not known.is_available(now):
            cause = Cause.RETRY_AFTER if known.is_paused(now) else Cause.CIRCUIT
            later = self._away(known, now, cause, tried=tried)
        elif known.circuit.state is State.UNTRIED and pulled and (known.running or known.waiting):
            # The attempt that runs or waits leads to the bucket.
            later = Later(due=now + MIN_OPEN_SECONDS, cause=Cause.SLOT, waits_as=WaitsAs.PARKED)
        else:
            cause = Cause.RATE if known.step and known.tokens(now) < 1 else Cause.SLOT
            later = self._in_line(known, delivery, now, age, cause, pulled=pulled)
        return self._defer(known, delivery, client, later)

    def is_only_probe(self, known: KnownClient, delivery: Delivery) -> bool:
        """Return True if the delivery is the client's probe, and this worker has sent no other one since."""
        leash = delivery.leash
        return leash is not None and leash - self._clients.ahead() > known.covered_until - SAME

    def _in_line(
        self, known: KnownClient, delivery: Delivery, now: float, age: float, cause: Cause, *, pulled: bool
    ) -> Later:
        """Defer it until its turn. If that is far, it is offered again before, and soon if the rate may rise by then.

        A delivery that this worker fetched from a bucket has its turn at the pace of all workers: no other one has
        counted it, and it returns to any of them.
        """
        turn = None if delivery.turn is None else delivery.turn - self._clients.ahead()
        steady, pace = known.rate.is_steady(now), self.pace(known, now)
        if sure := steady and pace == known.step:
            longest = now + LONGEST_LINE
        else:
            at_limit = steady and known.concurrency >= known.limit
            longest = now + (MOST_LINE if at_limit else min(MOST_LINE, max(LEAST_LINE, age)))
        if turn is None or turn <= now or (age < 0 and turn > longest):  # the last: the wall clock has jumped back
            shared_by = self._clients.workers if pulled else 1
            turn = max(known.line, now + (known.waiting + 1) * pace) + pace / shared_by
            if turn > longest and not sure:
                return Later(due=longest, cause=cause, waits_as=WaitsAs.DELAYED)
            known.on_turn(turn)
        return Later(due=min(turn, longest), cause=cause, waits_as=WaitsAs.DELAYED, turn=turn)

    def _away(self, known: KnownClient, now: float, cause: Cause, *, tried: bool) -> Later:
        """Keep it until the circuit is half-open or the pause is over: in the bucket, or as the probe."""
        paused = now < known.paused_until
        opens = known.paused_until if paused else known.circuit.next_try
        if known.covered(now) and not tried:
            return Later(due=opens, cause=cause, waits_as=WaitsAs.PARKED)
        wait = max(MIN_OPEN_SECONDS, opens - now) if opens > now else BUSY_TRY
        # One pass through one delay queue, which is exact. After several it may come a second early.
        return Later(due=now + (wait if paused else one_pass(wait)), cause=cause, waits_as=WaitsAs.PROBE)

    def _defer(self, known: KnownClient, delivery: Delivery, client: Client, later: Later) -> Deferral:
        """Return the deferral by the wall clock. A delivery comes back for its last attempt, if there is time for one.

        What is parked in a bucket may stay there beyond that, and is judged when it comes back. So one with little
        time left is not parked, nor is any by a worker that stops, since it looks after no bucket any more: they wait
        in the delay queues for half of their age, again and again.
        """
        now = self._tools.clock()
        ahead = self._clients.ahead()
        due, turn = later.due + ahead, None if later.turn is None else later.turn + ahead
        if delivery.turn != turn:
            delivery = replace(delivery, turn=turn)
        sid = self._tools.channel_of(client).names_session(delivery, client)
        last = waits_until(delivery, client.retry, carries_sid=sid, now=now)
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
        before_at = None if before.charged_at is None else before.charged_at - self._clients.ahead()
        if up and not paced and (before_at is None or before_at < known.circuit.succeeded_at):
            return result
        after = uncharged(result.delivery, before)
        if up and not paced:
            sid = self._tools.channel_of(client).names_session(after, client)
            verdict = retry(
                after, client.retry, None, carries_sid=sid, now=self._tools.clock(), jitter=self._tools.jitter
            )
            return replace(result, delivery=after, verdict=verdict)
        tried = not ticket.rotated and (ticket.opened_circuit or before.leash is not None)
        after, defer = self.put(known, after, client, now, tried=tried)
        leash = defer.due if defer.waits_as is WaitsAs.PROBE else None
        verdict = RetryAt(due=defer.due, rounding=defer.rounding, waits_as=defer.waits_as, until=defer.until)
        return replace(result, delivery=replace(after, leash=leash), verdict=verdict)
