"""Counts the results of replayed dead letters at a worker, for the operator who replays them (`replay_now`).

Before it starts, a replay sends the IDs of its dead letters to all workers. From then on each worker follows them: it
counts the results of the deliveries and events with these IDs, and answers requests for the counts.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import (
    Annotated,
    Any,
    Required,  # pydantic wants this one before Python 3.12
)

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

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
from notifier.model.documents.cloudevents import MAX_ID_BYTES
from notifier.model.moment import Clock
from notifier.model.shared_resources import first_of_largest, shared_bound
from notifier.operators.deliveries.job_documents import Results
from notifier.operators.deliveries.retry_request import RetryAccount
from notifier.operators.status.worker_requests import Members, ReportedCount, RequestKind, WorkerAnswer, WorkerRequest
from notifier.telemetry.observers import Observers

UNREAD_ACCOUNT_SECONDS = 3600.0  # seconds since the last request, after which a replay is forgotten
MAX_REPLAYS = shared_bound(20)  # replays that a worker follows; a new one replaces one of who has the most
MAX_FOLLOWED_MESSAGES = shared_bound(10_000)  # dead letters of one replay; anyone who may use the queue can send more
IDS_PER_REQUEST = 2500  # IDs in one request: 90 KB


_MessageIds = Annotated[list[Annotated[str, Field(max_length=MAX_ID_BYTES)]], Field(max_length=IDS_PER_REQUEST)]


class _ReplayMembers(TypedDict, total=False):
    id: Required[str]
    deliveries: _MessageIds
    events: _MessageIds


class _ReplayResults(Results, total=False):
    events: ReportedCount
    planned: ReportedCount
    refused: ReportedCount
    skipped: ReportedCount
    reported: ReportedCount


FOLLOW_REPLAY = RequestKind(
    name="follow_replay", members=TypeAdapter(_ReplayMembers), result=TypeAdapter(_ReplayResults)
)


class ReplayAccount:
    """The results of one replay's dead letters, at one worker or at all. A dead letter is a delivery or an event.

    `events` counts the events that were processed, and `planned` the deliveries that they became. `refused` counts the
    events that were given up as a whole, `skipped` the clients without an address. `reported` counts the dead letters
    with any result. `results` has the results of the deliveries.
    """

    def __init__(self) -> None:
        self.results = RetryAccount()
        self.events = self.planned = self.refused = self.skipped = self.reported = 0

    @property
    def counts(self) -> tuple[object, ...]:
        """Return the counts in which a caller can detect a change. `reported` never changes alone."""
        return self.results.counts, self.events, self.planned, self.refused, self.skipped

    def count_waiting(self, deliveries: int, events: int) -> int:
        """Return the number of unfinished deliveries and events, given how many of each were replayed."""
        unfinished_events = max(0, events - self.events)
        finished = self.results.finished - self.refused  # `finished` counts the refused events, too
        return max(0, deliveries + self.planned - finished) + unfinished_events

    def to_answer(self) -> Members:
        """Return the members of a worker's answer."""
        counts = {name: getattr(self, name) for name in _COUNT_NAMES}
        return counts | {name: getattr(self.results, name) for name in _RESULT_NAMES}

    def document(self) -> dict[str, Any]:
        """Return the JSON for scripts and the API."""
        return {name: getattr(self.results, name) for name in _RESULT_NAMES} | {"skipped": self.skipped}

    @classmethod
    def sum_of(cls, answers: Iterable[WorkerAnswer]) -> "ReplayAccount":
        """Return the sum of the accounts in the workers' answers."""
        summed = cls()
        for members in (answer.result for answer in answers if answer.problem is None):
            for name in _COUNT_NAMES:
                setattr(summed, name, getattr(summed, name) + members.get(name, 0))
            summed.results.add(members)
        return summed


_COUNT_NAMES = ("events", "planned", "refused", "skipped", "reported")
_RESULT_NAMES = ("delivered", "failed", "dead", "put_off", "text")


