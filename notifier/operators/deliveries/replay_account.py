"""Follows the dead letters of replays at a worker, and counts their results: see `replay_now`.

A replay first sends the IDs of its dead letters to all workers. Each worker counts results for these dead letters only.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from notifier.delivery.facts import (
    AlreadyDelivered,
    Attempted,
    DeadLettered,
    Deferred,
    EventTaken,
    Fact,
    LogoutDelivered,
    Skipped,
)
from notifier.model.moment import Clock
from notifier.operators.deliveries.retry_request import RetryAccount
from notifier.operators.status.worker_requests import Members, WorkerAnswer, WorkerRequest
from notifier.telemetry.observers import Observers

FOLLOW_REPLAY = "follow_replay"
UNREAD_ACCOUNT_SECONDS = 3600.0  # seconds that a replay is followed after somebody has asked for it last
MAX_REPLAYS = 20  # replays that a worker follows; the eldest goes first
IDS_PER_REQUEST = 2500  # dead letters that one request names: 90 KB


class ReplayAccount:
    """The results of one replay's dead letters, of one worker or of all. A dead letter is a delivery or an event.

    `events` were processed, and became `planned` deliveries. `refused` were given up as a whole. `skipped`: clients
    without an address. `heard` counts the dead letters with a result.
    """

    def __init__(self) -> None:
        self.results = RetryAccount()
        self.events = self.planned = self.refused = self.skipped = self.heard = 0

    @property
    def counts(self) -> tuple[object, ...]:
        """Return all counts, to compare."""
        return self.results.counts, self.events, self.planned, self.refused, self.skipped

    def count_waiting(self, deliveries: int, events: int) -> int:
        """Return how many deliveries are unfinished, given the numbers of replayed deliveries and events."""
        open_events = max(0, events - self.events)
        settled = self.results.settled - self.refused
        return max(0, deliveries + self.planned - settled) + open_events

    def to_answer(self) -> Members:
        """Return the members of a worker's answer."""
        counts = {name: getattr(self, name) for name in _COUNT_NAMES}
        return counts | {name: getattr(self.results, name) for name in _RESULT_NAMES}

    def document(self) -> dict[str, Any]:
        """Return the JSON for scripts and the API."""
        return {name: getattr(self.results, name) for name in _RESULT_NAMES} | {"skipped": self.skipped}

    @classmethod
    def sum_of(cls, answers: Iterable[WorkerAnswer]) -> "ReplayAccount":
        """Return the sum of the workers' accounts."""
        summed = cls()
        for members in (answer.result for answer in answers if answer.problem is None):
            for name in _COUNT_NAMES:
                setattr(summed, name, getattr(summed, name) + int(members.get(name, 0)))
            summed.results.add(members)
        return summed


_COUNT_NAMES = ("events", "planned", "refused", "skipped", "heard")
_RESULT_NAMES = ("delivered", "failed", "dead", "put_off", "text")


class _FollowedReplay:
    """One replay at this worker: its account and its unfinished letters."""

    def __init__(self, asked_at: float) -> None:
        self.asked_at = asked_at
        self.account = ReplayAccount()
        self.deliveries: dict[str, bool] = {}  # unfinished deliveries, and if any result is known
        self.events: dict[str, bool] = {}
        self._taken: set[str] = set()

    def on_fact(self, fact: Fact, delivery_id: str, event_id: str) -> bool:
        """Count the fact. Return False if it concerns no dead letter of this replay."""
        account = self.account
        if (heard := self.deliveries.get(delivery_id)) is not None:
            self.deliveries[delivery_id] = True
            if isinstance(fact, AlreadyDelivered | LogoutDelivered | DeadLettered):
                del self.deliveries[delivery_id]  # a copy counts once
        elif (heard := self.events.get(event_id)) is not None:
            self.events[event_id] = True
        else:
            return False
        account.heard += not heard
        match fact:
            case EventTaken():
                account.planned += fact.deliveries - fact.copies
                if fact.result != "split" and event_id not in self._taken:
                    self._taken.add(event_id)
                    account.events += 1
            case Skipped():
                account.skipped += 1
            case DeadLettered(delivery=None):
                account.refused += 1
            case AlreadyDelivered():
                account.results.delivered += 1
        account.results.on_fact(fact)
        return True


class ReplayAccounts:
    """The replays of one worker. Registered in `observers` while it follows any; carries out worker requests."""

    def __init__(self, steady: Clock, observers: Observers) -> None:
        self._steady = steady
        self._observers = observers
        self._replays: dict[str, _FollowedReplay] = {}

    def observe(self, fact: Fact) -> None:
        """Count the fact if its dead letter is followed. Never waits."""
        match fact:
            case AlreadyDelivered() | Attempted():
                delivery_id, event_id = fact.delivery.id, fact.delivery.event_id
            case DeadLettered() | Deferred():
                delivery_id, event_id = "" if fact.delivery is None else fact.delivery.id, fact.event_id
            case EventTaken() | Skipped():
                delivery_id, event_id = "", fact.event_id
            case _:
                return
        for replay in reversed(self._replays.values()):  # the latest replay counts it
            if replay.on_fact(fact, delivery_id, event_id):
                return

    def forget(self) -> None:
        """Forget the replays without a recent request. Call it regularly."""
        now = self._steady()
        self._replays = {
            id_: replay for id_, replay in self._replays.items() if now - replay.asked_at < UNREAD_ACCOUNT_SECONDS
        }
        if not self._replays:
            self._observers.remove(self.observe)

    async def act(self, request: WorkerRequest) -> Members:
        """Follow the dead letters that the request names, and return the results of its replay so far."""
        now, id_ = self._steady(), str(request.members["id"])
        self.forget()
        deliveries, events = (_read_ids(request.members.get(name)) for name in ("deliveries", "events"))
        if id_ not in self._replays:
            if not (deliveries or events):
                return ReplayAccount().to_answer()
            if len(self._replays) >= MAX_REPLAYS:
                del self._replays[next(iter(self._replays))]
            self._replays[id_] = _FollowedReplay(now)
            self._observers.add(self.observe)
        replay = self._replays[id_]
        replay.asked_at = now
        replay.deliveries |= dict.fromkeys(deliveries, False)
        replay.events |= dict.fromkeys(events, False)
        return replay.account.to_answer()


def _read_ids(listed: object) -> Sequence[str]:
    return [str(name) for name in listed[:IDS_PER_REQUEST]] if isinstance(listed, Sequence) else ()


def follow_requests_of(id_: str, who: str, deliveries: Sequence[str], events: Sequence[str]) -> Iterable[WorkerRequest]:
    """Return the requests to follow these dead letters of a replay, each of bounded size."""
    for first in range(0, max(len(deliveries), len(events)), IDS_PER_REQUEST):
        members: Mapping[str, object] = {
            "id": id_,
            "deliveries": list(deliveries[first : first + IDS_PER_REQUEST]),
            "events": list(events[first : first + IDS_PER_REQUEST]),
        }
        yield WorkerRequest(name=FOLLOW_REPLAY, who=who, members=members)


def results_request_of(id_: str, who: str) -> WorkerRequest:
    """Return the request for the results of a replay."""
    return WorkerRequest(name=FOLLOW_REPLAY, who=who, members={"id": id_})
