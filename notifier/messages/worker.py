"""Takes messages, starts their deliveries as there is room, and acks each message when all its deliveries are settled.

The worker owns every task that it starts. Everything else is synchronous: a message, the end of an attempt and the end
of a settlement each call `_schedule_round`, which starts the deliveries that now have room. Deliveries are made lazily:
`Slots` bounds how many exist, however many clients the pending events name.
"""

import asyncio
import math
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

from notifier.delivery.circuit import State
from notifier.delivery.facts import IgnoredOverrides, Skipped
from notifier.delivery.fetches import BucketFetches
from notifier.delivery.line_and_parking import AdmittedDelivery
from notifier.delivery.pipeline import DeliveryPipeline
from notifier.delivery.ports import Peers, Tools
from notifier.delivery.scheduler import Scheduler
from notifier.delivery.slots import Slots
from notifier.messages.ledger import HeldMessage, Ledger
from notifier.messages.message_planner import MessagePlanner
from notifier.messages.replacements import Replacement
from notifier.messages.selection import POSTPONE_EFFORT, ROUND_EFFORT, Selection
from notifier.model.client import ClientKey
from notifier.model.defaults import PREFETCH
from notifier.model.delivery import Delivery
from notifier.model.message import Lane, Message
from notifier.model.registry import CurrentRegistry
from notifier.model.shared_resources import shared_bound
from notifier.queues.queue_port import WorkerQueue

