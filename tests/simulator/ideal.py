"""An ideal sender: a failed delivery waits for its own backoff, and any other for a slot of its client, nothing else.

It is the measure for a client that works half the time, and has no other clients. It does not model an outage, in which
it goes on charging each delivery.
"""

import heapq
import random
from collections import deque

from notifier.model.backoff import compute_backoff
from notifier.model.client import Client
from tests.simulator.clients import OK, Behaviour
from tests.simulator.world import RepairReport


def send(client: Client, behaviour: Behaviour, births: list[float], until: float, seed: int = 1) -> list[RepairReport]:
    """Return the deliveries that the client accepted until then, of those published at these moments."""
    chance = random.Random(seed)
    delivered: list[RepairReport] = []
    coming = [(born, number, 0, born) for number, born in enumerate(births)]  # (due, number, tries, born)
    heapq.heapify(coming)
    slots = [0.0] * client.max_concurrent  # when each is free
    ready: deque[tuple[int, int, float]] = deque()
    while coming or ready:
        free = slots[0]
        while coming and (not ready or coming[0][0] <= free):
            due, number, tries, born = heapq.heappop(coming)
            ready.append((number, tries, born))
            free = max(free, due) if len(ready) == 1 else free
        number, tries, born = ready.popleft()
        if free >= until:
            break
        seconds, wire = behaviour(free, chance)
        seconds = min(seconds, client.timeout)
        heapq.heapreplace(slots, free + seconds)
        if wire is OK and seconds < client.timeout:
            delivered.append(RepairReport(born, free, free + seconds))
        else:
            wait = compute_backoff(client.retry, tries + 1, chance.random)
            heapq.heappush(coming, (free + seconds + wait, number, tries + 1, born))
    return [one for one in delivered if one.answered <= until]
