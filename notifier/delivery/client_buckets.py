"""Decides where deferred deliveries wait, and which clients' buckets are fetched from. Methods return at once.

A *pass* fetches the parked deliveries of a client from its bucket; `pulls.py` makes the passes in `requested`. As long
as a delivery may be parked for a client, one of three things leads back to its bucket: a pass, a running attempt, or a
probe in a delay queue.

A *rotation* makes another parked delivery the probe, after each fourth failed attempt of the present probe. The message
of the present probe stays unacked until the other one is durable in a delay queue, so that a probe always exists.

`KnownClient.defer` decides by the steady clock how a delivery waits. `Buckets.defer` converts this to the wall clock,
and limits the wait by the delivery's last attempt.
"""

from notifier.delivery.admission import Capacity, Deferral, SteadyDeferral, Ticket
from notifier.delivery.ages import may_wait_until
from notifier.delivery.circuit import MAX_OPEN_SECONDS, OPEN_SHARE_OF_OUTAGE, State
from notifier.delivery.facts import ClientServed
from notifier.delivery.known_client import KnownClient
from notifier.delivery.known_clients import KnownClients
from notifier.delivery.ports import Tools
from notifier.delivery.verdict import AttemptResult, Defer, RetryAt, WaitKind, schedule_retry, without_charge
from notifier.model.backoff import MAX_LATE_FACTOR, MIN_EARLY_FACTOR, MIN_WAIT_SECONDS, deferral_wait
from notifier.model.client import Client, ClientKey
from notifier.model.defaults import PREFETCH
from notifier.model.delivery import Delivery
from notifier.model.frozen import replace
from notifier.model.message import Lane
from notifier.model.outcome import Cause, Signal

MIN_PARKED_SECONDS = 60.0  # a delivery that expires earlier is not parked, since it would expire in the bucket
PROBE_FAILURES = 4  # failed attempts of a probe, after which another delivery becomes the probe
MAX_ROTATIONS = PREFETCH[Lane.RETRIES] // 8  # at a time: each holds a message of the retries, unacked
OVERDUE_SECONDS = 60.0  # a probe may be this late: it waits behind others, or at another worker


