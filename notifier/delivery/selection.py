"""Chooses the held message whose next delivery begins: by lane and event, suspects in small groups, large ones singly.

Lanes: fresh events go before retries, and retries before bulk. A lane that is passed over nine times goes next, so
that bulk and retries move on however many fresh events there are.

Events: the parts of one event share a digest and take turns as one message, one part after the other. If all parts
took turns, none would be acked before the last of them ends, and a crash would repeat the whole event.

Suspects: a message given back three times or more may be what kills the process, and every message in hand is given
back once more when the process dies. So a suspect does not run: it is rewritten as a *trial*, which rests for a second,
is attempted on the same terms as any delivery, and is a suspect again if it is given back. Suspects wait for a moment,
until all that come together are there. Then small groups drawn by chance are rewritten, one after the other, so
that the trials come back in that order. A process that dies gives back the trials that it holds: those of the killer's
group, and those at clients that hang. Groups before it have ended, groups after it still rest, and neither counts. If
all trials came at once, all of them would be given back at each death. No group waits for the attempts of another one.
Other messages go past them.

What the process has survived does not count. Each loss of a lane's channel gives back all that came by it. If that
counted, a broker whose connections flap would make all messages suspects, and in small groups they would not be done
before the next loss. A process that died knows of nothing that it survived.

Large messages wait in a separate queue, and few of them are at hand. A large message that is read takes up to thirty
times its bytes in memory, and reading it holds the loop for milliseconds. One is opened at every third round of the
loop, so that requests are answered in between. Small messages go past them.
"""

import random
from collections import Counter, deque
from dataclasses import replace

from notifier.delivery.gate import Gate
from notifier.delivery.ledger import HeldMessage
from notifier.model.message import SOURCE, Kind, Lane
from notifier.model.moment import Clock

GATHER_SECONDS = 0.5  # that suspects wait for one another: the broker sends what it gave back within a tenth of that
GROUP_PAUSE_SECONDS = 0.1  # between two groups: an ack that is still with us when the process dies was never given
SUSPECT_GROUPS = 4  # a quarter of the waiting suspects is rewritten together: 500 take 20 groups and three seconds
MAX_GROUP_SECONDS = 30.0  # a group that takes longer waits for the broker
MAX_LARGE_IN_PROGRESS = 4  # large messages: enough that the broker's confirms are not waited for one by one
LARGE_ROUNDS = 3  # rounds of the loop: an answer to a request takes as many
MAX_PASSED_OVER = 9  # times a lane is passed over before it goes next: it gets every tenth delivery
# Deliveries that an event gives before the next event goes: a user who signs out after 50 large events waits for 500
# of their deliveries at most. More would be unfair to a person; fewer would begin more messages at a time than a drain
# can finish.
DELIVERIES_IN_A_ROW = 10
# Started or deferred in one round of the loop: eight fresh deliveries, or two others. Thousands that come due at
# once take a little longer for it; a fresh logout beside them waits a fraction of a millisecond in each round.
ROUND_EFFORT = 8
LANE_EFFORT = {Lane.EVENTS: 1, Lane.RETRIES: 4, Lane.BULK: 4}


