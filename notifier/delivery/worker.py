"""Takes messages, starts their deliveries as there is room, and acks each message when all its deliveries are settled.

The worker owns every task that it starts. Everything but the tasks is synchronous: a message, the end of an attempt and
the end of a settlement each lead to `_pump`, which starts the deliveries that now have room. Deliveries are made
lazily, however many clients the pending events name: `Slots` bounds how many exist.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

from notifier.delivery.delivery_pipeline import DeliveryPipeline
from notifier.delivery.facts import IgnoredOverrides, Skipped
from notifier.delivery.gate import Gate, Slots
from notifier.delivery.intake import Intake
from notifier.delivery.ledger import HeldMessage, Ledger
from notifier.delivery.ports import Peers, Tools
from notifier.delivery.pulls import Pulls
from notifier.delivery.replacements import Move
from notifier.delivery.selection import ROUND_EFFORT, Selection
from notifier.model.defaults import PREFETCH
from notifier.model.delivery import Delivery
from notifier.model.message import Lane, Message
from notifier.model.registry import CurrentRegistry
from notifier.queues.queue_port import WorkerQueue

TICK_SECONDS = 0.05
MAX_GAP_SECONDS = 0.25  # the worker reads the clock at each tick, unless its event loop is blocked


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
        self._shutdown_grace = limits.shutdown_grace
        self._pumping = False  # `_start_some` runs in the loop's next round
        self._stop = asyncio.Event()
        self._quiet = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._broken: BaseException | None = None
        self.ledger = Ledger(queue, tools.observe, clock=tools.clock, steady=tools.steady)
        slots = Slots(tools, peers, limits.max_in_flight, self.ledger.without_fate, started_share=self._started_share)
        self.gate = Gate(tools, slots, peers)
        self._selection = Selection(self.gate, steady=tools.steady)
        self._pipeline = DeliveryPipeline(tools, registry, queue, self.gate, self.ledger, self._spawn, self._pump)
        self.parked, self.delayed = self._pipeline.parked, self._pipeline.delayed
        self._pulls = Pulls(queue, self.gate, self._take_parked, self._spawn, self.parked, tools.steady)

    def _started_share(self) -> float:
        begun = self.ledger.messages_held(Lane.EVENTS) - self._selection.waiting_count(Lane.EVENTS)
        return begun / PREFETCH[Lane.EVENTS]

    # ── the queue's side ──

    def take(self, message: Message) -> None:
        """Take a message that came from the queue."""
        if self._stop.is_set():
            return  # it goes back to the queue when the connection closes
        self._selection.put(self.ledger.take(message))
        self._pump()

    def _take_parked(self, message: Message) -> bool:
        """Take a delivery that was fetched from its bucket, and start it. Returns False if it is parked again."""
        held = self.ledger.take(message)
        if message.suspect:
            self._selection.put(held)
            return True
        return self._continue(held, fetched=True)

    def on_lost(self, lane: Lane, source: str | None = None) -> None:
        """Forget a queue's messages; the broker redelivers them. Running deliveries continue, and a copy joins them."""
        self._selection.forget_queue(lane, source)
        self.ledger.forget_queue(lane, source)
        if lane is Lane.RETRIES:
            self._pulls.on_queue_lost()

    # ── running and stopping ──

    async def run(self) -> None:
        """Serve until `stop`, finish the deliveries in flight within `shutdown_grace`, and give the rest back.

        Raises the error of a task that broke: its message is unsettled, and the process must not go on as if it were.
        """
        background = [asyncio.create_task(run()) for run in (self._tick, self._pulls.run)]
        for task in background:
            task.add_done_callback(self._broke)
        await self._stop.wait()
        background[1].cancel()
        for held in self._selection.remove_unstarted():
            self.ledger.release(held)
        self._pump()
        try:
            async with asyncio.timeout(self._shutdown_grace):
                await self._quiet.wait()
        except TimeoutError:
            for lane, source in self.ledger.origins():
                self.on_lost(lane, source)
            for task in self._tasks:
                task.cancel()
        for task in background:
            task.cancel()
        await asyncio.gather(*self._tasks, *background, return_exceptions=True)
        if self._broken is not None:
            raise self._broken

    async def _tick(self) -> None:
        """Defer deliveries that can wait in memory no longer, and start the deliveries whose turn has come."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            for ticket, later in self.gate.defer_overdue():
                ticket.wake(later)
            for ticket in self.gate.start_waiting():
                ticket.wake()
            self._pump()

    def stop(self) -> None:
        """Begin the drain."""
        self.gate.buckets.leave()
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
        """End the worker if one of its tasks broke."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._broken = error
            self.stop()

    # ── choosing ──

    def _pump(self) -> None:
        """Start the deliveries that have room, in the loop's next round and once for all calls until then."""
        if not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._start_some)

    def _start_some(self) -> None:
        """Start a few deliveries. Answers are read between rounds, so hundreds that are due at once delay no other."""
        self._pumping = False
        if self._selection.begin_round():
            self._pump()
        effort = 0
        while effort < ROUND_EFFORT:
            if (held := self._selection.next()) is None:
                if self._selection.lacks_memory():
                    self._pipeline.make_room()
                break
            self._continue(held)
            effort += self._selection.on_step(held)
        else:
            self._pump()
        if not self._stop.is_set():
            self._pulls.begin(fresh_waits=self._selection.waiting_count(Lane.EVENTS) > 0)
        elif not self._tasks and not self._selection.waiting:
            self._quiet.set()

    # ── a message: read, plan, start ──

    def _continue(self, held: HeldMessage, *, fetched: bool = False) -> bool:
        """Read and plan the message, unless that is done, and start its next step.

        The message is acked if that was the last step and all are settled. Returns False if the delivery that was
        started is to be parked again.
        """
        if held.work is None:
            held.read(self._intake)
        useful = True
        if held.next_step is not None:
            match held.take_step(self._intake):
                case Delivery() as delivery:
                    if self.ledger.open_delivery(held, delivery):
                        useful = self._pipeline.start(held, delivery, fetched=fetched)
                case Skipped() | IgnoredOverrides() as fact:
                    self._tools.observe(fact)
                case Move() as move:
                    self.ledger.open(held, move.deliveries)
                    self._spawn(self._move(held, move))
        if held.next_step is None:
            self.ledger.close(held)
        return useful

    async def _move(self, held: HeldMessage, move: Move) -> None:
        sends = move.sends if move.look_up is None else await move.look_up()
        await self._pipeline.settlement.send_all(sends)
        self.ledger.settle(held)


class UnsuspendedClock:
    """Counts the seconds of `steady`, but at most MAX_GAP_SECONDS between two readings.

    A process may be frozen, its machine moved, its CPU quota used up. Afterwards answers lie unread and deadlines have
    passed. By a plain clock every client with a running attempt has then been silent for seconds. After six such
    seconds every delivery of the next minutes was deferred by the length of an attempt (measured: 1,000 deliveries).
    """

    def __init__(self, steady: Callable[[], float]) -> None:
        self._steady = steady
        self._read = steady()
        self._held = 0.0

    def __call__(self) -> float:
        """Return the present moment."""
        now = self._steady()
        if now - self._read > MAX_GAP_SECONDS:
            self._held += now - self._read - MAX_GAP_SECONDS
        self._read = now
        return now - self._held
