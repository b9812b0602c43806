"""Takes messages, begins their deliveries as there is room, and acks each message when all its deliveries are settled.

The worker owns every task that it starts. Everything but the tasks is synchronous: a message, the end of an attempt and
the end of a settlement each lead to `_pump`, which begins what now has room. Deliveries are made lazily: at most twice
`max_in_flight` exist, however many clients the waiting events name.
"""

import asyncio
import math
from collections.abc import Coroutine
from dataclasses import dataclass

from notifier.delivery import facts
from notifier.delivery.attempt import Judgement, Tools, attempt, defer_for
from notifier.delivery.bucket_counts import BucketCounts
from notifier.delivery.copies import stands_for
from notifier.delivery.delay_counts import DelayCounts
from notifier.delivery.gate import Gate, Go, Wait
from notifier.delivery.intake import Intake, Move
from notifier.delivery.ledger import HeldMessage, Ledger
from notifier.delivery.plan import Skipped, Unheard
from notifier.delivery.ports import Peers
from notifier.delivery.pulls import Pulls
from notifier.delivery.selection import ROUND, Selection
from notifier.delivery.settlement import Send, Settlement
from notifier.delivery.ticket import Ticket
from notifier.delivery.verdict import (
    DONE,
    Dead,
    Defer,
    Done,
    RetryAt,
    Verdict,
    WaitsAs,
    before_attempt,
    not_taken,
    postponed,
)
from notifier.model.defaults import PREFETCH
from notifier.model.delivery import Delivery
from notifier.model.errors import OurFault
from notifier.model.frozen import replace
from notifier.model.message import Lane, Message
from notifier.model.outcome import Cause
from notifier.model.registry import CurrentRegistry
from notifier.queues.queue_port import WorkerQueue

