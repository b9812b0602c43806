"""Chooses the held message whose next delivery begins: by lane, client and event; suspects in groups, large singly.

*Lanes*: fresh events are chosen before retries, and retries before bulk. A lane that is passed over nine times is
chosen next, so that bulk and retries progress however many fresh events there are.

*Clients*: a retry, or an event for one client, *yields* if the circuit of its client is open, or if the client is
untried while many others fail. It is chosen after the fresh events and retries for other clients, and before bulk;
those for untried clients first, since these may be well. So clients that are down do not delay the others if the worker
lacks processor time: an untried client waits at most until each untried client before it has been attempted once. While
many yield, they are set aside, since they must not use up the prefetch; probes become rare
(`ClientStates.min_open_seconds`), and fresh deliveries are no probes (`Slots.has_spare_probe_slots`).

*Events*: after its first ten deliveries a fresh event *continues* in another queue, in turns of ten, and so do all
parts of an event of more than a hundred clients. That queue comes after the fresh events and before retries, and each
round of the event loop starts one delivery of it at most. So a fresh logout waits for one delivery of large events,
however many there are. Of the messages that are parts of one event, only one waits in the queue. If all alternated,
none would be acked before the last of them ends, and a crash would repeat the whole event.

*Suspects*: a message that was redelivered three times or more may be what crashes the process. When a process
dies, all its unacked messages are redelivered, also harmless ones. So a suspect does not run. It is replaced by a
*trial*, a message for each of its deliveries, which is due a second later and runs like any delivery. Suspects wait
half a second, until all that were redelivered together are here. Then small random groups are replaced one after the
other, so that their trials also return group after group. If a trial crashes the process, only its group and trials at
clients that hang are redelivered, and count one more crash. Other messages go past the suspects.

Redeliveries that this process survived do not count: each loss of a channel redelivers all messages that came by it.
Otherwise a broker with unstable connections would make all messages suspects.

*Large messages* wait in a separate queue, and at most four are in progress. Reading one takes up to thirty times its
bytes in memory and blocks the event loop for milliseconds. So such a message is read at every tenth round of
the loop, and requests are answered in between. Small messages go past them.
"""

import random
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from operator import attrgetter

from notifier.delivery.scheduler import Scheduler
from notifier.messages.ledger import HeldMessage
from notifier.messages.message_planner import DeliverySteps
from notifier.model.client import ClientKey
from notifier.model.defaults import PREFETCH
from notifier.model.message import SOURCE, Kind, Lane
from notifier.model.moment import Clock
from notifier.model.shared_resources import shared_bound

GATHER_SECONDS = 0.5  # for which suspects wait for others: the broker redelivers messages within a tenth of it
GROUP_PAUSE_SECONDS = 0.1  # between two groups, in which the acks of the first reach the broker
SUSPECT_GROUPS = shared_bound(4)  # a group has a quarter of the suspects: 500 take 20 groups and three seconds
MAX_GROUP_SECONDS = 30.0  # after which the next group starts, although the broker has not confirmed all trials
MAX_LARGE_IN_PROGRESS = shared_bound(4)  # with several, the worker does not wait for each confirm of the broker
LARGE_ROUNDS = 10  # rounds of the event loop: as many as a publish over HTTP takes
MAX_PASSED_OVER = 9  # a lane gets every tenth delivery at least
# Deliveries of one event in a row: a small event has no more. A user who signs out after 50 events of up to a hundred
# clients waits for 500 of their deliveries at most. With fewer, more events would be started at a time than a drain can
# finish.
DELIVERIES_IN_A_ROW = 10
# The effort of one round of the event loop: eight fresh deliveries, two others, or one of an event that continues. So a
# fresh logout is delayed by a millisecond in each round while thousands of others are due.
ROUND_EFFORT = 8
FRESH_EFFORT, OTHER_EFFORT = 1, 4
POSTPONE_EFFORT = 1  # of moving a message to the yielding ones
MANY_FAILING = 64  # clients with an open circuit; with so many, deliveries for untried clients yield, too
MAX_YIELDING_SHARE = shared_bound(1 / 8)  # of a lane's prefetch is for messages that yield; further ones are set aside
_MESSAGES = attrgetter("messages")


@dataclass(slots=True, eq=False)
class LaneQueue:
    """The queued messages of one lane that yield, that continue, or all others. `effort`: of a step of them.

    `passed_over`: how often others were chosen.
    """

    lane: Lane
    effort: int = OTHER_EFFORT
    messages: deque[HeldMessage] = field(default_factory=deque)
    passed_over: int = 0


