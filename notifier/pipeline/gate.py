"""The one place that answers: may one more run, and if not, where does it wait?

The worker and its selection ask here and nowhere else. The gate answers:

- `has_room(lane)`: may another delivery of this lane be begun at all? Slots of the window and memory decide.
- `ask(ticket)`: may this delivery be attempted? `Go` now; `Wait` in memory, until `ended` or `hand_out` returns it or
  `put_off` takes it out; or a `Defer`, with its place, the moment to come back and the cause.
- `after_failure(ticket, result)`: where does a delivery wait whose attempt failed?
- `give_way()`: memory is full. Which waiting deliveries leave it?
- `fetches()`: of which clients are parked deliveries to be fetched now?

In return the gate is told how each attempt ended (`ended`). It owns what is known of clients (see `admission`).

The gate keeps two clocks apart. Admission counts by a steady clock, so that a wall clock that jumps takes no client for
down and lets nobody in. Messages bear the time of the wall clock, since other workers read them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from notifier.domain.backoff import LATE, SOON
from notifier.domain.client import Client
from notifier.domain.delivery import Delivery
from notifier.domain.frozen import replace
from notifier.domain.message import Lane
from notifier.domain.verdict import Defer, Place, RetryAt, last_moment, retry, uncharged
from notifier.pipeline.admission import Admission, Go, Later, Wait
from notifier.pipeline.attempt import AttemptResult, Tools
from notifier.pipeline.facts import ClientFailing, ClientRecovered, ClientServed
from notifier.pipeline.known_client import SHARE_OF_OUTAGE, Change, Key, KnownClient, Mark
from notifier.pipeline.ledger import HeldMessage
from notifier.pipeline.slots import most_of_lane

# Times that a message was given back for no known reason, from which on its delivery is attempted whatever its client
# does. It may be what kills the process, and to be put off would begin its count anew: it would never be buried.
INSIST = 2
SHORT_LIVED = 60.0  # seconds: a delivery that may wait no longer is not parked, or it would expire unseen


@dataclass(slots=True, kw_only=True, eq=False)
class Ticket:
    """A delivery that wants an attempt, the message it came with, and its client as resolved for it."""

    held: HeldMessage
    delivery: Delivery
    client: Client
    was_parked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a client stands at this worker. `busy`: something of it runs, waits for a slot or is fetched.

    `rests` until `next_try`; not to be called before `paused_until`. Moments are in epoch seconds.
    """

    busy: bool = False
    rests: bool = False
    next_try: float | None = None
    paused_until: float | None = None