TICK = 0.05  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds of one worker: `max_in_flight` attempts at a time; `shutdown_grace` in seconds."""

    max_in_flight: int = 512
    shutdown_grace: float = 20.0


class Worker:
    """Delivers the messages that the queue puts into it: an `Inbox`. Runs from `run` until `stop`."""

    def __init__(
        self, intake: Intake, tools: Tools, registry: CurrentRegistry, queue: WorkerQueue, limits: Limits, peers: Peers
    ) -> None:
        self._intake = intake
        self._tools = tools
        self._registry = registry
        self._settlement = Settlement(queue, clock=tools.clock, observe=tools.observe)
        self._shutdown_grace = limits.shutdown_grace
        self._pumping = False  # `_begin_some` runs in the loop's next round
        self._making_room = False  # one that waited is being put off for another's sake
        self._stop = asyncio.Event()
        self._quiet = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._broken: BaseException | None = None
        self.ledger = Ledger(queue, tools.observe, clock=tools.clock, steady=tools.steady)
        self.gate = Gate(
            tools,
            self.ledger.without_fate,
            max_in_flight=limits.max_in_flight,
            begun=lambda: (
                (self.ledger.messages_held(Lane.EVENTS) - self._selection.lined_up(Lane.EVENTS)) / PREFETCH[Lane.EVENTS]
            ),
            peers=peers,
        )
        self._selection = Selection(self.gate, steady=tools.steady)
        self.parked = BucketCounts(queue.bucket)
        self.delayed = DelayCounts(tools.clock)
        self._pulls = Pulls(queue, self.gate, self._take_parked, self._spawn, self.parked, tools.steady)

    # ── the queue's side ──

    def take(self, message: Message) -> None:
        """Take a message that came from the queue."""
        if self._stop.is_set():
            return  # it goes back to the queue when the connection closes
        self._selection.put(self.ledger.take(message))
        self._pump()

    def _take_parked(self, message: Message) -> bool:
        """Take a delivery that was fetched from its bucket, and begin it. Returns False if it was parked again."""
        held = self.ledger.take(message)
        if message.suspect:
            self._selection.put(held)
            return True
        return self._go_on(held, pulled=True)

    def lost(self, lane: Lane, source: str | None = None) -> None:
        """Let go of a queue's messages: they will come again. What runs goes on, and the second copy joins it."""
        self._selection.lose(lane, source)
        self.ledger.lose(lane, source)
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
            self.ledger.let_go(held)
        self._pump()
        try:
            async with asyncio.timeout(self._shutdown_grace):
                await self._quiet.wait()
        except TimeoutError:
            self.gate.abandon()
            for lane, source in self.ledger.origins():
                self.lost(lane, source)
            for task in self._tasks:
                task.cancel()
        for task in background:
            task.cancel()
        await asyncio.gather(*self._tasks, *background, return_exceptions=True)
        if self._broken is not None:
            raise self._broken

    async def _tick(self) -> None:
        """Put off those that wait at a client that hangs or is left alone, and let those go whose turn has come."""
        while True:
            await asyncio.sleep(TICK)
            for ticket, later in self.gate.put_off():
                ticket.call_up(later)
            for ticket in self.gate.hand_out():
                ticket.call_up()
            self._pump()

    def stop(self) -> None:
        """Begin the drain."""
        self.gate.leave()
        self._stop.set()

    @property
    def in_flight(self) -> int:
        """How many attempts and settlements run."""
        return len(self._tasks) - self.gate.waiting

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

    # ── choosing ──

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
            self._go_on(held)
            effort += self._selection.gave(held)
        else:
            self._pump()
        if not self._stop.is_set():
            self._pulls.begin(fresh_waits=self._selection.lined_up(Lane.EVENTS) > 0)
        elif not self._tasks and not self._selection.waiting:
            self._quiet.set()

    def _make_room(self) -> None:
        """Have those that would wait longest give way, if memory is full."""
        if self._making_room or not self._selection.cramped():
            return
        for ticket, later in self.gate.give_way():
            self._making_room = True
            ticket.call_up(later)

    # ── the way of a message: read, plan, begin ──

    def _go_on(self, held: HeldMessage, *, pulled: bool = False) -> bool:
        """Read and plan the message, if that is not done yet, and begin the next thing that it asks for.

        It is acked if that was the last and all have their fate. Returns False if what was begun is to be parked again.
        """
        if held.work is None:
            held.read(self._intake)
        useful = True
        if held.next_step is not None:
            match held.give(self._intake):
                case Delivery() as delivery:
                    if self.ledger.open_delivery(held, delivery):
                        useful = self._begin(held, delivery, pulled=pulled)
                case Skipped() | Unheard() as untold:
                    self._tools.observe(untold)
                case Send() as send:
                    self.ledger.open(held)
                    self._spawn(self._move(held, Move(sends=(send,))))
                case Move() as move:
                    self.ledger.open(held)
                    self._spawn(self._move(held, move))
        if held.next_step is None:
            self.ledger.close(held)
        return useful

    async def _move(self, held: HeldMessage, move: Move) -> None:
        await self._settlement.send_all(move.sends if move.look_up is None else await move.look_up())
        self.ledger.settle(held)

    # ── the way of a delivery: admit, attempt, judge, settle ──

    def _begin(self, held: HeldMessage, delivery: Delivery, *, pulled: bool = False) -> bool:
        """Admit the delivery, and see it through. Returns False if it is to be parked."""
        if delivery.parked:
            delivery = replace(delivery, parked=False)
            self.parked.remove(delivery.key)
        admitted = self._admit(held, delivery, pulled=pulled)
        self._spawn(self._deliver(held, delivery, admitted))
        return isinstance(admitted, Ticket) or not _parks(admitted.verdict)

    async def _deliver(self, held: HeldMessage, begun: Delivery, admitted: Ticket | Judgement) -> None:
        """See a delivery through to its durable fate: attempt it if it has a ticket, judge, settle.

        If the queue is away until a deferral is due, it is admitted once more.
        """
        while True:
            judged = await self._attempt(admitted) if isinstance(admitted, Ticket) else admitted
            verdict = judged.verdict
            stands_until = self._stands_until(verdict)  # as of now: the retry may be back before its confirm
            if isinstance(verdict, Done):  # nearly always
                break
            since = self._tools.steady()
            if await self._settlement.settle(judged.delivery, verdict, held.message):
                break
            self._making_room = False
            begun = not_taken(begun, judged.delivery, self._tools.steady() - since)
            admitted = self._admit(held, begun)
        self._making_room = False
        for holder, copy in self.ledger.settle_delivery(held, begun, stands_until=stands_until):
            self._begin(holder, copy)
        if not isinstance(verdict, RetryAt | Defer):
            return  # nearly always: the client is notified
        if verdict.waits_as is WaitsAs.PARKED:
            self.parked.add(begun.key)
            self.gate.parked(begun.key)
            return
        self.delayed.put_off(begun.key, verdict)
        if verdict.waits_as is WaitsAs.TRAVELLER:
            self.gate.probe_sent(begun.key)

    def _admit(self, held: HeldMessage, delivery: Delivery, *, pulled: bool = False) -> Ticket | Judgement:
        """Return its ticket if it is attempted, now or after a wait in memory; else what becomes of it."""
        registry = self._registry()
        client = registry.client_of(delivery)
        judged_as = client or registry.default_of(delivery.iss)
        now = self._tools.clock()
        verdict: Verdict | None = before_attempt(
            delivery,
            client,
            judged_as.retry,
            issuer_known=delivery.iss in registry.issuers,
            grace=registry.grace,
            denied=registry.inline == "deny",
            # A delivery seen for the first time has no age, so what its token names does not matter.
            carries_sid=delivery.first_taken_at is not None and self._tools.channel.names_session(delivery, judged_as),
            now=now,
        )
        if delivery.leash is not None and isinstance(verdict, Dead):
            self.gate.traveller_ended(delivery.key)
        if verdict is None and client is not None:
            ticket = Ticket(held=held, delivery=delivery, client=client, pulled=pulled)
            match self.gate.ask(ticket):
                case Go():
                    return ticket
                case Wait():
                    ticket.turn = asyncio.get_running_loop().create_future()
                    return ticket
                case Defer() as verdict:
                    delivery = ticket.delivery
        assert verdict is not None
        after = postponed(delivery, verdict, judged_as.retry, now) if isinstance(verdict, Defer) else delivery
        return Judgement(delivery=after, verdict=verdict)

    async def _attempt(self, ticket: Ticket) -> Judgement:
        """Attempt the delivery when its turn has come. The client's slot is free before the settlement."""
        if ticket.turn is not None and (later := await ticket.turn) is not None:
            after = postponed(ticket.delivery, later, ticket.client.retry, self._tools.clock())
            return Judgement(delivery=after, verdict=later)
        judged: Judgement | None = None
        try:
            judged = await attempt(ticket.delivery, ticket.client, self._tools)
        except Exception as error:  # noqa: BLE001  around one delivery: a fault in our code must not stop the others
            judged = self._unexpected(ticket, error)
        finally:  # of a task that is cancelled too
            ended = Judgement(delivery=ticket.delivery, verdict=DONE) if judged is None else judged
            for following in self.gate.ended(ticket, ended):
                following.call_up()
        if ended.verdict is not DONE and (seconds := self.gate.rotation_seconds(ticket, ended)) > 0:
            ticket.turn = asyncio.get_running_loop().create_future()
            self._pump()
            await asyncio.wait((ticket.turn,), timeout=seconds / 2)
        judged = self.gate.after_failure(ticket, ended)
        if (attempted := judged.complete_fact()) is not None:
            self._tools.observe(attempted)
        self._pump()
        return judged

    def _unexpected(self, ticket: Ticket, error: Exception) -> Judgement:
        iss, client_id = ticket.client.key
        event_id = ticket.delivery.event_id
        self._tools.observe(facts.Unexpected(iss=iss, client_id=client_id, event_id=event_id, error=error))
        fault = OurFault(Cause.UNKNOWN, f"unexpected {type(error).__name__}")
        return defer_for(fault, ticket.delivery, ticket.client, self._tools)

    def _stands_until(self, verdict: Verdict) -> float | None:
        match verdict:
            case Done():
                return math.inf
            case RetryAt(due=due) | Defer(due=due):
                alone = self.gate.clients.workers == 1
                return self._tools.steady() + stands_for(due - self._tools.clock(), alone=alone)
            case Dead():
                return None


def _parks(verdict: Verdict) -> bool:
    return isinstance(verdict, RetryAt | Defer) and verdict.waits_as is WaitsAs.PARKED
