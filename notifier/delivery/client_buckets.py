"""Decides where deliveries wait that are not attempted now, and which buckets are fetched from.

`KnownClient.defer` decides where a delivery waits. Here this is limited by the delivery's last attempt, and moments of
the steady clock become those of the wall clock.

As long as a delivery may be parked for a client, something will lead back to its bucket: a pass of this worker
(`requested`, made by `pulls.py`), a running attempt, or a probe in a delay queue. Methods return at once.
"""

from notifier.delivery.admission import Deferral, Later, Room, Ticket
from notifier.delivery.ages import waits_until
from notifier.delivery.circuit import MAX_OPEN_SECONDS, OPEN_SHARE_OF_OUTAGE, State
from notifier.delivery.facts import ClientServed
from notifier.delivery.known_client import KnownClient
from notifier.delivery.known_clients import KnownClients
from notifier.delivery.ports import Tools
from notifier.delivery.verdict import AttemptResult, Defer, RetryAt, WaitsAs, retry, uncharged
from notifier.model.backoff import MAX_LATE_FACTOR, MIN_EARLY_FACTOR, MIN_WAIT_SECONDS, deferral_wait
from notifier.model.client import Client, ClientKey
from notifier.model.defaults import PREFETCH
from notifier.model.delivery import Delivery
from notifier.model.frozen import replace
from notifier.model.message import Lane
from notifier.model.outcome import Cause, Signal

MIN_PARKED_SECONDS = 60.0  # a delivery that expires within them is not parked, or it would expire in the bucket
PROBE_FAILURES = 4  # attempts of a delivery, after which another delivery is the probe
MAX_ROTATIONS = PREFETCH[Lane.RETRIES] // 8  # at a time: each holds a message, and other clients have retries too
OVERDUE_SECONDS = 60.0  # that a probe may be late: it waits behind others, or at another worker


