"""Takes messages, begins their deliveries as there is room, and acks each message when all its deliveries are settled.

The worker owns every task that it starts. All but the tasks is synchronous: a message, the end of an attempt and the
end of a settlement each lead to `_pump`, which begins what now has room. Deliveries are made lazily: at most twice
`max_in_flight` exist, however many clients the waiting events name.
"""

import asyncio
import math
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass

from notifier.delivery import facts
from notifier.delivery.attempt import AttemptResult, Tools, attempt, defer_for
from notifier.delivery.bucket_counts import BucketCounts
from notifier.delivery.copies import stands_for
from notifier.delivery.delay_counts import DelayCounts
from notifier.delivery.gate import Gate, Go, Standing, Ticket, Wait
from notifier.delivery.intake import Intake, Move, Step
from notifier.delivery.known_client import News
from notifier.delivery.ledger import HeldMessage, Ledger
from notifier.delivery.plan import Skipped, Unheard
from notifier.delivery.ports import Peers
from notifier.delivery.pulls import Pulls
from notifier.delivery.selection import ROUND, Selection
from notifier.delivery.settlement import Send, Settlement
from notifier.delivery.verdict import (
    Dead,
    Defer,
    Done,
    Place,
    RetryAt,
    Skip,
    Verdict,
    before_attempt,
    not_taken,
    postponed,
)
from notifier.model.defaults import PREFETCH
from notifier.model.delivery import Delivery
from notifier.model.errors import OurFault
from notifier.model.frozen import replace
from notifier.model.message import Lane, Message, Unsettled
from notifier.model.outcome import Cause
from notifier.model.registry import CurrentRegistry
from notifier.queues.queue_port import Acknowledger, Parking