class Gate:
    """Says whether one more may run. `in_memory` counts the deliveries in memory, by lane.

    `begun` is the share of the prefetch of events that is begun and not acked. `workers` says over how many workers
    clients' limits are shared.
    """

    def __init__(
        self,
        tools: Tools,
        in_memory: Mapping[Lane, int],
        *,
        max_in_flight: int,
        slot_wait: float,
        workers: Callable[[], int],
        begun: Callable[[], float],
    ) -> None:
        self._admission: Admission[Ticket] = Admission(
            max_in_flight,
            slot_wait=slot_wait,
            workers=workers,
            fill=self._fill,
            changed=self._client_changed,
            drained=self._client_served,
        )
        self._tools = tools
        self._in_memory = in_memory
        self._begun = begun
        self._most = 2 * max_in_flight
        self._most_of_lane = most_of_lane(self._most)

    # ── room ──

    @property
    def waiting(self) -> int:
        """How many deliveries wait in memory for their client."""
        return self._admission.waiting

    def has_room(self, lane: Lane) -> bool:
        """True if another delivery of the lane may be begun."""
        return self._admission.slots.has_slot(lane) and self._has_memory(lane)

    def lacks_memory(self, lane: Lane) -> bool:
        """True if a slot is free for the lane, and only memory keeps it from another delivery."""
        return self._admission.slots.has_slot(lane) and not self._has_memory(lane)

    def _has_memory(self, lane: Lane) -> bool:
        hanging = self._admission.slots.hanging
        in_memory = self._in_memory
        return in_memory[lane] - hanging < self._most_of_lane and sum(in_memory.values()) - hanging < self._most

    def _fill(self) -> float:
        """Return how full memory is, or the prefetch of events, whatever is fuller."""
        return max((sum(self._in_memory.values()) - self._admission.slots.hanging) / self._most, self._begun())

    # ── attempts ──

    def ask(self, ticket: Ticket) -> Go | Wait | Defer:
        """Say whether the delivery may be attempted now, waits in memory, is put off or is parked."""
        ahead, delivery, key = self._ahead(), ticket.delivery, ticket.client.key
        if delivery.charged_at is not None and self._admission.was_down(key, delivery.charged_at - ahead):
            ticket.delivery = delivery = replace(delivery, backoffs=max(0, delivery.charged - 1), charged_at=None)
        if ticket.held.message.unexplained >= INSIST:
            lane, now = ticket.held.lane, self._tools.steady()
            return self._admission.insist(ticket.client, lane, ticket, now, was_parked=ticket.was_parked)
        begun_at = delivery.begun_at
        answer = self._admission.ask(
            ticket.client,
            ticket.held.lane,
            ticket,
            self._tools.steady(),
            fresh=begun_at is None,
            was_parked=ticket.was_parked,
            leash=None if delivery.leash is None else delivery.leash - ahead,
            age=0.0 if begun_at is None else max(0.0, self._tools.clock() - begun_at),
        )
        return self._defer(ticket, answer) if isinstance(answer, Later) else answer

    def ended(self, ticket: Ticket, result: AttemptResult) -> list[Ticket]:
        """Note how an attempt ended. Returns those that begin now in its place."""
        now, key = self._tools.steady(), ticket.client.key
        if result.pause is not None:
            self._admission.pause(key, now + result.pause)
        return self._admission.ended(key, ticket, result.mark, now)

    def after_failure(self, ticket: Ticket, result: AttemptResult) -> AttemptResult:
        """Return the result with where and how long the delivery waits. Call it after `ended`.

        A failure of a client that is down, or asked for a pause, is not charged to the delivery's own backoff. Of one
        that is up it is, if another delivery had more luck since the last charge.
        """
        verdict, mark, client = result.verdict, result.mark, ticket.client
        if not isinstance(verdict, RetryAt) or mark not in (Mark.DOWN, Mark.BRAKED):
            return result
        if result.asked and result.pause is None:
            return result  # the client said when this delivery is to come again
        before, now = ticket.delivery, self._tools.clock()
        ahead = now - self._tools.steady()
        attempts = result.delivery.attempts
        later = self._admission.failed(client.key, now - ahead, braked=mark is Mark.BRAKED, attempts=attempts)
        charged_at = None if before.charged_at is None else before.charged_at - ahead
        if later is None and self._admission.charged(client.key, charged_at):
            return result
        after = uncharged(result.delivery, before)
        sid = self._tools.channel.names_session(after, client)
        if later is None:
            verdict = retry(after, client.retry, None, carries_sid=sid, now=now, jitter=self._tools.jitter)
            return replace(result, delivery=after, verdict=verdict)
        defer = self._defer(replace_ticket(ticket, after), later)
        verdict = RetryAt(due=defer.due, rounding=defer.rounding, place=defer.place, until=defer.until)
        leash = defer.due if defer.place is Place.LEASH else None
        return replace(result, delivery=replace(after, leash=leash), verdict=verdict)

    def hand_out(self) -> list[Ticket]:
        """Return those that waited and begin now, since attempts that hang have left the window."""
        return self._admission.hand_out(self._tools.steady())

    def put_off(self) -> Iterator[tuple[Ticket, Defer]]:
        """Return some of those that waited in memory and can wait no longer. Is called many times a second."""
        return self._deferred(self._admission.put_off(self._tools.steady()))

    def give_way(self) -> Iterator[tuple[Ticket, Defer]]:
        """Return the deliveries that leave memory for others."""
        return self._deferred(self._admission.give_way(self._tools.steady()))

    def abandon(self) -> None:
        """Forget all that wait."""
        self._admission.abandon()

    # ── parked deliveries ──

    def fetches(self, *, fresh_waits: bool) -> list[tuple[Key, int]]:
        """Return of which clients parked deliveries are to be fetched now, and how many. `fetched` must follow."""
        return self._admission.drains.fetches(self._tools.steady(), fresh_waits=fresh_waits)

    def fetched(self, key: Key, count: int) -> None:
        """Note that so many of those asked for have come, or will not come."""
        self._admission.drains.fetched(key, count)

    def parks(self, key: Key) -> int:
        """Return how often this worker has parked something for the client."""
        return self._admission.drains.parks(key)

    def empty(self, key: Key, parks: int) -> None:
        """Note that nothing of this client is left in its bucket, of the first `parks` that this worker parked."""
        self._admission.drains.empty(key, parks, self._tools.steady())

    def fetch_again(self, key: Key) -> None:
        """Note that more may be parked for the client."""
        self._admission.drains.fetch_again(key, self._tools.steady())

    def parked(self, key: Key) -> None:
        """Note that a delivery is durable in the client's bucket."""
        self._admission.drains.parked(key, self._tools.steady())

    def leash_ended(self, key: Key) -> None:
        """Note that the client's leash came to its end without an attempt."""
        now = self._tools.steady()
        self._admission.drains.leash_ends(key, now, now)

    def watched(self) -> list[Key]:
        """Return the clients for which other workers may still park deliveries, though they recovered."""
        return self._admission.drains.watched(self._tools.steady())

    def watch_no_longer(self, key: Key) -> None:
        """Look no more at this client's bucket."""
        self._admission.drains.watch_no_longer(key)

    def looked_after(self) -> Iterator[Key]:
        """Return the clients whose parked deliveries somebody will fetch."""
        return self._admission.drains.looked_after(self._tools.steady())

    # ── for operators ──

    def try_now(self, key: Key, *, force: bool) -> None:
        """Have the client tried at once, if something is parked for it. A pause stands, unless `force`."""
        self._admission.try_now(key, self._tools.steady(), force=force)

    def held_up(self, key: Key) -> bool:
        """Return True if the client rests or pauses, or something may be parked for it."""
        one = self._admission.known(key)
        return one is not None and (not one.up or one.parked or self._tools.steady() < one.paused_until)

    def standing(self, key: Key) -> Standing:
        """Return how the client stands."""
        one, now = self._admission.known(key), self._tools.steady()
        if one is None:
            return Standing()
        resting = {each: (tried, wait) for each, tried, wait in self._admission.resting(now) if each == key}
        tried, wait = resting.get(key, (False, None))
        return Standing(
            busy=self._admission.busy(one, now),
            rests=key in resting and not tried,
            next_try=None if wait is None else self._tools.clock() + wait,
            paused_until=one.paused_until + self._ahead() if now < one.paused_until else None,
        )

    def circuits(self) -> Iterable[tuple[str, str, int]]:
        """Return (iss, client_id, 1 half-open | 2 open) for each client that rests."""
        return ((*key, 1 if tried else 2) for key, tried, _ in self._admission.resting(self._tools.steady()))

    def next_tries(self) -> Iterable[tuple[str, str, float]]:
        """Return (iss, client_id, the moment of the next try in epoch seconds) for each client that rests."""
        now = self._tools.clock()
        return ((*key, now + wait) for key, _, wait in self._admission.resting(self._tools.steady()))

    def lines(self) -> Iterable[tuple[str, str, int]]:
        """Return (iss, client_id, deliveries that wait in memory) for each client that has any."""
        return self._admission.lines()

    def _ahead(self) -> float:
        """Return the seconds from the steady clock to the wall clock."""
        return self._tools.clock() - self._tools.steady()

    def _client_changed(self, one: KnownClient[Ticket], change: Change) -> None:
        iss, client_id = one.key
        if change is Change.RECOVERED:
            began, ended = one.outage
            self._tools.observe(ClientRecovered(iss=iss, client_id=client_id, outage=ended - began))
        else:
            next_try = max(one.next_try, one.paused_until) + self._ahead()
            self._tools.observe(ClientFailing(iss=iss, client_id=client_id, next_try=next_try))

    def _client_served(self, one: KnownClient[Ticket], seconds: float) -> None:
        iss, client_id = one.key
        self._tools.observe(ClientServed(iss=iss, client_id=client_id, seconds=seconds))

    # ── where it waits ──

    def _deferred(self, found: Iterator[tuple[Ticket, Later]]) -> Iterator[tuple[Ticket, Defer]]:
        return ((ticket, self._defer(ticket, later)) for ticket, later in found)

    def _defer(self, ticket: Ticket, later: Later) -> Defer:
        """Return the deferral by the wall clock. A delivery comes back for its last attempt, if there is time for one.

        What is parked in a bucket may stay there beyond that, and is judged when it comes back. So one with little
        time left is not parked: it waits in the delay queues for half of its age, again and again.
        """
        now, delivery, client = self._tools.clock(), ticket.delivery, ticket.client
        due = later.due + now - self._tools.steady()
        sid = self._tools.channel.names_session(delivery, client)
        last = max(now, last_moment(delivery, client.retry, carries_sid=sid, now=now))
        if later.place is Place.PARKED and last - now >= SHORT_LIVED:
            return Defer(due=due, cause=later.cause, place=Place.PARKED, until=last)
        if later.place is Place.PARKED:
            age = 0.0 if delivery.begun_at is None else now - delivery.begun_at
            due = now + max(SOON, min(due - now, SHARE_OF_OUTAGE * age))
            return Defer(due=min(due, last), cause=later.cause)
        if (due - now) * (LATE if later.rounding == "up" else 1) <= last - now:
            return Defer(due=due, cause=later.cause, place=Place.LEASH, rounding=later.rounding)
        due = min(due, last)
        steady = self._tools.steady()
        self._admission.drains.leash_ends(client.key, due - now + steady, steady)
        return Defer(due=due, cause=later.cause, place=Place.LEASH)


def replace_ticket(ticket: Ticket, delivery: Delivery) -> Ticket:
    """Return the ticket with its delivery as it is after the attempt."""
    return Ticket(held=ticket.held, delivery=delivery, client=ticket.client)