class Selection:
    """Queues the held messages and chooses the message whose next step is taken. `monotonic` never jumps.

    `_chosen`: the queue that was chosen last. `_next_turns`: where an event of the lane waits after ten deliveries.
    `_group`: the suspects that are being replaced now. `_parts`: by the event's digest, the parts that wait for the
    queued part. `_in_progress`: the large messages being read or replaced.
    """

    def __init__(self, scheduler: Scheduler, *, monotonic: Clock) -> None:
        self._scheduler = scheduler
        self._monotonic = monotonic
        self._queues = {lane: LaneQueue(lane) for lane in Lane} | {Lane.EVENTS: LaneQueue(Lane.EVENTS, FRESH_EFFORT)}
        self._yielding = {  # by whether the circuit of the client was open, too
            (lane, is_failing): LaneQueue(lane)
            for is_failing in (False, True) for lane in (Lane.EVENTS, Lane.RETRIES)
        }  # fmt: skip
        events, retries, bulk = self._queues.values()
        continuing = LaneQueue(Lane.EVENTS, ROUND_EFFORT)
        self._next_turns = self._queues | {Lane.EVENTS: continuing}
        self._in_order = (events, continuing, retries, *self._yielding.values(), bulk)
        self._chosen = events
        self._survived: Counter[str] = Counter()  # by queue: losses of its channel in this process
        self._suspects: list[HeldMessage] = []
        self._group: list[HeldMessage] = []
        self._parts: dict[Lane, dict[str, deque[HeldMessage]]] = {lane: {} for lane in Lane}
        self._large: deque[HeldMessage] = deque()
        self._in_progress: list[HeldMessage] = []
        self._rounds_since_large = LARGE_ROUNDS
        self._next_group_at = 0.0  # the next group starts after this moment …
        self._group_overdue_at = 0.0  # … and after this moment even if `_group` is unfinished

    def add(self, held: HeldMessage) -> None:
        """Queue a received message; a suspect waits for its group."""
        if held.message.delivery_count:
            if survived := self._survived[held.message.queue]:
                held.message = replace(held.message, survived=held.message.survived + survived)
            if held.message.suspect:
                if not self._suspects and not self._group:
                    self._next_group_at = self._monotonic() + GATHER_SECONDS
                self._suspects.append(held)
                return
        self._enqueue(held)

    def _enqueue(self, held: HeldMessage) -> None:
        """Queue the message, unless it is large or another part of its event is queued: then it waits."""
        if held.is_large:
            self._large.append(held)
        elif held.message.kind is not Kind.EVENT or (digest := held.event_digest) is None:
            self._queues[held.lane].messages.append(held)
        elif (waiting_parts := self._parts[held.lane].get(digest)) is None:
            self._parts[held.lane][digest] = deque()
            self._next_turns[held.lane].messages.append(held)
        else:
            waiting_parts.append(held)

    def _queue_next_part(self, part: HeldMessage) -> None:
        """Queue the part of the same event that follows this part, whose last step was taken."""
        parts, digest = self._parts[part.lane], part.event_digest or ""
        if waiting_parts := parts.get(digest):
            self._next_turns[part.lane].messages.append(waiting_parts.popleft())
        else:
            parts.pop(digest, None)

    def begin_round(self) -> bool:
        """Queue the next large message if it may be read now. Returns True if another round is needed for others."""
        if not self._large:
            return False
        self._in_progress = [held for held in self._in_progress if held.is_in_progress]
        has_unread = any(held.plan is None for held in self._in_progress)
        if has_unread or len(self._in_progress) == MAX_LARGE_IN_PROGRESS:
            return False
        self._rounds_since_large += 1
        if self._rounds_since_large >= LARGE_ROUNDS:
            self._rounds_since_large = 0
            held = self._large.popleft()
            self._in_progress.append(held)
            queues = self._queues if held.event_digest is None else self._next_turns
            queues[held.lane].messages.append(held)
        return bool(self._large)

    def forget_queue(self, lane: Lane, source: str | None = None) -> None:
        """Forget the messages of the source's queue, or of the lane's: their channel is lost and they return."""

        def is_kept(held: HeldMessage) -> bool:
            return held.lane is not lane or held.message.source != source

        self._survived[lane.value if source is None else SOURCE + source] += 1
        for queue in self._in_order:
            queue.messages = deque(filter(is_kept, queue.messages))
        if source is None:
            self._parts[lane].clear()
        self._suspects = list(filter(is_kept, self._suspects))
        self._group = list(filter(is_kept, self._group))
        self._large = deque(filter(is_kept, self._large))
        self._in_progress = list(filter(is_kept, self._in_progress))

    def remove_unstarted(self) -> list[HeldMessage]:
        """Forget the messages of which no step was taken. Return them, except waiting suspects and large messages.

        An event of which some clients were notified stays and is finished, so that no client is notified twice.
        """
        self._suspects.clear()
        self._large.clear()
        removed = list[HeldMessage]()
        for queue in self._in_order:
            removed += [held for held in queue.messages if not held.steps_taken]
            queue.messages = deque(held for held in queue.messages if held.steps_taken)
        for parts in self._parts.values():
            removed += [held for waiting in parts.values() for held in waiting]
            parts.clear()
        return removed

    @property
    def has_steps_left(self) -> bool:
        """True if a queued message has a step left to take."""
        return any(queue.messages for queue in self._in_order)

    def choose(self) -> HeldMessage | None:
        """Return the message whose next step is to be taken; None if there is no room or no message.

        The caller must call `on_step` after it has taken the step.
        """
        if self._suspects:
            self._start_group()
        # Each step comes by here: `filter` runs no Python function.
        waiting, has_room = [*filter(_MESSAGES, self._in_order)], self._scheduler.slots.has_room
        if len(waiting) == 1:  # almost always
            (only,) = waiting
            only.passed_over = 0
            self._chosen = only
            return only.messages[0] if has_room(only.lane) else None
        queues = [queue for queue in waiting if has_room(queue.lane)]
        if not queues:
            return None
        chosen = next((queue for queue in queues if queue.passed_over >= MAX_PASSED_OVER), queues[0])
        for queue in queues:
            queue.passed_over += 1
        chosen.passed_over = 0
        self._chosen = chosen
        return chosen.messages[0]

    def must_yield(self, held: HeldMessage, client: ClientKey) -> bool:
        """Return True if the chosen message must yield: its only delivery is for this `client`, which is not proven.

        Call it only if the client's circuit is not closed.
        """
        failing, plan = self._scheduler.clients.failing, held.plan
        if held.yields_since is not None or held.steps_taken or held.lane is Lane.BULK or held.is_large:
            return False
        is_single = isinstance(plan, DeliverySteps) and (plan.event is None or len(plan.event.clients) == 1)
        is_doubtful = client in failing or len(failing) >= MANY_FAILING
        return is_doubtful and is_single and held.event_digest is None

    def postpone(self, held: HeldMessage, client: ClientKey) -> bool:
        """Let the chosen message for this client yield to others. Returns True if it must be set aside."""
        self._queues[held.lane].messages.popleft()
        for queue in filter(_MESSAGES, self._yielding.values()):
            if queue.passed_over:
                queue.passed_over -= 1  # no step is taken, so that it passes over none of them
        held.yields_since, held.is_for_failing = self._monotonic(), client in self._scheduler.clients.failing
        (yielding := self._yielding[held.lane, held.is_for_failing].messages).append(held)
        count = len(yielding) + len(self._yielding[held.lane, not held.is_for_failing].messages)
        return count > MAX_YIELDING_SHARE * PREFETCH[held.lane]

    def yielding_seconds(self) -> float:
        """Return for how many seconds the first message that yields has done so, of either lane; 0 without any."""
        since = [queue.messages[0].yields_since or 0.0 for queue in filter(_MESSAGES, self._yielding.values())]
        return self._monotonic() - min(since) if since else 0.0

    def on_step(self, held: HeldMessage) -> int:
        """Remove or rotate the message, whose step was taken. Return the effort of the step, out of ROUND_EFFORT."""
        messages = self._chosen.messages
        if held.next_step is None:
            messages.popleft()
            if self._parts[held.lane]:
                self._queue_next_part(held)
        elif held.steps_taken % DELIVERIES_IN_A_ROW == 0:
            self._next_turns[held.lane].messages.append(messages.popleft())
        return ROUND_EFFORT if held.steps_taken <= 1 and held.is_large else self._chosen.effort

    def lacks_memory(self) -> bool:
        """Return True if the first queue that has messages lacks only memory: its lane has a free slot."""
        first, slots = next(filter(_MESSAGES, self._in_order), None), self._scheduler.slots
        return first is not None and slots.has_slot(first.lane) and not slots.has_memory(first.lane)

    @property
    def has_fresh_events(self) -> bool:
        """True if a queued message of the lane `events` that does not yield has a step left to take."""
        return bool(self._queues[Lane.EVENTS].messages or self._next_turns[Lane.EVENTS].messages)

    def _start_group(self) -> None:
        """Queue the next group of suspects, if the former group is finished or overdue."""
        now = self._monotonic()
        while self._group and self._group[-1].is_acked:
            self._group.pop()
            self._next_group_at = now + GROUP_PAUSE_SECONDS
        if now < self._next_group_at or (self._group and now < self._group_overdue_at):
            return
        random.shuffle(self._suspects)
        size = max(1, len(self._suspects) // SUSPECT_GROUPS)
        self._group, self._suspects = self._suspects[:size], self._suspects[size:]
        for held in self._group:
            self._enqueue(held)
        self._group_overdue_at = now + MAX_GROUP_SECONDS
