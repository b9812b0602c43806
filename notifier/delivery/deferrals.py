"""Decides where deferred deliveries wait, and which clients' buckets are fetched from. Methods return at once.

A *fetch* brings the parked deliveries of a client back from its bucket; `fetches.py` carries out the fetches in
`requested`. As long as a delivery may be parked for a client, one of three things leads back to its bucket: a fetch, a
running attempt, or a probe in a delay queue.

A *rotation* makes another parked delivery the probe, when the attempts of the present probe reach a multiple of four. A
fetch returns the next probe. Once it is durable in a delay queue, the former probe is parked at its next failure.

`ClientState` returns how a delivery waits, `verdict.py` limits the wait by the delivery's last attempt, and `Deferrals`
records in the client's state what the verdict uses: the probe, or a slot.
"""

from collections.abc import Callable, Mapping

from notifier.delivery.circuit import State
from notifier.delivery.client_state import ClientState
from notifier.delivery.facts import ClientServed
from notifier.delivery.line_and_parking import AdmittedDelivery
from notifier.delivery.ports import Tools
from notifier.delivery.slots import Slots
from notifier.delivery.verdict import (
    AttemptReport,
    Defer,
    DeliveryVerdict,
    RetryAt,
    Standing,
    WaitKind,
    decide,
    queue_delay,
    wait_for_client,
)
from notifier.model.backoff import MIN_EARLY_FACTOR, MIN_WAIT_SECONDS
from notifier.model.client import Client, ClientKey
from notifier.model.delivery import Delivery
from notifier.model.record import copy_record

PROBE_ATTEMPTS = 4  # attempts of a delivery, after which another delivery becomes the probe
OVERDUE_SECONDS = 60.0  # a probe may be this late: it waits behind others, or at another worker


