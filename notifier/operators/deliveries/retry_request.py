"""Carries out retries at a worker: probes the client at once, and counts its results from then on."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from notifier.delivery.facts import Attempted, DeadLettered, Deferred, Fact, LogoutDelivered
from notifier.delivery.worker import Worker
from notifier.model.client import ClientKey
from notifier.model.moment import Clock, earliest, latest
from notifier.operators.status.worker_requests import Members, WorkerAnswer, WorkerRequest
from notifier.telemetry.observers import Observers

RETRY_CLIENT = "retry"
UNREAD_ACCOUNT_SECONDS = 3600.0  # seconds that an account is kept after somebody has asked for it last
MAX_ACCOUNTS = 100  # accounts of one worker


@dataclass(slots=True, kw_only=True)
class RetryAccount:
    """The results of one client's deliveries since the retry began, of one worker or of all.

    `text` is that of the last failure. `put_off` counts deferrals by cause. `busy`: a delivery of the client runs,
    waits for a slot or is being fetched.
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
    def settled(self) -> int:
        """Return how many deliveries are finished."""
        return self.delivered + self.dead.total()

    @property
    def counts(self) -> tuple[object, ...]:
        """Return all counts, to compare."""
        return self.delivered, self.failed, self.dead, self.put_off

    def on_fact(self, fact: Fact) -> None:
        """Count a fact of this client."""
        match fact:
            case LogoutDelivered():
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
        """Add what another worker counted."""
        self.delivered += int(members.get("delivered", 0))
        for name, counts in (("failed", self.failed), ("dead", self.dead), ("put_off", self.put_off)):
            by_reason = members.get(name)
            counts.update(
                {str(key): int(count) for key, count in by_reason.items()} if isinstance(by_reason, Mapping) else {}
            )
        self.text = str(members.get("text") or self.text)

    def document(self) -> dict[str, Any]:
        """Return the members of a worker's answer."""
        return {member.name: getattr(self, member.name) for member in fields(self)}


class RetryAccounts:
    """The accounts of one worker. Registered in `observers` while there are any; carries out worker requests."""

    def __init__(self, worker: Worker, steady: Clock, observers: Observers) -> None:
        self._worker = worker
        self._steady = steady
        self._observers = observers
        self._accounts: dict[ClientKey, tuple[float, RetryAccount]] = {}

    def observe(self, fact: Fact) -> None:
        """Count the fact if its client is being retried. Never waits."""
        match fact:
            case Attempted():
                key = fact.delivery.key
            case DeadLettered() | Deferred():
                key = (fact.iss, fact.client_id or "")
            case _:
                return
        if (entry := self._accounts.get(key)) is not None:
            entry[1].on_fact(fact)

    async def act(self, request: WorkerRequest) -> Members:
        """Start a retry if the request demands it, and return the results so far."""
        key = (str(request.members["iss"]), str(request.members["client_id"]))
        now = self._steady()
        if request.members.get("begin") is True:
            self._begin(key, force=request.members.get("force") is True, now=now)
            if request.members.get("all") is True:
                self._worker.delayed.forget(key)
        account = self._accounts[key][1] if key in self._accounts else RetryAccount()
        if key in self._accounts:
            self._accounts[key] = (now, account)
        account.busy, account.next_try, account.paused_until = self._worker.gate.buckets.state_of(key)
        return account.document()

    def forget(self) -> None:
        """Forget the accounts without a recent request. Call it regularly."""
        now = self._steady()
        self._accounts = {
            key: entry for key, entry in self._accounts.items() if now - entry[0] < UNREAD_ACCOUNT_SECONDS
        }
        if not self._accounts:
            self._observers.remove(self.observe)

    def _begin(self, key: ClientKey, *, force: bool, now: float) -> None:
        self.forget()
        if len(self._accounts) >= MAX_ACCOUNTS:
            del self._accounts[next(iter(self._accounts))]
        self._accounts[key] = (now, RetryAccount())
        self._observers.add(self.observe)
        self._worker.gate.buckets.try_now(key, force=force)


def request_of(
    key: ClientKey, who: str, *, begin: bool, force: bool = False, everything: bool = False
) -> WorkerRequest:
    """Ask to begin a retry, or for the account. `everything`: all deliveries in delay queues are made due."""
    members = {"iss": key[0], "client_id": key[1], "begin": begin, "force": force, "all": everything}
    return WorkerRequest(name=RETRY_CLIENT, who=who, members=members)


def sum_of(answers: Sequence[WorkerAnswer], gone: Sequence[WorkerAnswer] = ()) -> RetryAccount:
    """Return the sum of the workers' accounts. `gone`: the last answers of workers that no longer answer."""
    summed = RetryAccount()
    for answer in gone:
        summed.add(answer.result)
    for members in (answer.result for answer in answers if answer.problem is None):
        summed.add(members)
        summed.busy = summed.busy or members.get("busy") is True
        summed.next_try = earliest(summed.next_try, members.get("next_try"))
        summed.paused_until = latest(summed.paused_until, members.get("paused_until"))
    return summed