class Buckets:
    """The deferrals of one worker, the passes through buckets that it requests, and the rotation of its probes."""

    def __init__(self, tools: Tools, capacity: Capacity, clients: KnownClients) -> None:
        self._tools = tools
        self._capacity = capacity
        self._clients = clients
        self.requested: dict[ClientKey, None] = {}  # clients whose buckets need a pass, in this order
        self._rotations = 0  # the number of clients whose next probe is being fetched
        self._stopping = False  # while the worker stops, it parks no delivery

    # ── deferrals and retries ──

    def defer(self, known: KnownClient, delivery: Delivery, later: SteadyDeferral, client: Client) -> Deferral:
        """Return the deferral by the wall clock, due no later than the delivery's last attempt.

        A delivery that expires within a minute is not parked, since it could expire in the bucket. Neither does a
        worker that stops park any, since it makes no more passes. Such a delivery waits in the delay queues instead:
        each time for half of its age, at least for a second and at most until the client's next probe.
        """
        now, offset = self._tools.clock(), self._capacity.wall_offset()
        due, cause = later.due_at + offset, later.cause
        turn = None if later.turn_at is None else later.turn_at + offset
        if delivery.slot_at != turn:
            delivery = replace(delivery, slot_at=turn)
        last_at = may_wait_until(delivery, client, now)
        if later.wait_kind is WaitKind.PARKED:
            if last_at - now >= MIN_PARKED_SECONDS and not self._stopping:
                return delivery, Defer(due=due, cause=cause, wait_kind=WaitKind.PARKED, until=last_at)
            age = 0.0 if delivery.first_taken_at is None else now - delivery.first_taken_at
            due = now + max(MIN_WAIT_SECONDS, min(due - now, OPEN_SHARE_OF_OUTAGE * age))
        if later.wait_kind is not WaitKind.PROBE:
            return delivery, Defer(due=min(due, last_at), cause=cause)
        if (due - now) * MAX_LATE_FACTOR <= last_at - now:  # even a late return precedes the last attempt
            # A pause takes several delay queues, of which the last may return the probe a second early.
            early_seconds = MIN_WAIT_SECONDS if cause is Cause.RETRY_AFTER else 0
            known.on_probe_sent(due - offset - early_seconds, offset)
            return delivery, Defer(due=due, cause=cause, wait_kind=WaitKind.PROBE, rounding="up")
        due = min(due, last_at)
        known.on_probe_sent(now - offset + (due - now) * MIN_EARLY_FACTOR, offset)
        return delivery, Defer(due=due, cause=cause, wait_kind=WaitKind.PROBE)

    def after_attempt(
        self, known: KnownClient, ticket: Ticket, result: AttemptResult, now: float
    ) -> tuple[AttemptResult, float]:
        """Return the result with the final queue and delay of a retry, and 0; or begin a rotation of the probe.

        For a rotation, return the unchanged result and the seconds until the next probe is due. The failed probe may
        wait half of these seconds for the other probe. Then the caller calls `finish_attempt`.
        """
        if seconds := self._begin_rotation(known, ticket, result, now):
            return result, seconds
        return self.finish_attempt(ticket, result), 0.0

    def finish_attempt(self, ticket: Ticket, result: AttemptResult) -> AttemptResult:
        """Return the result with the final queue and delay of a retry.

        Ends the rotation of this delivery, if there is one, and requests a pass through the client's bucket if needed.
        """
        known, now = self._clients[ticket.client.key], self._tools.steady()
        if known.replaced_probe is ticket:
            self._end_rotation(known)
        final = self._reschedule_failure(known, ticket, result, now)
        if isinstance(final.verdict, Defer) and ticket.delivery.probe_due is not None:
            # The attempt ended with an internal fault, so the delivery remains the probe.
            wait = deferral_wait(final.verdict.due - self._tools.clock())
            known.on_probe_sent(now + wait, self._capacity.wall_offset())
        self._request_pass(known, now)
        return final

    def _reschedule_failure(
        self, known: KnownClient, ticket: Ticket, result: AttemptResult, now: float
    ) -> AttemptResult:
        """Return the result, with another retry if the failure is not to lengthen the delivery's backoff.

        A failure lengthens the backoff (is *charged*) if the circuit is closed, the client did not request a pause,
        and a delivery has succeeded since this one's last charge, if it has one. If the client requests fewer attempts
        while its rate is limited, the limit determines the next attempt instead. While the client is unavailable, the
        delivery is parked or becomes the probe.
        """
        verdict, before, client = result.verdict, ticket.delivery, ticket.client
        if not isinstance(verdict, RetryAt) or result.signal not in (Signal.UNAVAILABLE, Signal.RATE_LIMITED):
            return result
        if result.delivery.delayed_by_client and result.pause_seconds is None:
            return result  # the client requested a time for this delivery
        is_limited = result.signal is Signal.RATE_LIMITED and known.rate.spacing > 0  # the limit sets the next time
        # A rotation is considered only if the client was unavailable when the attempt ended.
        use_backoff = ticket.rotated is None and known.is_available(now) and not is_limited
        charged_at = None if before.charged_at is None else before.charged_at - self._capacity.wall_offset()
        if use_backoff and (charged_at is None or charged_at < known.circuit.succeeded_at):
            return result
        after = without_charge(result.delivery, before)
        if use_backoff:
            verdict = schedule_retry(after, client, None, self._tools.clock(), self._tools.jitter)
            return replace(result, delivery=after, verdict=verdict)
        stays_probe = not ticket.rotated and (ticket.opened_circuit or before.probe_due is not None)
        later = known.defer(after, self._capacity, now, as_probe=stays_probe)
        after, defer = self.defer(known, after, later, client)
        probe_due = defer.due if defer.wait_kind is WaitKind.PROBE else None  # marks the probe
        verdict = RetryAt(due=defer.due, rounding=defer.rounding, wait_kind=defer.wait_kind, until=defer.until)
        return replace(result, delivery=replace(after, probe_due=probe_due), verdict=verdict)

    # ── passes ──

    def _request_pass(self, known: KnownClient, now: float) -> None:
        """Request a pass through the client's bucket, if a delivery may be parked and nothing else leads to it.

        A worker that stops reports the client to its peers instead.
        """
        if not known.parked or known.in_pass:
            return
        is_awaited = bool(known.running or known.waiting_count) or known.has_probe_out(now)
        if is_awaited and not known.is_healthy(now):
            return  # the attempt or the probe leads to the bucket
        if self._stopping:
            self._clients.report(known, now, rate_changed=False)
        else:
            self.requested[known.key] = None

    def request_overdue_passes(self) -> None:
        """Request passes for the clients whose probe is overdue by a minute: an operator may have removed it."""
        now = self._tools.steady()
        for known in self._clients.values():
            if known.parked and now > max(known.available_at, known.probe_out_until) + OVERDUE_SECONDS:
                self._request_pass(known, now)

    def fetchable_count(self, key: ClientKey) -> int | None:
        """Return how many parked deliveries may be fetched for the client now; None if its pass may end."""
        known, now = self._clients.get(key), self._tools.steady()
        if known is None:
            return 1  # the client was forgotten: this delivery is attempted, and so tests it
        if known.is_healthy(now):
            return known.fetchable_count(self._capacity, now)
        if known.running:
            return 0
        # A client that is not healthy but available is untried.
        needs_probe = known.is_available(now) or not known.has_probe_out(now)
        return 1 if needs_probe else None

    def on_parked(self, key: ClientKey) -> None:
        """Record that a delivery is durable in the client's bucket, and request a pass if one is needed."""
        known = self._clients.get(key)
        if known is None or (known.in_pass and known.circuit.state is State.CLOSED):
            self.requested[key] = None  # the present pass may miss the delivery, or the client has been forgotten
        if known is not None:
            known.on_parked()
            self._request_pass(known, self._tools.steady())

    def on_pass(self, key: ClientKey, *, in_pass: bool, empty: bool = False) -> None:
        """Record that a pass through the client's bucket began or ended. `empty`: it left no delivery of the client."""
        known, now = self._clients.get(key), self._tools.steady()
        if known is None:
            return
        known.on_pass(in_pass=in_pass)
        if not in_pass and not known.has_probe_out(now):
            self._end_rotation(known)  # the pass found no delivery that could become the probe
        if not empty or not known.is_healthy(now) or key in self.requested:
            return
        if (seconds := known.on_bucket_empty(now)) is not None:
            iss, client_id = key
            self._tools.observe(ClientServed(iss=iss, client_id=client_id, seconds=seconds))

    def on_peer_report(self, known: KnownClient, now: float) -> None:
        """Request a pass for a client that a peer reported, if one is needed. A worker that stops requests none."""
        if not self._stopping:
            self._request_pass(known, now)

    def on_stop(self) -> None:
        """Park no more deliveries, and report the clients with parked deliveries to the peers: this worker stops."""
        self._stopping, now = True, self._tools.steady()
        for known in self._clients.values():
            known.on_pass(in_pass=False)
            self._end_rotation(known)
            self._request_pass(known, now)

    # ── probes ──

    def on_probe_lost(self, key: ClientKey) -> None:
        """Record that the client's probe ended without an attempt, and request a pass that fetches another probe."""
        if (known := self._clients.get(key)) is not None:
            known.on_probe_lost()
        self.requested[key] = None

    def _begin_rotation(self, known: KnownClient, ticket: Ticket, result: AttemptResult, now: float) -> float:
        """Begin a rotation and return the seconds until the next probe is due; 0 if no rotation begins.

        A rotation begins after the fourth, eighth … failed attempt. If many clients rotate, the client keeps its probe,
        since each rotation holds a message of the prefetch, which the retries of other clients need.
        """
        is_fourth_failure = isinstance(result.verdict, RetryAt) and result.delivery.attempts % PROBE_FAILURES == 0
        is_rotating = known.replaced_probe is not None
        if not is_fourth_failure or not known.parked or is_rotating or known.is_available(now) or self._stopping:
            return 0.0
        has_other_probe = known.has_probe_out(now) and not known.is_only_probe(ticket.delivery)
        ticket.on_rotation(rotated=has_other_probe)
        if ticket.rotated or self._rotations == MAX_ROTATIONS:
            return 0.0
        known.on_rotation(ticket)
        self._rotations += 1
        self.requested[known.key] = None
        return max(0.0, min(MAX_OPEN_SECONDS, known.available_at - now))

    def on_probe_sent(self, key: ClientKey) -> None:
        """Record that a probe of the client is durable in a delay queue, which ends a rotation."""
        if (known := self._clients.get(key)) is not None and known.replaced_probe is not None:
            known.replaced_probe.on_rotation(rotated=True)
            self._end_rotation(known)

    def _end_rotation(self, known: KnownClient) -> None:
        """Let the former probe continue, if the client has a rotation."""
        if (ticket := known.end_rotation()) is not None:
            self._rotations -= 1
            ticket.wake()

    # ── for operators ──

    def probe_now(self, key: ClientKey, *, force: bool) -> None:
        """Request an attempt at the client now, if a delivery is parked for it. `force`: also during a pause."""
        now = self._tools.steady()
        known = self._clients.get(key) or self._clients.add(key, now)
        self._clients.move_to_end(key)
        if known.on_operator_probe(now, force=force):
            self._request_pass(known, now)

    def is_blocked(self, key: ClientKey) -> bool:
        """Return True if the circuit is not closed, the client requested a pause, or a delivery may be parked."""
        known = self._clients.get(key)
        return known is not None and (
            known.circuit.state is not State.CLOSED or known.parked or known.is_paused(self._tools.steady())
        )

    def state_of(self, key: ClientKey) -> tuple[bool, float | None, float | None]:
        """Return (is busy, time of the next probe, end of the pause) of the client. Times are in epoch seconds.

        A client is busy if one of its deliveries is running, waits for a slot or is being fetched.
        """
        known, now, offset = self._clients.get(key), self._tools.steady(), self._capacity.wall_offset()
        if known is None:
            return False, None, None
        probe_at = max(now, known.available_at) + offset if known.circuit.state is State.OPEN else None
        paused_until = known.paused_until + offset if known.is_paused(now) else None
        is_busy = not known.is_idle or key in self.requested
        return is_busy, probe_at, paused_until