class Deferrals:
    """The verdicts and deferrals of one worker, the fetches that it requests, and the rotation of its probes.

    `report` reports a client to the other workers.
    """

    def __init__(
        self,
        tools: Tools,
        slots: Slots,
        clients: Mapping[ClientKey, ClientState],
        report: Callable[[ClientState, float], None],
    ) -> None:
        self._tools = tools
        self._slots = slots
        self._clients = clients
        self._report = report
        self.requested: dict[ClientKey, None] = {}  # clients whose buckets need a fetch, in this order
        self._stopping = False  # while the worker stops, it parks no delivery

    # ── deferrals and retries ──

    def defer(self, known: ClientState, delivery: Delivery, standing: Standing, client: Client) -> Defer:
        """Return the deferral of a delivery that is admitted or leaves memory, and record how it waits."""
        if self._stopping:
            standing = copy_record(standing, may_park=False)
        wall_now = self._tools.clock()
        defer = wait_for_client(standing, delivery, client, wall_now)
        probe = defer if defer.wait_kind is WaitKind.PROBE else None
        self._record_wait(known, delivery, defer.slot_at, probe, wall_now)
        return defer

    def decide_verdict(self, admitted: AdmittedDelivery, report: AttemptReport) -> DeliveryVerdict:
        """Return the verdict on an attempt that was not successful, and record how the delivery waits.

        Call it after `Scheduler.on_ended`. Ends the rotation of a former probe, begins one after each fourth attempt of
        a probe, and requests a fetch if it is necessary.
        """
        known, wall_now = self._clients[admitted.client.key], self._tools.clock()
        standing = self._standing_after(known, admitted, report, wall_now)
        after, verdict = decide(report, admitted.client, standing, wall_now, self._tools.jitter)
        probe = verdict if after.progress.probe_due is not None and isinstance(verdict, RetryAt | Defer) else None
        self._record_wait(known, report.after, after.progress.slot_at, probe, wall_now)
        if isinstance(probe, RetryAt) and _needs_rotation(after) and known.parking.parked and not self._stopping:
            known.parking.on_rotation(after.id)
            self.requested[known.key] = None  # this fetch returns the next probe
        if known.parking.parked:
            self.request_fetch(known, self._tools.monotonic())
        return after, verdict

    def _standing_after(
        self, known: ClientState, admitted: AdmittedDelivery, report: AttemptReport, wall_now: float
    ) -> Standing:
        """Return how the client stands after an attempt that was not successful."""
        now = self._tools.monotonic()
        if known.is_available(now):
            if known.rate.spacing:
                return known.standing(report.after, self._slots, now)
            return Standing(succeeded_at=known.circuit.succeeded_at + wall_now - now)  # no delivery waits for it
        if admitted.opened_circuit or report.before.progress.probe_due is not None:
            as_probe = not self._has_other_probe(known, report, now)
        else:
            as_probe = not known.parking.has_probe_out(now)
        offset = self._slots.wall_offset()
        standing = known.parking.unavailable_standing(known.circuit.probe_at, now, offset, as_probe=as_probe)
        return copy_record(standing, may_park=False) if self._stopping else standing

    def _has_other_probe(self, known: ClientState, report: AttemptReport, now: float) -> bool:
        """Return True if another delivery is the probe instead of this failed one: after a rotation, or by chance.

        By chance, two deliveries in flight become probes as the circuit opens. Then no rotation is needed.
        """
        if known.parking.is_replaced(report.after.id):
            return True
        has_later_probe = known.parking.has_probe_out(now) and not known.parking.is_only_probe(report.before)
        return _needs_rotation(report.after) and has_later_probe

    def _record_wait(
        self,
        known: ClientState,
        delivery: Delivery,
        slot_at: float | None,
        probe: RetryAt | Defer | None,
        wall_now: float,
    ) -> None:
        """End the rotation of the delivery, if it is a former probe, and record its new slot, or that it is the probe.

        `delivery`: before the verdict. `probe`: the verdict if it makes the delivery the probe; otherwise None.
        """
        if known.parking.rotation is not None:
            known.parking.on_former_probe(delivery.id)
        if slot_at is not None and slot_at != delivery.progress.slot_at:
            known.line.on_slot_reserved(slot_at - wall_now + self._tools.monotonic())
        if probe is not None:
            self._on_probe(known, delivery.id, probe, wall_now)

    def _on_probe(self, known: ClientState, delivery_id: str, verdict: RetryAt | Defer, wall_now: float) -> None:
        """Record until when the probe that this verdict sends must still be in its delay queue."""
        now = self._tools.monotonic()
        wait, rounding = queue_delay(verdict, wall_now)
        if rounding == "down":
            wait *= MIN_EARLY_FACTOR
        elif verdict.wait_kind is WaitKind.PROBE and known.parking.is_paused(now):
            wait -= MIN_WAIT_SECONDS  # a pause takes several delay queues, of which the last may be a second early
        known.parking.on_probe_sent(delivery_id, now + wait, wall_now - now)

    # ── fetches ──

    def request_fetch(self, known: ClientState, now: float) -> None:
        """Request a fetch from the client's bucket, if a delivery may be parked and nothing else leads to it.

        A worker that stops reports the client to its peers instead.
        """
        if not known.parking.parked or known.parking.is_fetching:
            return
        is_awaited = bool(known.running or known.line.count) or known.parking.has_probe_out(now)
        if is_awaited and not known.is_healthy(now):
            return  # the attempt or the probe leads to the bucket
        if self._stopping:
            self._report(known, now)
        else:
            self.requested[known.key] = None

    def request_overdue_fetches(self) -> None:
        """Request fetches for the clients whose probe is overdue by a minute: an operator may have removed it."""
        now = self._tools.monotonic()
        for known in self._clients.values():
            if known.parking.parked and now > max(known.available_at, known.parking.probe_out_until) + OVERDUE_SECONDS:
                self.request_fetch(known, now)

    def fetchable_count(self, key: ClientKey, batch_seconds: float = 0.0) -> int | None:
        """Return how many parked deliveries may be fetched for the client now; None if its fetch may end.

        `batch_seconds`: how long a fetch takes.
        """
        known, now = self._clients.get(key), self._tools.monotonic()
        if known is None:
            return 1  # the client was forgotten: this delivery is attempted, and so tests it
        if known.is_healthy(now):
            return known.fetchable_count(self._slots, now, batch_seconds)
        if known.running:
            return 0
        # A client that is not healthy but available is untried.
        needs_probe = known.is_available(now) or known.parking.wants_probe or not known.parking.has_probe_out(now)
        return 1 if needs_probe else None

    def on_parked(self, key: ClientKey) -> None:
        """Record that a delivery is durable in the client's bucket, and request a fetch if it is necessary."""
        known = self._clients.get(key)
        if known is None or (known.parking.is_fetching and known.circuit.state is State.CLOSED):
            self.requested[key] = None  # the present fetch may miss the delivery, or the client has been forgotten
        if known is not None:
            known.parking.on_parked()
            self.request_fetch(known, self._tools.monotonic())

    def on_fetch(self, key: ClientKey, *, is_fetching: bool, empty: bool = False) -> None:
        """Record that a fetch from the client's bucket began or ended. `empty`: it left no delivery of the client."""
        known, now = self._clients.get(key), self._tools.monotonic()
        if known is None:
            return
        known.parking.on_fetch(is_fetching=is_fetching)
        if not empty or not known.is_healthy(now) or key in self.requested:
            return
        if (seconds := known.parking.on_bucket_empty(now)) is not None:
            iss, client_id = key
            self._tools.observe(ClientServed(iss=iss, client_id=client_id, seconds=seconds))

    def on_peer_report(self, known: ClientState, now: float) -> None:
        """Request a fetch for a client that a peer reported, if it is necessary. A worker that stops requests none."""
        if not self._stopping:
            self.request_fetch(known, now)

    def on_stop(self) -> None:
        """Park no more deliveries, and report the clients with parked deliveries to the peers: this worker stops."""
        self._stopping, now = True, self._tools.monotonic()
        for known in self._clients.values():
            known.parking.on_fetch(is_fetching=False)
            self.request_fetch(known, now)

    # ── probes ──

    def on_probe_lost(self, key: ClientKey) -> None:
        """Record that the client's probe ended without an attempt, and request a fetch of another probe."""
        if (known := self._clients.get(key)) is not None:
            known.parking.on_probe_lost()
        self.requested[key] = None

    def on_probe_durable(self, key: ClientKey, delivery_id: str) -> None:
        """Record that a probe of the client is durable in a delay queue."""
        if (known := self._clients.get(key)) is not None:
            known.parking.on_probe_durable(delivery_id)

    # ── for operators ──

    def is_blocked(self, key: ClientKey) -> bool:
        """Return True if the circuit is not closed, the client requested a pause, or a delivery may be parked."""
        known = self._clients.get(key)
        return known is not None and (
            known.circuit.state is not State.CLOSED
            or known.parking.parked
            or known.parking.is_paused(self._tools.monotonic())
        )

    def state_of(self, key: ClientKey) -> tuple[bool, float | None, float | None]:
        """Return (is busy, time of the next probe, end of the pause) of the client. Times are in epoch seconds.

        A client is busy if one of its deliveries is running, waits for a slot or is being fetched.
        """
        known, now, offset = self._clients.get(key), self._tools.monotonic(), self._slots.wall_offset()
        if known is None:
            return False, None, None
        probe_at = max(now, known.available_at) + offset if known.circuit.state is State.OPEN else None
        paused_until = known.parking.paused_until + offset if known.parking.is_paused(now) else None
        is_busy = not known.is_idle or key in self.requested
        return is_busy, probe_at, paused_until


def _needs_rotation(failed_probe: Delivery) -> bool:
    """Return True after each fourth attempt of the delivery, including those before it became the probe."""
    return failed_probe.progress.attempts % PROBE_ATTEMPTS == 0
