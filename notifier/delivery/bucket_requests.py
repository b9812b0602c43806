"""Decides which buckets are fetched from, and when a parked delivery replaces the probe of its client.

As long as a delivery may be parked for a client, something will lead back to its bucket: a pass of this worker
(`requested`, made by `pulls.py`), a running attempt, or a probe in a delay queue. Methods return at once.
"""

from dataclasses import dataclass

from notifier.delivery.admission import Ticket
from notifier.delivery.circuit import MAX_OPEN_SECONDS
from notifier.delivery.facts import ClientServed
from notifier.delivery.known_client import KnownClient
from notifier.delivery.known_clients import KnownClients, Slots
from notifier.delivery.ports import Tools
from notifier.delivery.verdict import AttemptResult, RetryAt
from notifier.delivery.waits import Waits
from notifier.model.client import ClientKey
from notifier.model.defaults import PREFETCH
from notifier.model.message import Lane

PROBE_FAILURES = 4  # attempts of a delivery, after which another one is the probe
ROTATIONS = PREFETCH[Lane.RETRIES] // 8  # at a time: each holds a message, and other clients have retries too
OVERDUE = 60.0  # seconds after its due time that a probe may be late: it waits behind others, or at another worker


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The state of a client at this worker. `busy`: a delivery of it runs, waits for a slot or is being fetched.

    It `rests` until `next_try`, and is not called before `paused_until`. Moments are in epoch seconds.
    """

    busy: bool = False
    rests: bool = False
    next_try: float | None = None
    paused_until: float | None = None


class BucketRequests:
    """The passes through buckets that are requested, and the rotation of probes."""

    def __init__(self, tools: Tools, clients: KnownClients, slots: Slots, waits: Waits) -> None:
        self._tools = tools
        self._clients = clients
        self._slots = slots
        self._waits = waits
        self.requested: dict[ClientKey, None] = {}  # clients whose buckets need a pass, in this order
        self._rotations = 0  # clients whose next probe is being fetched

    # ── passes ──

    def look_after(self, known: KnownClient, now: float) -> None:
        """Request a pass through the client's bucket, unless an attempt or a probe will lead to it."""
        if not known.parked or known.pulling:
            return
        tried = bool(known.running or known.waiting) or known.covered(now)
        if tried and not (known.up and known.is_available(now)):
            return
        if self._waits.leaving:
            self._clients.tell(known, now, paced=False)
        else:
            self.requested[known.key] = None

    def look_after_overdue(self) -> None:
        """Request passes for the clients whose probe is long overdue: an operator may have removed it."""
        now = self._tools.steady()
        for known in self._clients:
            if known.parked and now > max(known.circuit.next_try, known.covered_until, known.paused_until) + OVERDUE:
                self.look_after(known, now)

    def wanted(self, key: ClientKey) -> int | None:
        """Return how many parked deliveries may be fetched for the client now; None if it needs none."""
        known, now = self._clients.get(key), self._tools.steady()
        if known is None:
            return 1
        if known.up and known.is_available(now):
            running, free = len(known.running), self._slots.free(known.side, Lane.RETRIES, closed=True)
            count = (
                min(known.concurrency - running, (free - running + 1) // 2, known.rate.tokens(now, known.limit))
                - known.waiting
            )
            # Where other deliveries use up its rate, one parked delivery at a time waits among them.
            among = known.waiting > 0 and not known.fetched
            fits = among and (known.waiting + 1) * known.pace(self._slots, now) <= 2 * self._slots.patience()
            return max(0, count, int(fits))
        if known.running:
            return 0
        return 1 if known.is_available(now) or not known.covered(now) else None

    def on_parked(self, key: ClientKey) -> None:
        """Note that a delivery is durable in the client's bucket."""
        known = self._clients.get(key)
        if known is None or (known.pulling and known.up):
            self.requested[key] = None  # perhaps too late for this pass, or the client has been forgotten
        if known is not None:
            known.on_parked()
            self.look_after(known, self._tools.steady())

    def on_pass(self, key: ClientKey, *, pulling: bool, empty: bool = False) -> None:
        """Note whether a pass goes through the client's bucket. `empty`: no delivery of the client is left in it."""
        known, now = self._clients.get(key), self._tools.steady()
        if known is None:
            return
        known.on_pass(pulling=pulling)
        if not pulling and not known.covered(now):
            self.end_rotation(known)  # the bucket contains no delivery of the client
        if not (empty and known.up and known.is_available(now)) or key in self.requested:
            return
        if (seconds := known.on_bucket_empty(now)) is not None:
            iss, client_id = key
            self._tools.observe(ClientServed(iss=iss, client_id=client_id, seconds=seconds))

    def leave(self) -> None:
        """Park nothing any more, and report to the peers what is parked: this worker stops."""
        self._waits.leaving, now = True, self._tools.steady()
        for known in self._clients:
            known.on_pass(pulling=False)
            self.end_rotation(known)
            self.look_after(known, now)

    # ── probes ──

    def on_probe_lost(self, key: ClientKey) -> None:
        """Note that the client's probe ended without an attempt: another one is needed."""
        if (known := self._clients.get(key)) is not None:
            known.on_probe_lost()
        self.requested[key] = None

    def rotate(self, known: KnownClient, ticket: Ticket, result: AttemptResult, now: float) -> float:
        """Return the seconds until another probe is needed; 0 unless this is a fourth, eighth … failure.

        The probe's message stays unacked until the next probe is durable (`on_probe_sent`), so that one is always out.
        While many clients rotate, this one keeps its probe: the retries of other clients need the prefetch.
        """
        if (
            not isinstance(result.verdict, RetryAt)
            or result.delivery.attempts % PROBE_FAILURES
            or not known.parked
            or known.replaced is not None
            or known.is_available(now)
            or self._waits.leaving
        ):
            return 0.0
        ticket.on_rotation(rotated=known.covered(now) and not known.is_only_probe(ticket.delivery, self._slots))
        if ticket.rotated or self._rotations == ROTATIONS:
            return 0.0
        known.on_rotation(ticket)
        self._rotations += 1
        self.requested[known.key] = None
        return min(MAX_OPEN_SECONDS, max(known.circuit.next_try, known.paused_until) - now)

    def on_probe_sent(self, key: ClientKey) -> None:
        """Note that a probe of the client is durable in a delay queue."""
        if (known := self._clients.get(key)) is not None and known.replaced is not None:
            known.replaced.on_rotation(rotated=True)
            self.end_rotation(known)

    def end_rotation(self, known: KnownClient) -> None:
        """End the wait of the probe that was to be replaced, if any."""
        if (ticket := known.end_rotation()) is not None:
            self._rotations -= 1
            ticket.call_up()

    # ── for operators ──

    def try_now(self, key: ClientKey, *, force: bool) -> None:
        """Have the client called at once, if a delivery is parked for it. A pause stands, unless `force`."""
        now = self._tools.steady()
        known = self._clients.add(key, now)
        if known.on_operator_probe(now, force=force):
            self.look_after(known, now)

    def held_up(self, key: ClientKey) -> bool:
        """Return True if the client rests or pauses, or a delivery may be parked for it."""
        known = self._clients.get(key)
        return known is not None and (not known.up or known.parked or known.is_paused(self._tools.steady()))

    def standing(self, key: ClientKey) -> Standing:
        """Return the state of the client."""
        known, now = self._clients.get(key), self._tools.steady()
        if known is None:
            return Standing()
        ahead, wait = self._slots.ahead(), max(0.0, known.circuit.next_try - now, known.paused_until - now)
        return Standing(
            busy=bool(not known.idle or key in self.requested),
            rests=known.down and not known.running,
            next_try=now + wait + ahead if known.down else None,
            paused_until=known.paused_until + ahead if known.is_paused(now) else None,
        )