class Selection:
    """Queues the held messages and chooses the message whose next delivery starts. `steady` gives seconds."""

    def __init__(self, gate: Gate, *, steady: Clock) -> None:
        self._gate = gate
        self._steady = steady
        self._passed_over = dict.fromkeys(Lane, 0)
        self._queues: dict[Lane, deque[HeldMessage]] = {lane: deque() for lane in Lane}
        self._survived: Counter[str] = Counter()  # losses of a queue's channel in this process
        self._suspects: list[HeldMessage] = []
        self._tried: list[HeldMessage] = []  # the group of suspects that is being rewritten
        self._parts: dict[Lane, dict[str, deque[HeldMessage]]] = {lane: {} for lane in Lane}  # behind a queued one
        self._large: deque[HeldMessage] = deque()
        self._in_progress: list[HeldMessage] = []  # large ones; at most one of them is not read yet
        self._rounds_since = LARGE_ROUNDS  # since the last large one was opened
        self._next_group = 0.0  # not before this moment
        self._group_overdue = 0.0  # from this moment on, even if some of `_tried` have no fate yet

    def put(self, held: HeldMessage) -> None:
        """Queue a message that came."""
        if held.message.delivery_count:
            if survived := self._survived[held.message.queue]:
                held.message = replace(held.message, survived=held.message.survived + survived)
            if held.message.suspect:
                if not self._suspects and not self._tried:
                    self._next_group = self._steady() + GATHER_SECONDS
                self._suspects.append(held)
                return
        self._enqueue(held)

    def _enqueue(self, held: HeldMessage) -> None:
        if held.is_large:
            self._large.append(held)
        elif held.message.kind is not Kind.EVENT or (digest := held.event_digest) is None:
            self._queues[held.lane].append(held)
        elif (waiting := self._parts[held.lane].get(digest)) is None:
            self._parts[held.lane][digest] = deque()
            self._queues[held.lane].append(held)
        else:
            waiting.append(held)

    def _follow(self, ended: HeldMessage) -> None:
        """Queue the next part of the event whose present part has given its last step."""
        parts, digest = self._parts[ended.lane], ended.event_digest or ""
        if waiting := parts.get(digest):
            self._queues[ended.lane].append(waiting.popleft())
        else:
            parts.pop(digest, None)

    def begin_round(self) -> bool:
        """Begin a round of the loop: open another large message if that is allowed. Returns True if more follow."""
        if not self._large:
            return False
        self._in_progress = [held for held in self._in_progress if held.is_in_progress]
        if len(self._in_progress) == MAX_LARGE_IN_PROGRESS or any(held.work is None for held in self._in_progress):
            return False
        self._rounds_since += 1
        if self._rounds_since >= LARGE_ROUNDS:
            self._rounds_since = 0
            held = self._large.popleft()
            self._in_progress.append(held)
            self._queues[held.lane].append(held)
        return bool(self._large)

    def forget_queue(self, lane: Lane, source: str | None = None) -> None:
        """Forget the messages of the source's queue, or of the lane's own: they will come again."""

        def stays(held: HeldMessage) -> bool:
            return held.lane is not lane or held.message.source != source

        self._survived[lane.value if source is None else SOURCE + source] += 1
        self._queues[lane] = deque(filter(stays, self._queues[lane]))
        if source is None:
            self._parts[lane].clear()
        self._suspects = list(filter(stays, self._suspects))
        self._tried = list(filter(stays, self._tried))
        self._large = deque(filter(stays, self._large))
        self._in_progress = list(filter(stays, self._in_progress))

    def remove_unstarted(self) -> list[HeldMessage]:
        """Forget and return the queued messages that were not started.

        An event with notified clients stays and is finished: so no client is notified twice.
        """
        self._suspects.clear()
        self._large.clear()
        unopened = [held for queue in self._queues.values() for held in queue if not held.steps_given]
        for held in unopened:
            self._queues[held.lane].remove(held)
        for parts in self._parts.values():
            unopened += [held for waiting in parts.values() for held in waiting]
            parts.clear()
        return unopened

    @property
    def waiting(self) -> bool:
        """True if a queued message has something left to begin."""
        return any(self._queues.values())

    def next(self) -> HeldMessage | None:
        """Return the message that goes next; None if there is no room or nothing to do.

        After it has given a step, `on_step` must be called.
        """
        if self._suspects:
            self._try_some()
        lane = self._next_lane()
        return None if lane is None else self._queues[lane][0]

    def _next_lane(self) -> Lane | None:
        """Return the lane that goes next, of those where a message waits; None if there is room for none."""
        waiting, has_room = [lane for lane, queue in self._queues.items() if queue], self._gate.slots.has_room
        if len(waiting) == 1:  # almost always
            (alone,) = waiting
            self._passed_over[alone] = 0
            return alone if has_room(alone) else None
        able = [lane for lane in waiting if has_room(lane)]
        if not able:
            return None
        chosen = next((lane for lane in able if self._passed_over[lane] >= MAX_PASSED_OVER), able[0])
        for lane in able:
            self._passed_over[lane] += 1
        self._passed_over[chosen] = 0
        return chosen

    def on_step(self, held: HeldMessage) -> int:
        """Note that the first message of its queue gave a step. Returns its effort, out of ROUND_EFFORT."""
        queue = self._queues[held.lane]
        if held.next_step is None:
            queue.popleft()
            if self._parts[held.lane]:
                self._follow(held)
        elif held.steps_given % DELIVERIES_IN_A_ROW == 0:
            queue.rotate(-1)
        return ROUND_EFFORT if held.steps_given <= 1 and held.is_large else LANE_EFFORT[held.lane]

    def lacks_memory(self) -> bool:
        """True if another message would go now if there were more memory."""
        lane = next((lane for lane, queue in self._queues.items() if queue), None)
        return lane is not None and self._gate.slots.has_slot(lane) and not self._gate.slots.has_memory(lane)

    def waiting_count(self, lane: Lane) -> int:
        """Return how many messages of the lane have something left to begin."""
        parts = self._parts[lane]
        return len(self._queues[lane]) + (sum(map(len, parts.values())) if parts else 0)

    def _try_some(self) -> None:
        """Have the next group of suspects rewritten, if it is time."""
        now = self._steady()
        while self._tried and self._tried[-1].closed:
            self._tried.pop()
            self._next_group = now + GROUP_PAUSE_SECONDS
        if now < self._next_group or (self._tried and now < self._group_overdue):
            return
        random.shuffle(self._suspects)
        group = max(1, len(self._suspects) // SUSPECT_GROUPS)
        self._tried, self._suspects = self._suspects[:group], self._suspects[group:]
        for held in self._tried:
            self._enqueue(held)
        self._group_overdue = now + MAX_GROUP_SECONDS
