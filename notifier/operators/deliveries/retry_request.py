"""Carries out retries at a worker: it probes the client at once, and counts the client's results from then on."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from notifier.delivery.facts import Attempted, DeadLettered, Deferred, Fact, LogoutDelivered
from notifier.messages.worker import Worker
from notifier.model.client import ClientKey
from notifier.model.moment import Clock, earliest, latest
from notifier.model.printable import counted, printable
from notifier.model.shared_resources import shared_bound
from notifier.operators.status.worker_requests import Members, WorkerAnswer, WorkerRequest
from notifier.telemetry.observers import Observers

RETRY_CLIENT = "retry"
UNREAD_ACCOUNT_SECONDS = 3600.0  # seconds since the last request, after which an account is forgotten
SOON_SECONDS = 5.0  # a delivery of a client that is well and is due within them is a result to wait for
MAX_ACCOUNTS = shared_bound(100)  # accounts of one worker; a new one replaces the oldest


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
        self.delivered += int(members.get("delivered", 0))
        for name, counts in (("failed", self.failed), ("dead", self.dead), ("put_off", self.put_off)):
            other_counts = members.get(name)
            if isinstance(other_counts, Mapping):
                counts.update({str(key): int(count) for key, count in other_counts.items()})
        self.text = str(members.get("text") or self.text)

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


class RetryAccounts:
    """The retries of one worker, by client. They observe the worker's facts only while there are retries."""

    def __init__(self, worker: Worker, monotonic: Clock, observers: Observers) -> None:
        self._worker = worker
        self._monotonic = monotonic
        self._observers = observers
        self._accounts: dict[ClientKey, tuple[float, RetryAccount]] = {}  # with the time of the last request

    def observe(self, fact: Fact) -> None:
        """Count the fact if its client is being retried."""
        match fact:
            case Attempted():
                key = fact.delivery.key
            case DeadLettered() | Deferred():
                key = (fact.iss, fact.client_id or "")
            case _:
                return
        if key in self._accounts:
            _, account = self._accounts[key]
            account.on_fact(fact)

    async def act(self, request: WorkerRequest) -> Members:
        """Begin a retry if the request has `begin`, and return the results so far."""
        key = (str(request.members["iss"]), str(request.members["client_id"]))
        now = self._monotonic()
        if request.members.get("begin") is True:
            self._begin(key, force=request.members.get("force") is True, now=now)
            if request.members.get("all") is True:  # the requester makes all delayed deliveries due
                self._worker.delayed.forget(key)
        account = RetryAccount()
        if key in self._accounts:
            _, account = self._accounts[key]
            self._accounts[key] = (now, account)
        deferrals = self._worker.scheduler.deferrals
        account.busy, account.next_try, account.paused_until = deferrals.state_of(key)
        if not deferrals.is_blocked(key):
            account.busy = account.busy or self._worker.delayed.has_due(key, SOON_SECONDS)
        return account.document()

    def forget(self) -> None:
        """Forget the accounts without a recent request. Call it regularly."""
        now = self._monotonic()
        self._accounts = {
            key: (asked_at, account)
            for key, (asked_at, account) in self._accounts.items()
            if now - asked_at < UNREAD_ACCOUNT_SECONDS
        }
        if not self._accounts:
            self._observers.remove(self.observe)

    def _begin(self, key: ClientKey, *, force: bool, now: float) -> None:
        """Begin a new account of the client, and probe the client at once."""
        self.forget()
        if len(self._accounts) >= MAX_ACCOUNTS:
            del self._accounts[next(iter(self._accounts))]
        self._accounts[key] = (now, RetryAccount())
        self._observers.add(self.observe)
        self._worker.scheduler.probe_now(key, force=force)


def make_retry_request(
    key: ClientKey, who: str, *, begin: bool, force: bool = False, makes_all_due: bool = False
) -> WorkerRequest:
    """Return the request to begin a retry or, without `begin`, the request for its results so far.

    `makes_all_due`: the sender makes all delayed deliveries of the client due, so workers need not count them any more.
    """
    members = {"iss": key[0], "client_id": key[1], "begin": begin, "force": force, "all": makes_all_due}
    return WorkerRequest(name=RETRY_CLIENT, who=who, members=members)


def sum_accounts(answers: Sequence[WorkerAnswer], ended_workers: Sequence[WorkerAnswer] = ()) -> RetryAccount:
    """Return the sum of the workers' accounts. Of `ended_workers`, only the counts in their last answers are added."""
    summed = RetryAccount()
    for answer in ended_workers:
        summed.add(answer.result)
    for members in (answer.result for answer in answers if answer.problem is None):
        summed.add(members)
        summed.busy = summed.busy or members.get("busy") is True
        summed.next_try = earliest(summed.next_try, members.get("next_try"))
        summed.paused_until = latest(summed.paused_until, members.get("paused_until"))
    return summed