class _FollowedReplay:
    """One replay that this worker follows: its account, and its unfinished deliveries and events.

    `who` requested it. `asked_at` is the time of the last request for the account, in monotonic seconds.
    """

    def __init__(self, who: str, asked_at: float) -> None:
        self.who = who
        self.asked_at = asked_at
        self.account = ReplayAccount()
        self.deliveries: dict[str, bool] = {}  # by ID: whether any result is known
        self.events: dict[str, bool] = {}
        self._processed_events: set[str] = set()

    def on_fact(self, fact: Fact, delivery_id: str, event_id: str) -> bool:
        """Count the fact. Return False if it concerns no dead letter of this replay."""
        account = self.account
        if delivery_id in self.deliveries:
            was_reported = self.deliveries[delivery_id]
            self.deliveries[delivery_id] = True
            if isinstance(fact, AlreadyDelivered | LogoutDelivered | DeadLettered):
                del self.deliveries[delivery_id]  # so that a copy of the delivery is not counted
        elif event_id in self.events:
            was_reported = self.events[event_id]
            self.events[event_id] = True
        else:
            return False
        account.reported += not was_reported
        match fact:
            case EventTaken():
                account.planned += fact.deliveries - fact.copies
                if fact.result != "split" and event_id not in self._processed_events:
                    self._processed_events.add(event_id)
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
    """The replays that one worker follows. They observe the worker's facts only while there are replays."""

    def __init__(self, monotonic: Clock, observers: Observers) -> None:
        self._monotonic = monotonic
        self._observers = observers
        self._replays: dict[str, _FollowedReplay] = {}

    def observe(self, fact: Fact) -> None:
        """Count the fact if it concerns a dead letter that is followed."""
        match fact:
            case AlreadyDelivered() | Attempted():
                delivery_id, event_id = fact.delivery.id, fact.delivery.event_id
            case DeadLettered() | Deferred():
                delivery_id = "" if fact.delivery is None else fact.delivery.id
                event_id = fact.event_id
            case EventTaken() | Skipped():
                delivery_id, event_id = "", fact.event_id
            case _:
                return
        for replay in reversed(self._replays.values()):  # only the latest replay of a dead letter counts the fact
            if replay.on_fact(fact, delivery_id, event_id):
                return

    def forget(self) -> None:
        """Forget the replays without a recent request. Call it regularly."""
        now = self._monotonic()
        self._replays = {
            id_: replay for id_, replay in self._replays.items() if now - replay.asked_at < UNREAD_ACCOUNT_SECONDS
        }
        if not self._replays:
            self._observers.remove(self.observe)

    async def act(self, request: WorkerRequest) -> Members:
        """Follow the dead letters in the request, if any, and return the results of their replay so far."""
        now, id_ = self._monotonic(), request.members["id"]
        self.forget()
        deliveries, events = (request.members.get(name, ()) for name in ("deliveries", "events"))
        if id_ not in self._replays:
            if not (deliveries or events):
                return ReplayAccount().to_answer()
            if len(self._replays) >= MAX_REPLAYS:
                requesters = {id_: replay.who for id_, replay in self._replays.items()}
                del self._replays[first_of_largest(requesters, request.who)]
            self._replays[id_] = _FollowedReplay(request.who, now)
            self._observers.add(self.observe)
        replay = self._replays[id_]
        replay.asked_at = now
        for ids, followed in ((deliveries, replay.deliveries), (events, replay.events)):
            free_count = MAX_FOLLOWED_MESSAGES - len(replay.deliveries) - len(replay.events)
            followed.update(dict.fromkeys(ids[:free_count], False))
        return replay.account.to_answer()


def make_follow_requests(
    replay_id: str, who: str, deliveries: Sequence[str], events: Sequence[str]
) -> Iterable[WorkerRequest]:
    """Yield requests to follow the deliveries and events with these IDs, at most IDS_PER_REQUEST of each at a time."""
    for first in range(0, max(len(deliveries), len(events)), IDS_PER_REQUEST):
        members: Mapping[str, object] = {
            "id": replay_id,
            "deliveries": list(deliveries[first : first + IDS_PER_REQUEST]),
            "events": list(events[first : first + IDS_PER_REQUEST]),
        }
        yield WorkerRequest(kind=FOLLOW_REPLAY, who=who, members=members)


def make_results_request(replay_id: str, who: str) -> WorkerRequest:
    """Return the request for the results of a replay."""
    return WorkerRequest(kind=FOLLOW_REPLAY, who=who, members={"id": replay_id})
