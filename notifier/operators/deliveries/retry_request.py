"""Carries out retries at a worker: it counts the client's results, and probes the client at once.

A retry first opens its account at all workers and only then counts the pending deliveries, so that a result which
arrives meanwhile is in one of the two. Each retry has a separate account, since two may concern one client.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import (
    Any,
    Required,  # pydantic wants this one before Python 3.12
)

from pydantic import StrictBool, TypeAdapter
from typing_extensions import TypedDict

from notifier.delivery.facts import Attempted, DeadLettered, Deferred, Fact, LogoutDelivered
from notifier.messages.worker import Worker
from notifier.model.client import ClientKey
from notifier.model.ids import new_id
from notifier.model.moment import Clock, earliest, latest
from notifier.model.printable import counted, printable
from notifier.model.registry import CurrentRegistry, Registry
from notifier.model.shared_resources import shared_bound
from notifier.operators.deliveries.job_documents import Results
from notifier.operators.status.worker_requests import FiniteSeconds, Members, RequestKind, WorkerAnswer, WorkerRequest
from notifier.telemetry.observers import Observers

UNREAD_ACCOUNT_SECONDS = 3600.0  # seconds since the last request, after which an account is forgotten
SOON_SECONDS = 5.0  # a delivery of a client that is well and is due within them is a result to wait for
MAX_ACCOUNTS = shared_bound(100)  # accounts of one worker; a new one replaces the longest unread one


class _RetryMembers(TypedDict, total=False):
    iss: Required[str]
    client_id: Required[str]
    id: Required[str]
    force: StrictBool
    follow: StrictBool
    begin: StrictBool
    all: StrictBool


class _RetryResults(Results, total=False):
    busy: StrictBool
    next_try: FiniteSeconds | None
    paused_until: FiniteSeconds | None


RETRY_CLIENT = RequestKind(name="retry", members=TypeAdapter(_RetryMembers), result=TypeAdapter(_RetryResults))


@dataclass(slots=True, kw_only=True)
class RetryAccount:
    """The results of one client's deliveries since the retry began, at one worker or at all.

    `failed` and `dead` count by reason, and `put_off` counts deferrals by cause. `text` is the text of the last
    failure. `busy`: a delivery of the client runs, waits for a slot, is being fetched, or is due
    soon while nothing blocks the client. `next_try` is the time of the
    next probe, and `paused_until` the end of a pause that the client requested, both in epoch seconds.
    """

    delivered: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    dead: Counter[str] = field(default_factory=Counter)
    put_off: Counter[str] = field(default_factory=Counter)
    text: str = ""
    busy: bool = False
    next_try: float | None = None
    paused_until: float | None = None

    @property
    def finished(self) -> int:
        """Return the number of deliveries that succeeded or became dead letters."""
        return self.delivered + self.dead.total()

    @property
    def counts(self) -> tuple[object, ...]:
        """Return all counts, so that a caller can detect a change."""
        return self.delivered, self.failed, self.dead, self.put_off

    def on_fact(self, fact: Fact) -> None:
        """Count a fact of this client."""
        match fact:
            case LogoutDelivered():  # before its base class Attempted
                self.delivered += 1
            case Attempted():
                self.failed[fact.outcome.reason.value] += 1
                status = "" if fact.outcome.status is None else str(fact.outcome.status)
                self.text = " ".join(filter(None, (status, fact.outcome.text)))
            case DeadLettered():
                self.dead[fact.reason.value] += 1
            case Deferred():
                self.put_off[fact.cause.value] += 1

    def add(self, members: Members) -> None:
        """Add the counts in another worker's answer."""
        self.delivered += members.get("delivered", 0)
        for name, counts in (("failed", self.failed), ("dead", self.dead), ("put_off", self.put_off)):
            counts.update(members.get(name, {}))
        self.text = members.get("text") or self.text

    def format_lines(self, given_up: str) -> list[str]:
        """Return the results as lines of text. `given_up` follows the number of dead letters."""
        lines = [f"{self.delivered:,} delivered"]
        if self.failed.total():
            lines.append(f"{counted(self.failed.total(), 'attempt')} failed again")
            lines += [f"  {reason}: {count:,}" for reason, count in self.failed.most_common()]
            if self.text:
                lines.append(f"  the last answer: {printable(self.text)}")
        if self.dead.total():
            lines.append(f"{self.dead.total():,} {given_up}")
            lines += [f"  {reason}: {count:,}" for reason, count in self.dead.most_common()]
        return lines

    def document(self) -> dict[str, Any]:
        """Return the members of a worker's answer."""
        return {member.name: getattr(self, member.name) for member in fields(self)}