class Buckets:
    """The deferrals of one worker, the passes through buckets that it requests, and the rotation of its probes."""

    def __init__(self, tools: Tools, room: Room, clients: KnownClients) -> None:
        self._tools = tools
        self._room = room
        self._clients = clients
        self.requested: dict[ClientKey, None] = {}  # clients whose buckets need a pass, in this order
        self._rotations = 0  # clients whose next probe is being fetched
        self._leaving = False  # this worker stops, and parks nothing any more

    # ── deferrals and retries ──

    def defer(self, known: KnownClient, delivery: Delivery, later: Later, client: Client) -> Deferral:
        """Return the deferral by the wall clock. A delivery comes back for its last attempt, if there is time for one.

        What is parked in a bucket may stay there beyond that, and is judged when it comes back. So one with little
        time left is not parked, nor is any by a worker that stops, since it will make no more passes: they wait
        in the delay queues for half of their age, again and again.
        """
        now, ahead = self._tools.clock(), self._room.ahead()
        due, turn, cause = later.due + ahead, None if later.turn is None else later.turn + ahead, later.cause
        if delivery.turn != turn:
            delivery = replace(delivery, turn=turn)
        last = waits_until(delivery, client, now)
        if later.waits_as is WaitsAs.PARKED:
            if last - now >= MIN_PARKED_SECONDS and not self._leaving:
                return delivery, Defer(due=due, cause=cause, waits_as=WaitsAs.PARKED, until=last)
            age = 0.0 if delivery.first_taken_at is None else now - delivery.first_taken_at
            due = now + max(MIN_WAIT_SECONDS, min(due - now, OPEN_SHARE_OF_OUTAGE * age))
        if later.waits_as is not WaitsAs.PROBE:
            return delivery, Defer(due=min(due, last), cause=cause)
        if (due - now) * MAX_LATE_FACTOR <= last - now:
            early = MIN_WAIT_SECONDS if cause is Cause.RETRY_AFTER else 0  # the last of several passes may end early
            known.on_probe_sent(due - ahead - early, ahead)
            return delivery, Defer(due=due, cause=cause, waits_as=WaitsAs.PROBE, rounding="up")
        due = min(due, last)
        known.on_probe_sent(now - ahead + (due - now) * MIN_EARLY_FACTOR, ahead)
        return delivery, Defer(due=due, cause=cause, waits_as=WaitsAs.PROBE)

    def after_attempt(
        self, known: KnownClient, ticket: Ticket, result: AttemptResult, now: float
    ) -> tuple[AttemptResult, float]:
        """Return the result, including the queue and delay of a retry, and the seconds for which its probe may wait.

        Unless they are 0, a parked delivery is to replace the probe, which waits for that, unacked, for at most half of
        them. Then `on_rotated` returns the queue and delay.
        """
        seconds = self._rotate(known, ticket, result, now)
        return (result if seconds else self.on_rotated(ticket, result)), seconds

    def on_rotated(self, ticket: Ticket, result: AttemptResult) -> AttemptResult:
        """Return the result of an attempt, with its queue and delay. Its probe does not wait for another one."""
        known, now = self._clients[ticket.client.key], self._tools.steady()
        if known.replaced_probe is ticket:
            self._end_rotation(known)
        after = self._after_failure(known, ticket, result, now)
        if isinstance(after.verdict, Defer) and ticket.delivery.leash is not None:  # an internal fault: still the probe
            wait = deferral_wait(after.verdict.due - self._tools.clock())
            known.on_probe_sent(now + wait, self._room.ahead())
        self._look_after(known, now)
        return after

    def _after_failure(self, known: KnownClient, ticket: Ticket, result: AttemptResult, now: float) -> AttemptResult:
        """Return the result, including the queue and delay for a retry.

        A failure is not charged to the delivery's own backoff while the circuit is open or the client paused. While it
        is closed it is charged, if another delivery has succeeded since the last charge.
        """
        verdict, before, client = result.verdict, ticket.delivery, ticket.client
        if not isinstance(verdict, RetryAt) or result.signal not in (Signal.UNAVAILABLE, Signal.RATE_LIMITED):
            return result
        if result.delivery.asked and result.pause is None:
            return result  # the client requested a time for this delivery
        paced = result.signal is Signal.RATE_LIMITED and known.rate.spacing > 0  # it may come again at that pace
        available = ticket.rotated is None and known.is_available(now) and not paced
        charged_at = None if before.charged_at is None else before.charged_at - self._room.ahead()
        if available and (charged_at is None or charged_at < known.circuit.succeeded_at):
            return result
        after = uncharged(result.delivery, before)
        if available:
            verdict = retry(after, client, None, self._tools.clock(), self._tools.jitter)
            return replace(result, delivery=after, verdict=verdict)
        tried = not ticket.rotated and (ticket.opened_circuit or before.leash is not None)
        later = known.defer(after, self._room, now, tried=tried)
        after, defer = self.defer(known, after, later, client)
        leash = defer.due if defer.waits_as is WaitsAs.PROBE else None
        verdict = RetryAt(due=defer.due, rounding=defer.rounding, waits_as=defer.waits_as, until=defer.until)
        return replace(result, delivery=replace(after, leash=leash), verdict=verdict)

    # ── passes ──

    def _look_after(self, known: KnownClient, now: float) -> None:
        """Request a pass through the client's bucket, unless an attempt or a probe will lead to it."""
        if not known.parked or known.in_pass:
            return
        tried = bool(known.running or known.waiting) or known.is_covered(now)
        if tried and not (known.circuit.state is State.CLOSED and known.is_available(now)):
            return
        if self._leaving:
            self._clients.report(known, now, paced=False)
        else:
            self.requested[known.key] = None

    def look_after_overdue(self) -> None:
        """Request passes for the clients whose probe is long overdue: an operator may have removed it."""
        now = self._tools.steady()
        for known in self._clients.values():
            if known.parked and now > max(known.available_at, known.covered_until) + OVERDUE_SECONDS:
                self._look_after(known, now)

    def fetchable_count(self, key: ClientKey) -> int | None:
        """Return how many parked deliveries may be fetched for the client now; None if it needs none."""
        known, now = self._clients.get(key), self._tools.steady()
        if known is None:
            return 1
        if known.circuit.state is State.CLOSED and known.is_available(now):
            return known.fetchable_count(self._room, now)
        if known.running:
            return 0
        return 1 if known.is_available(now) or not known.is_covered(now) else None

    def on_parked(self, key: ClientKey) -> None:
        """Note that a delivery is durable in the client's bucket."""
        known = self._clients.get(key)
        if known is None or (known.in_pass and known.circuit.state is State.CLOSED):
            self.requested[key] = None  # perhaps too late for this pass, or the client has been forgotten
        if known is not None:
            known.on_parked()
            self._look_after(known, self._tools.steady())

    def on_pass(self, key: ClientKey, *, in_pass: bool, empty: bool = False) -> None:
        """Note whether a pass goes through the client's bucket. `empty`: no delivery of the client is left in it."""
        known, now = self._clients.get(key), self._tools.steady()
        if known is None:
            return
        known.on_pass(in_pass=in_pass)
        if not in_pass and not known.is_covered(now):
            self._end_rotation(known)  # the bucket contains no delivery of the client
        if not (empty and known.circuit.state is State.CLOSED and known.is_available(now)) or key in self.requested:
            return
        if (seconds := known.on_bucket_empty(now)) is not None:
            iss, client_id = key
            self._tools.observe(ClientServed(iss=iss, client_id=client_id, seconds=seconds))

    def on_peer_report(self, known: KnownClient, now: float) -> None:
        """Look after the bucket of a client that a peer reported. A worker that stops leaves that to the others."""
        if not self._leaving:
            self._look_after(known, now)

    def leave(self) -> None:
        """Park nothing any more, and report to the peers what is parked: this worker stops."""
        self._leaving, now = True, self._tools.steady()
        for known in self._clients.values():
            known.on_pass(in_pass=False)
            self._end_rotation(known)
            self._look_after(known, now)

    # ── probes ──

    def on_probe_lost(self, key: ClientKey) -> None:
        """Note that the client's probe ended without an attempt: another probe is needed."""
        if (known := self._clients.get(key)) is not None:
            known.on_probe_lost()
        self.requested[key] = None

    def _rotate(self, known: KnownClient, ticket: Ticket, result: AttemptResult, now: float) -> float:
        """Return the seconds until another probe is needed; 0 unless this is a fourth, eighth … failure.

        The probe's message stays unacked until the next probe is durable (`on_probe_sent`): there is always a probe.
        While many clients rotate, this one keeps its probe: the retries of other clients need the prefetch.
        """
        if (
            not isinstance(result.verdict, RetryAt)
            or result.delivery.attempts % PROBE_FAILURES
            or not known.parked
            or known.replaced_probe is not None
            or known.is_available(now)
            or self._leaving
        ):
            return 0.0
        ticket.on_rotation(rotated=known.is_covered(now) and not known.is_only_probe(ticket.delivery))
        if ticket.rotated or self._rotations == MAX_ROTATIONS:
            return 0.0
        known.on_rotation(ticket)
        self._rotations += 1
        self.requested[known.key] = None
        return max(0.0, min(MAX_OPEN_SECONDS, known.available_at - now))

    def on_probe_sent(self, key: ClientKey) -> None:
        """Note that a probe of the client is durable in a delay queue."""
        if (known := self._clients.get(key)) is not None and known.replaced_probe is not None:
            known.replaced_probe.on_rotation(rotated=True)
            self._end_rotation(known)

    def _end_rotation(self, known: KnownClient) -> None:
        """End the wait of the probe that was to be replaced, if any."""
        if (ticket := known.end_rotation()) is not None:
            self._rotations -= 1
            ticket.wake()

    # ── for operators ──

    def try_now(self, key: ClientKey, *, force: bool) -> None:
        """Have the client called at once, if a delivery is parked for it. A pause stands, unless `force`."""
        now = self._tools.steady()
        known = self._clients.get(key) or self._clients.add(key, now)
        self._clients.move_to_end(key)
        if known.on_operator_probe(now, force=force):
            self._look_after(known, now)

    def is_held_up(self, key: ClientKey) -> bool:
        """Return True if the circuit is not closed, the client pauses, or a delivery may be parked for it."""
        known = self._clients.get(key)
        return known is not None and (
            known.circuit.state is not State.CLOSED or known.parked or known.is_paused(self._tools.steady())
        )

    def state_of(self, key: ClientKey) -> tuple[bool, float | None, float | None]:
        """Return the state of the client: busy, the next probe, and the end of its pause, in epoch seconds.

        Busy: a delivery of it runs, waits for a slot or is being fetched.
        """
        known, now, ahead = self._clients.get(key), self._tools.steady(), self._room.ahead()
        if known is None:
            return False, None, None
        next_try = max(now, known.available_at) + ahead if known.circuit.state is State.OPEN else None
        busy = not known.is_idle or key in self.requested
        return busy, next_try, known.paused_until + ahead if known.is_paused(now) else None