ENDS_PER_ROUND = shared_bound(2)  # attempts that hang, each of which costs a millisecond
TICK_SECONDS = 0.05
SET_ASIDE_SECONDS = 0.5  # once or twice as long after its start, an unsettled message leaves the prefetch to others
MAX_SET_ASIDE_WINDOWS = shared_bound(5)  # × `max_in_flight` late messages are set aside at most …
MAX_YIELDING_WINDOWS = shared_bound(20)  # … and so many that yield: 10,000 take 41 MB
MAX_GAP_SECONDS = 0.25  # between two readings of the clock, which is read at each tick unless the loop is blocked


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds of one worker: `max_in_flight` attempts at a time; `shutdown_grace` in seconds; open files."""

    max_in_flight: int = 512
    shutdown_grace: float = 20.0
    max_open_files: float = math.inf


class Worker:
    """Delivers the messages that the queue passes to `take`: an `Inbox`. Runs from `run` until `stop`.

    `given_back`: how many messages it has returned to the queue, unacked, since `stop`.
    """

    def __init__(
        self,
        planner: MessagePlanner,
        tools: Tools,
        registry: CurrentRegistry,
        queue: WorkerQueue,
        limits: Limits,
        peers: Peers,
    ) -> None:
        self._planner = planner
        self._max_set_aside = {
            False: MAX_SET_ASIDE_WINDOWS * limits.max_in_flight, True: MAX_YIELDING_WINDOWS * limits.max_in_flight,
        }  # by whether they yield  # fmt: skip
        self._tools = tools
        self._shutdown_grace = limits.shutdown_grace
        self._round_scheduled = False  # `_start_round` will run in the loop's next round
        self._stop = asyncio.Event()
        self._drained = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._task_error: BaseException | None = None
        self._to_end: list[AdmittedDelivery] = []  # attempts that hang and end in the next rounds
        self.given_back = 0
        self.ledger = Ledger(queue, tools.observe, clock=tools.clock, monotonic=tools.monotonic)
        slots = Slots(
            tools, peers, limits.max_in_flight, self.ledger.unsettled_deliveries, self._started_share,
            self._yielding_seconds, limits.max_open_files,
        )  # fmt: skip
        self.scheduler = Scheduler(tools, slots, peers)
        self._selection = Selection(self.scheduler, monotonic=tools.monotonic)
        self._pipeline = DeliveryPipeline(tools, registry, queue, self.scheduler, self._spawn, self._schedule_round)
        settlement = self._pipeline.settlement
        self.parked, self.delayed = settlement.parked, settlement.delayed
        self._fetches = BucketFetches(
            queue, self.scheduler, self._take_parked, self._spawn, self.parked, tools.monotonic, tools.clock
        )

    def _started_share(self) -> float:
        """Return which share of the prefetch of events is used by messages whose steps are all taken, and not late."""
        return self.ledger.started_counts[Lane.EVENTS] / PREFETCH[Lane.EVENTS]

    def _yielding_seconds(self) -> float:
        """Return for how many seconds the first message that yields has done so."""
        return self._selection.yielding_seconds()

    # ── the queue's side ──

    def take(self, message: Message) -> None:
        """Hold and queue a received message. While the worker stops, ignore it."""
        if self._stop.is_set():
            self.given_back += 1
            return  # the broker redelivers it when the connection closes
        self._selection.add(self.ledger.take(message))
        self._schedule_round()

    def _take_parked(self, message: Message) -> ClientKey | None:
        """Hold a message fetched from a bucket, and start its delivery. Return the client if it is parked again."""
        held = self.ledger.take(message)
        if message.suspect:
            self._selection.add(held)
            return None
        held.read(self._planner)
        return self._start_next_step(held, fetched=True)

    def on_lost(self, lane: Lane, source: str | None = None) -> None:
        """Forget a queue's messages, which the broker redelivers.

        Running deliveries continue; the redelivered copies wait for their results.
        """
        self._selection.forget_queue(lane, source)
        self.ledger.forget_queue(lane, source)
        if lane is Lane.RETRIES:
            self._fetches.on_queue_lost()

    # ── running and stopping ──

    async def run(self) -> None:
        """Run until `stop`, then finish the deliveries in flight within `shutdown_grace` and cancel the others.

        Raises the unexpected error of a task: its message stays unsettled, so the process must end.
        """
        background = [asyncio.create_task(run()) for run in (self._tick, self._fetches.run)]
        for task in background:
            task.add_done_callback(self._on_task_error)
        await self._stop.wait()
        background[1].cancel()
        for held in self._selection.remove_unstarted():
            self.ledger.release(held)
            self.given_back += 1
        self._schedule_round()
        try:
            async with asyncio.timeout(self._shutdown_grace):
                await self._drained.wait()
        except TimeoutError:
            self.given_back += sum(map(self.ledger.held_count, Lane))
            for lane, source in self.ledger.held_queues():
                self.on_lost(lane, source)
            for task in self._tasks:
                task.cancel()
        for task in background:
            task.cancel()
        await asyncio.gather(*self._tasks, *background, return_exceptions=True)
        self.given_back += sum(map(self.ledger.held_count, Lane))
        if self._task_error is not None:
            raise self._task_error

    async def _tick(self) -> None:
        """Defer deliveries that waited too long in memory, and end attempts that hang, until cancelled."""
        set_aside_at = 0.0
        while True:
            await asyncio.sleep(TICK_SECONDS)
            if (now := self._tools.monotonic()) >= set_aside_at:
                set_aside_at = now + SET_ASIDE_SECONDS
                self.ledger.set_aside_late(self._max_set_aside)
            for admitted, deferral in self.scheduler.defer_without_slot():
                admitted.wake(deferral)
            self._to_end = self.scheduler.attempts_to_end()
            self._schedule_round()

    def stop(self) -> None:
        """Start no further messages, and let `run` drain the deliveries in flight."""
        self.scheduler.deferrals.on_stop()
        self._stop.set()

    @property
    def in_flight(self) -> int:
        """The number of running attempts and settlements."""
        return len(self._tasks) - self.scheduler.waiting

    def _spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_ended)
        return task

    def _on_task_ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        self._on_task_error(task)
        self._schedule_round()

    def _on_task_error(self, task: "asyncio.Task[None]") -> None:
        """Stop the worker if the ended task raised an error; `run` raises it."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._task_error = error
            self.stop()

    # ── choosing ──

    def _schedule_round(self) -> None:
        """Start the deliveries that have room in the event loop's next round, once for all calls until then."""
        if not self._round_scheduled:
            self._round_scheduled = True
            asyncio.get_running_loop().call_soon(self._start_round)

    def _start_round(self) -> None:
        """Start a few deliveries and fetches. The event loop reads answers between rounds, however many are due."""
        self._round_scheduled = False
        if self._selection.begin_round():
            self._schedule_round()
        if self.scheduler.start_turns or self._to_end:
            self._use_slots()
        effort, clients, closed = 0, self.scheduler.clients, State.CLOSED
        while effort < ROUND_EFFORT:
            if (held := self._selection.choose()) is None:
                if self._selection.lacks_memory():
                    self._pipeline.make_room()
                break
            if held.plan is None:
                held.read(self._planner)
            if isinstance(step := held.next_step, Delivery):
                known = clients.get((step.iss, step.client_id))
                is_proven = known is not None and known.circuit.state is closed
                if not is_proven and self._selection.must_yield(held, step.key):
                    if self._selection.postpone(held, step.key):
                        self.ledger.set_aside(held, self._max_set_aside)
                    effort += POSTPONE_EFFORT
                    continue
            self._start_next_step(held)
            effort += self._selection.on_step(held)
        else:
            self._schedule_round()
        if not self._stop.is_set():
            self._fetches.start_batches(others_came=effort > 0, fresh_waits=self._selection.has_fresh_events)
        elif not self._fetches.empty_unused() and not self._tasks and not self._selection.has_steps_left:
            self._drained.set()

    def _use_slots(self) -> None:
        """Start a few deliveries from memory, and end a few attempts that hang."""
        if self.scheduler.start_turns:
            for admitted in self.scheduler.start_waiting():
                admitted.wake()
        for admitted in self._to_end[:ENDS_PER_ROUND]:
            admitted.end_early()
        del self._to_end[:ENDS_PER_ROUND]
        if self.scheduler.start_turns or self._to_end:
            self._schedule_round()

    # ── a message: read, plan, start ──

    def _start_next_step(self, held: HeldMessage, *, fetched: bool = False) -> ClientKey | None:
        """Start the next step of the message, which has been read.

        Ack the message if no step is left and all are settled. Return the client of a delivery that is parked at once.
        """
        parked: ClientKey | None = None
        if held.next_step is not None:
            match held.take_step(self._planner):
                case Delivery() as delivery:
                    if self.ledger.start_delivery(held, delivery):
                        parked = None if self._pipeline.start(held, delivery, fetched=fetched) else delivery.key
                case Skipped() | IgnoredOverrides() as fact:
                    self._tools.observe(fact)
                case Replacement() as move:
                    self.ledger.on_step_started(held, move.deliveries)
                    self._spawn(self._replace_message(held, move))
        if held.next_step is None:
            self.ledger.ack_if_settled(held)
        return parked

    async def _replace_message(self, held: HeldMessage, move: Replacement) -> None:
        messages = move.messages if move.make_messages is None else await move.make_messages()
        await self._pipeline.settlement.send_all(messages)
        self.ledger.on_step_settled(held)


class UnsuspendedClock:
    """Counts the seconds of `monotonic`, but at most MAX_GAP_SECONDS between two readings.

    A process may be suspended: frozen, moved to another machine, or without CPU quota. By a plain clock every client
    with a running attempt seems silent for that time, and after six seconds each delivery of the next minutes was
    deferred (measured: 1,000 deliveries).
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._read_at = monotonic()
        self._suspended_seconds = 0.0

    def __call__(self) -> float:
        """Return the present moment."""
        now = self._monotonic()
        if now - self._read_at > MAX_GAP_SECONDS:
            self._suspended_seconds += now - self._read_at - MAX_GAP_SECONDS
        self._read_at = now
        return now - self._suspended_seconds