TICK = 0.05  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds of one worker: `max_in_flight` attempts at a time; `slot_wait` and `shutdown_grace` in seconds.

    `prefetch` is how many events it may hold that are not acked.
    """

    max_in_flight: int = 512
    prefetch: int = PREFETCH[Lane.EVENTS]
    slot_wait: float = 1.0
    shutdown_grace: float = 20.0


class Worker:
    """Delivers the messages that the queue puts into it: an `Inbox`. Runs from `run` until `stop`."""

    def __init__(
        self,
        intake: Intake,
        settlement: Settlement,
        tools: Tools,
        registry: CurrentRegistry,
        acknowledger: Acknowledger,
        parking: Parking,
        limits: Limits,
        peers: Peers,
    ) -> None:
        self._intake = intake
        self._settlement = settlement
        self._tools = tools
        self._registry = registry
        self._shutdown_grace = limits.shutdown_grace
        self._pumping = False  # `_begin_some` runs in the loop's next round
        self._making_room = False  # one that waited is being put off for another's sake
        self._stop = asyncio.Event()
        self._quiet = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._broken: BaseException | None = None
        self._ledger = Ledger(acknowledger, tools.observe, clock=tools.clock, steady=tools.steady)
        self._gate = Gate(
            tools,
            self._ledger.without_fate,
            max_in_flight=limits.max_in_flight,
            slot_wait=limits.slot_wait,
            begun=lambda: (self._ledger.held(Lane.EVENTS) - self._selection.lined_up(Lane.EVENTS)) / limits.prefetch,
            peers=peers,
        )
        self._selection = Selection(self._gate, intake, steady=tools.steady)
        self._counts = BucketCounts(parking.bucket)
        self._delayed = DelayCounts(tools.clock)
        self._pulls = Pulls(parking, self._gate, self._take_parked, self._spawn, self._counts, tools.steady)

    # ── the queue's side ──

    def take(self, message: Message) -> None:
        """Take a message that came from the queue."""
        if self._stop.is_set():
            return  # it goes back to the queue when the connection closes
        self._selection.put(self._ledger.take(message))
        self._pump()

    def _take_parked(self, message: Message) -> bool:
        """Take a delivery that was fetched from its bucket, and begin it. Returns False if it was parked again."""
        held = self._ledger.take(message)
        if message.suspect:
            self._selection.put(held)
            return True
        held.look(self._intake)
        useful = held.ahead is None or self._begin(held, held.give(self._intake), pulled=True)
        self._ledger.close(held)
        return useful

    def lost(self, lane: Lane, source: str | None = None) -> None:
        """Let go of a queue's messages: they will come again. What runs goes on, and the second copy joins it."""
        self._selection.lose(lane, source)
        self._ledger.lose(lane, source)
        if lane is Lane.RETRIES:
            self._pulls.lost()

    # ── running and stopping ──

    async def run(self) -> None:
        """Serve until `stop`, finish what is in flight within `shutdown_grace`, and give the rest back.

        Raises what broke a settlement: its message has no fate, and the process must not go on as if it had.
        """
        background = [asyncio.create_task(run()) for run in (self._tick, self._pulls.run)]
        for task in background:
            task.add_done_callback(self._broke)
        await self._stop.wait()
        background[1].cancel()
        for held in self._selection.give_back():
            self._ledger.let_go(held)
        self._pump()
        try:
            async with asyncio.timeout(self._shutdown_grace):
                await self._quiet.wait()
        except TimeoutError:
            self._gate.abandon()
            for lane, source in self._ledger.origins():
                self.lost(lane, source)
            for task in self._tasks:
                task.cancel()
        for task in background:
            task.cancel()
        await asyncio.gather(*self._tasks, *background, return_exceptions=True)
        if self._broken is not None:
            raise self._broken

    async def _tick(self) -> None:
        """Put off those that wait at a client that hangs or is left alone."""
        while True:
            await asyncio.sleep(TICK)
            for ticket, later in self._gate.put_off():
                self._put_off(ticket, later)
            for ticket in self._gate.hand_out():
                self._start(ticket)
            self._pump()

    def stop(self) -> None:
        """Begin the drain."""
        self._gate.leave()
        self._stop.set()

    @property
    def circuits(self) -> Iterable[tuple[str, str, int]]:
        """Return (iss, client_id, 1 half-open | 2 open) for each client that rests."""
        return self._gate.circuits()

    @property
    def next_tries(self) -> Iterable[tuple[str, str, float]]:
        """Return (iss, client_id, the moment of the next try in epoch seconds) for each client that rests."""
        return self._gate.next_tries()

    @property
    def lines(self) -> Iterable[tuple[str, str, int]]:
        """Return (iss, client_id, deliveries that wait in memory) for each client that has any."""
        return self._gate.lines()

    @property
    def parked(self) -> Iterable[tuple[str, str, int]]:
        """Return (iss, client_id, deliveries that wait in its bucket) for each client, see `BucketCounts`."""
        return self._counts

    @property
    def delayed(self) -> Iterable[tuple[str, str, int, float]]:
        """Return (iss, client_id, deliveries in delay queues, when the next is due), see `DelayCounts`."""
        return self._delayed

    def try_now(self, key: tuple[str, str], *, force: bool) -> None:
        """Have the client tried at once, if something is parked for it. A pause stands, unless `force`."""
        self._gate.try_now(key, force=force)
        self._pump()

    def heard(self, news: News) -> None:
        """Act as if this worker had seen what another one saw of a client."""
        self._gate.heard(news)
        self._pump()

    def held_up(self, key: tuple[str, str]) -> bool:
        """Return True if the client rests or pauses, or something may be parked for it."""
        return self._gate.held_up(key)

    def made_due(self, key: tuple[str, str]) -> None:
        """Note that somebody takes what waits for this client out of the delay queues."""
        self._delayed.forget(key)

    def standing(self, key: tuple[str, str]) -> Standing:
        """Return how the client stands at this worker."""
        return self._gate.standing(key)

    def unsettled(self) -> Mapping[str, Unsettled]:
        """Return how many messages of each queue are held, and how old they are."""
        return self._ledger.unsettled()

    @property
    def in_flight(self) -> int:
        """How many attempts and settlements run."""
        return len(self._tasks)

    # ── beginning ──

    def _pump(self) -> None:
        """Begin what there is room for in the loop's next round, once for all who ask for it meanwhile."""
        if not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._begin_some)

    def _begin_some(self) -> None:
        """Begin a few deliveries. Answers are read between rounds, so hundreds that come due at once delay nobody."""
        self._pumping = False
        if self._selection.begin_round():
            self._pump()
        effort = 0
        while effort < ROUND:
            if (held := self._selection.next()) is None:
                self._make_room()
                break
            if held.ahead is not None:
                self._begin(held, held.give(self._intake))
            effort += self._selection.gave(held)
            self._ledger.close(held)
        else:
            self._pump()
        if not self._stop.is_set():
            self._pulls.begin(fresh_waits=self._selection.lined_up(Lane.EVENTS) > 0)
        elif not self._tasks and not self._gate.waiting and not self._selection.waiting:
            self._quiet.set()

    def _make_room(self) -> None:
        """Have those that would wait longest give way, if memory is full."""
        if self._making_room or not self._selection.cramped():
            return
        for ticket, later in self._gate.give_way():
            self._making_room = True
            self._put_off(ticket, later)

    def _begin(self, held: HeldMessage, step: Step | Move, *, pulled: bool = False) -> bool:
        """Begin what a message asks for. Returns False if it was parked."""
        match step:
            case Delivery():
                if (begun := self._ledger.open_delivery(held, step)) is not None:
                    return self._ask(held, begun, pulled=pulled)
            case Skipped() | Unheard():
                self._tools.observe(step)
            case Send():
                self._ledger.open(held)
                self._spawn(self._move(held, Move(sends=(step,))))
            case Move():
                self._ledger.open(held)
                self._spawn(self._move(held, step))
        return True

    def _ask(self, held: HeldMessage, delivery: Delivery, *, pulled: bool = False) -> bool:
        """Attempt the delivery, put it off, or give it up. Returns False if it was parked."""
        if delivery.parked:
            delivery = replace(delivery, parked=False)
            self._counts.came_back(delivery.key)
        registry = self._registry()
        client = registry.client_of(delivery)
        now = self._tools.clock()
        verdict: Verdict | None = before_attempt(
            delivery,
            client,
            issuer_known=delivery.iss in registry.issuers,
            grace=registry.grace,
            denied=registry.inline == "deny",
            # A delivery seen for the first time has no age, so what its token names does not matter.
            carries_sid=delivery.first_taken_at is not None
            and client is not None
            and self._tools.channel.names_session(delivery, client),
            now=now,
        )
        if isinstance(verdict, Dead | Skip) and delivery.leash is not None:
            self._gate.traveller_ended(delivery.key)
        if verdict is None and client is not None:
            ticket = Ticket(held=held, delivery=delivery, client=client, pulled=pulled)
            verdict = self._admit(ticket)
            delivery = ticket.delivery
        if verdict is None:
            return True
        after = postponed(delivery, verdict, client, now) if isinstance(verdict, Defer) else delivery
        self._spawn(self._settle(held, delivery, after, verdict))
        return not (isinstance(verdict, Defer) and verdict.place is Place.PARKED)

    def _admit(self, ticket: Ticket) -> Defer | None:
        """Start the attempt, let it wait in memory, or return until when it is put off."""
        match self._gate.ask(ticket):
            case Go():
                self._start(ticket)
            case Wait():
                pass
            case Defer() as later:
                return later
        return None

    def _put_off(self, ticket: Ticket, later: Defer) -> None:
        after = postponed(ticket.delivery, later, ticket.client, self._tools.clock())
        self._spawn(self._settle(ticket.held, ticket.delivery, after, later))

    def _start(self, ticket: Ticket) -> None:
        self._spawn(self._serve(ticket))

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        self._broke(task)
        self._pump()

    def _broke(self, task: "asyncio.Task[None]") -> None:
        """End the worker if a task of it broke."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._broken = error
            self.stop()

    # ── doing ──

    async def _serve(self, ticket: Ticket) -> None:
        """Make one attempt and settle it. The client's slot is free before the settlement, which may wait."""
        result = AttemptResult(delivery=ticket.delivery, verdict=Done())  # stands if the task is cancelled
        try:
            result = await attempt(ticket.delivery, ticket.client, self._tools)
        except Exception as error:  # noqa: BLE001  around one delivery: a fault in our code must not stop the others
            result = self._unexpected(ticket, error)
        finally:
            for following in self._gate.ended(ticket, result):
                self._start(following)
        result = self._gate.after_failure(ticket, result)
        if (told := result.told()) is not None:
            self._tools.observe(told)
        self._pump()
        await self._settle(ticket.held, ticket.delivery, result.delivery, result.verdict)

    def _unexpected(self, ticket: Ticket, error: Exception) -> AttemptResult:
        iss, client_id = ticket.client.key
        event_id = ticket.delivery.event_id
        self._tools.observe(facts.Unexpected(iss=iss, client_id=client_id, event_id=event_id, error=error))
        fault = OurFault(Cause.UNKNOWN, f"unexpected {type(error).__name__}")
        return defer_for(fault, ticket.delivery, ticket.client, self._tools)

    async def _settle(self, held: HeldMessage, begun: Delivery, after: Delivery, verdict: Verdict) -> None:
        stands_until = self._stands_until(verdict)  # as of now: the retry may be back before its confirm is here
        durable = await self._settlement.settle(after, verdict)
        self._making_room = False
        if durable:
            for holder, copy in self._ledger.settle_delivery(held, begun, stands_until=stands_until):
                self._ask(holder, copy)
            if isinstance(verdict, RetryAt | Defer):
                self._note_wait(begun.key, verdict)
        else:
            self._ask(held, not_taken(begun, after))

    def _stands_until(self, verdict: Verdict) -> float | None:
        match verdict:
            case Done():
                return math.inf
            case RetryAt(due=due) | Defer(due=due):
                return self._tools.steady() + stands_for(due - self._tools.clock())
            case Skip() | Dead():
                return None

    def _note_wait(self, key: tuple[str, str], verdict: RetryAt | Defer) -> None:
        if verdict.place is Place.PARKED:
            self._counts.parked(key)
            self._gate.parked(key)
        else:
            self._delayed.put_off(key, verdict)

    async def _move(self, held: HeldMessage, move: Move) -> None:
        await self._settlement.send_all(move.sends if move.look_up is None else await move.look_up())
        self._ledger.settle(held)
