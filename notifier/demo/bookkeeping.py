"""Counts the demo's deliveries while the service runs (`DemoTally`), and builds the result of each at the end.

The results come from the clients' records and the queue's dead letters, never from reports of the service itself.
"""

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from notifier.delivery.facts import Attempted, DeadLettered, Deferred, Fact, LogoutDelivered, RetryScheduled, Skipped
from notifier.demo.receivers import Behaviour, Receiver
from notifier.model.documents.dead_letter import DeadLetter


@dataclass(frozen=True, slots=True, kw_only=True)
class SignOut:
    """The sign-out of one user: the event, the ended session, and the time in epoch seconds."""

    event_id: str
    sid: str
    at: float


class DemoTally:
    """Counts attempts and settled deliveries. An observer of the service's facts."""

    def __init__(self, deliveries: int) -> None:
        self._deliveries = deliveries
        self.attempts: Counter[str] = Counter()
        self._delivered: set[tuple[str, str]] = set()
        self._dead: set[tuple[str, str]] = set()
        self._waiting: set[tuple[str, str]] = set()

    def __call__(self, fact: Fact) -> None:
        """Count a fact."""
        match fact:
            case Attempted(delivery=delivery):
                self.attempts[delivery.client_id] += 1
                if isinstance(fact, LogoutDelivered):
                    self._delivered.add((delivery.event_id, delivery.client_id))
            case RetryScheduled(delivery=delivery):
                self._waiting.add((delivery.event_id, delivery.client_id))
            case Deferred():
                self._waiting.add((fact.event_id, fact.client_id))
            case DeadLettered() | Skipped():
                self._dead.add((fact.event_id, fact.client_id))

    @property
    def is_settled(self) -> bool:
        """True if each delivery is delivered, a dead letter or skipped."""
        return len(self._delivered | self._dead) >= self._deliveries

    def summary(self) -> str:
        """Return the progress in words."""
        waiting = self._waiting - self._delivered - self._dead
        return (
            f"{self.attempts.total()} attempts: {len(self._delivered)} delivered, {len(waiting)} to be retried,"
            f" {len(self._dead)} dead, of {self._deliveries}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientResult:
    """The results of the deliveries to one client.

    `dead`: the number of dead letters by reason. `median`: the median seconds from sign-out to logout; None without a
    logout.
    """

    client_id: str
    kind: Behaviour
    deliveries: int
    delivered: int
    attempts: int
    dead: Mapping[str, int]
    duplicates: int
    median: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """The results of all deliveries.

    `unaccounted`: (event, client) of each delivery without a result. `invalid`: (client, reason) of each invalid token.
    """

    rows: tuple[ClientResult, ...]
    unaccounted: tuple[tuple[str, str], ...]
    invalid: tuple[tuple[str, str], ...]

    @property
    def is_complete(self) -> bool:
        """Return True if each delivery is accounted for and every token was valid."""
        return not self.unaccounted and not self.invalid

    @property
    def deliveries(self) -> int:
        """Return the number of deliveries."""
        return sum(row.deliveries for row in self.rows)

    @property
    def delivered(self) -> int:
        """Return the number of logouts at clients."""
        return sum(row.delivered for row in self.rows)

    @property
    def dead(self) -> Mapping[str, int]:
        """Return the number of dead letters by reason, without deliveries that their client accepted."""
        return sum((Counter(row.dead) for row in self.rows), Counter[str]())


def build_result(
    sign_outs: Sequence[SignOut], receivers: Iterable[Receiver], dead_letters: Iterable[DeadLetter], tally: DemoTally
) -> DemoResult:
    """Return the result of each sign-out at each client, from the client's records or else from the dead letters."""
    reasons = {(letter.event_id, letter.client_id): letter.reason for letter in dead_letters}
    rows: list[ClientResult] = []
    unaccounted: list[tuple[str, str]] = []
    invalid: list[tuple[str, str]] = []
    for receiver in receivers:
        dead: Counter[str] = Counter()
        delays: list[float] = []
        duplicates = 0
        for sign_out in sign_outs:
            session = receiver.session_records.get(sign_out.sid)
            reason = reasons.get((sign_out.event_id, receiver.client_id))
            if session is not None and session.logged_out_at is not None:
                delays.append(session.logged_out_at - sign_out.at)
                duplicates += session.accepted - 1
            elif reason:
                dead[reason.value] += 1
            else:
                unaccounted.append((sign_out.event_id, receiver.client_id))
        invalid += [(receiver.client_id, reason) for reason in receiver.invalid]
        rows.append(
            ClientResult(
                client_id=receiver.client_id,
                kind=receiver.kind,
                deliveries=len(sign_outs),
                delivered=len(delays),
                attempts=tally.attempts[receiver.client_id],
                dead=dead,
                duplicates=duplicates,
                median=statistics.median(delays) if delays else None,
            )
        )
    return DemoResult(rows=tuple(rows), unaccounted=tuple(unaccounted), invalid=tuple(invalid))