@dataclass(slots=True)
class _Retry:
    """One retry at this worker. `asked_at` is the time of the last request for its account, in monotonic seconds."""

    key: ClientKey
    asked_at: float
    account: RetryAccount = field(default_factory=RetryAccount)


class RetryAccounts:
    """The retries of one worker, by ID. They observe the worker's facts only while there are retries."""

    def __init__(self, worker: Worker, monotonic: Clock, observers: Observers) -> None:
        self._worker = worker
        self._monotonic = monotonic
        self._observers = observers
        self._retries: dict[str, _Retry] = {}

    def observe(self, fact: Fact) -> None:
        """Count the fact if its client is being retried."""
        match fact:
            case Attempted():
                key = fact.delivery.key
            case DeadLettered() | Deferred():
                key = (fact.iss, fact.client_id or "")
            case _:
                return
        for retry in self._retries.values():
            if retry.key == key:
                retry.account.on_fact(fact)

    async def act(self, request: WorkerRequest) -> Members:
        """Open an account if the request has `follow`, probe if it has `begin`, and return the results so far."""
        members, now = request.members, self._monotonic()
        key, id_, begins = (members["iss"], members["client_id"]), members["id"], members.get("begin", False)
        if id_ not in self._retries and (begins or members.get("follow", False)):
            self._follow(id_, _Retry(key, now))
        if begins:
            self._worker.scheduler.probe_now(key, force=members.get("force", False))
            if members.get("all", False):  # the requester makes all delayed deliveries due
                self._worker.delayed.forget(key)
        account = RetryAccount()
        if id_ in self._retries:
            self._retries[id_].asked_at = now
            account = self._retries[id_].account
        deferrals = self._worker.scheduler.deferrals
        account.busy, account.next_try, account.paused_until = deferrals.state_of(key)
        if not deferrals.is_blocked(key):
            account.busy = account.busy or self._worker.delayed.has_due(key, SOON_SECONDS)
        return account.document()

    def forget(self) -> None:
        """Forget the accounts without a recent request. Call it regularly."""
        now = self._monotonic()
        self._retries = {
            id_: retry for id_, retry in self._retries.items() if now - retry.asked_at < UNREAD_ACCOUNT_SECONDS
        }
        if not self._retries:
            self._observers.remove(self.observe)

    def _follow(self, id_: str, retry: _Retry) -> None:
        self.forget()
        if len(self._retries) >= MAX_ACCOUNTS:
            del self._retries[min(self._retries, key=lambda id_: self._retries[id_].asked_at)]
        self._retries[id_] = retry
        self._observers.add(self.observe)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryRequest:
    """The client to retry. `force` includes deliveries whose delay the client requested (Retry-After).

    `registry`: as the requester knows it; its clients have the longest pauses that are permitted.
    """

    key: ClientKey
    who: str
    force: bool = False
    registry: CurrentRegistry = Registry
    id: str = field(default_factory=new_id)

    def to_worker(self, **step: bool) -> WorkerRequest:
        """Return the request to workers for the results so far.

        `step`: `follow` opens the account, `begin` probes the client. `all`: the sender makes all delayed
        deliveries of the client due, so workers need not count them any more.
        """
        iss, client_id = self.key
        members = {"iss": iss, "client_id": client_id, "id": self.id, "force": self.force, **step}
        return WorkerRequest(kind=RETRY_CLIENT, who=self.who, members=members)


def sum_accounts(answers: Sequence[WorkerAnswer], ended_workers: Sequence[WorkerAnswer] = ()) -> RetryAccount:
    """Return the sum of the workers' accounts. Of `ended_workers`, only the counts in their last answers are added."""
    summed = RetryAccount()
    for answer in ended_workers:
        summed.add(answer.result)
    for members in (answer.result for answer in answers if answer.problem is None):
        summed.add(members)
        summed.busy = summed.busy or members.get("busy", False)
        summed.next_try = earliest(summed.next_try, members.get("next_try"))
        summed.paused_until = latest(summed.paused_until, members.get("paused_until"))
    return summed
