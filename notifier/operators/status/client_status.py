"""The state of a client at one worker or at all. A worker with very many clients reports those in the worst state."""

import heapq
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal

from notifier.delivery.verdict import CLIENT_CAUSES
from notifier.model.client import ClientKey
from notifier.model.moment import earliest, latest
from notifier.model.outcome import Cause, Reason
from notifier.model.pauses import Pause
from notifier.model.shared_resources import shared_bound
from notifier.operators.status.health_observer import ClientRecord, HealthObserver

MAX_REPORTED_CLIENTS = shared_bound(500)  # by one worker
_ATTEMPT_REASONS = frozenset(map(str, Reason))  # all other reasons belong to dead letters, which are not pending
_CIRCUITS: tuple[Literal[0, 1, 2], ...] = (0, 1, 2)


@dataclass(slots=True, kw_only=True)
class ClientStatus(ClientRecord):
    """The state of one client at one worker or, merged, at all workers. Times are in epoch seconds.

    `circuit` is 0 if closed, 1 during a probe, and 2 if open; then `next_try` is the time of the next probe. `waiting`
    counts the pending deliveries in memory, `parked` those in the client's bucket, and `delayed` those in delay queues,
    of which the first is due at `next_delayed`. `silent` is the number of seconds for which an attempt has had no
    answer; 0 if that is normal. `pause` is an operator's.
    """

    iss: str
    client_id: str
    circuit: Literal[0, 1, 2] = 0
    waiting: int = 0
    next_try: float | None = None
    parked: int = 0
    delayed: int = 0
    next_delayed: float | None = None
    silent: float = 0.0
    pause: Pause | None = None

    @property
    def state(self) -> Literal["paused", "rests", "tried", "hangs", "put_off", "fails", "well"]:
        """Return the state as one word, which is also its name in JSON. A pause precedes everything else."""
        if self.pause is not None:
            return "paused"
        if self.circuit:
            return "rests" if self.circuit == 2 else "tried"
        if self.silent:
            return "hangs"
        if self.is_deferred:
            return "put_off"
        return "fails" if self.is_failing else "well"

    @property
    def is_deferred(self) -> bool:
        """Return True if deliveries are deferred: no attempt was made since the last deferral.

        A deferral that the client caused (such as by a rate limit) counts only if the client has accepted no delivery.
        """
        since = max(self.last_success or 0.0, self.last_failure or 0.0)
        is_client_cause = self.waits_for in CLIENT_CAUSES and self.last_success is not None
        return self.deferred_at is not None and self.deferred_at >= since and not is_client_cause

    @property
    def pending_count(self) -> int:
        """Return the number of pending deliveries: in memory, in its bucket and in delay queues."""
        return self.waiting + max(0, self.parked) + self.delayed

    @property
    def next_attempt(self) -> float | None:
        """Return the time of the next attempt, if it is known."""
        if self.pause is not None:
            return self.pause.until
        return self.next_try if self.circuit else self.next_delayed

    @property
    def expires(self) -> float | None:
        """Return the time when the first pending delivery is given up, if it is known."""
        return earliest(self.expires_with_sid, self.expires_without_sid) if self.pending_count else None

    @property
    def cause(self) -> str:
        """Return why deliveries are pending: a `Cause`, or the `Reason` of the last failure. Empty if none is."""
        if self.pause is not None:
            return Cause.PAUSED
        if self.circuit and self.waits_for != Cause.RETRY_AFTER:
            return Cause.CIRCUIT
        if not (self.circuit or self.pending_count or self.is_deferred):
            return ""
        last_attempt_at = max(self.last_success or 0.0, self.last_failure or 0.0)
        if last_attempt_at <= (self.deferred_at or 0.0):
            return self.waits_for
        # An attempt since the deferral shows that its cause has ended, unless the client is the cause.
        if self.is_failing and self.waits_for != Cause.RETRY_AFTER:
            return self.reason if self.reason in _ATTEMPT_REASONS else self.waits_for
        return self.waits_for if self.waits_for in CLIENT_CAUSES else ""

    @property
    def is_failing(self) -> bool:
        """Return True if the client's last attempt failed, or its circuit is not closed."""
        return self.circuit > 0 or (self.last_failure or 0.0) > (self.last_success or 0.0)

    @property
    def urgency(self) -> tuple[int, bool, bool, int, float]:
        """Return a sort key that is greatest for the client in the worst state."""
        return (
            self.circuit,
            self.is_failing or self.silent > 0,
            self.is_deferred,
            self.waiting,
            self.last_failure or 0.0,
        )


_RECORD_MEMBERS = tuple(member.name for member in fields(ClientRecord))


@dataclass(slots=True, kw_only=True)
class WorkerClients:
    """The values of the clients at one worker, by issuer and client ID. The iterables are iterated over once."""

    health: HealthObserver
    circuits: Iterable[tuple[str, str, int]]
    waiting: Iterable[tuple[str, str, int]] = ()
    parked: Iterable[tuple[str, str, int]] = ()
    next_tries: Iterable[tuple[str, str, float]] = ()
    delayed: Iterable[tuple[str, str, int, float]] = ()
    silent: Iterable[tuple[str, str, float]] = ()
    pauses: Mapping[ClientKey, Pause]

    def list_troubled(self) -> list[ClientKey]:
        """Return the clients with an open circuit, an unanswered attempt, a failure, a deferral or a pause here."""
        keys = dict.fromkeys((iss, client_id) for iss, client_id, state in self.circuits if state)
        keys |= dict.fromkeys(self.pauses)
        keys |= dict.fromkeys((iss, client_id) for iss, client_id, _ in self.silent)
        keys |= dict.fromkeys(key for key, record in self.health.clients.items() if record.is_in_trouble)
        return list(keys)

    def list_states(
        self, which: Collection[ClientKey] | int = MAX_REPORTED_CLIENTS
    ) -> tuple[Iterator[ClientStatus], int]:
        """Return the states of clients at this worker, and the number of clients that were left out.

        `which` has the clients to return, or the maximum number of clients: then the clients in the worst state are
        returned. The states are built when the caller iterates over them.
        """
        circuit_by_key = {(iss, client_id): circuit for iss, client_id, circuit in self.circuits}
        waiting_by_key = {(iss, client_id): count for iss, client_id, count in self.waiting}
        parked_by_key = {(iss, client_id): count for iss, client_id, count in self.parked}
        next_try_by_key = {(iss, client_id): moment for iss, client_id, moment in self.next_tries}
        delayed_by_key = {(iss, client_id): (count, due) for iss, client_id, count, due in self.delayed}
        silent_by_key = {(iss, client_id): seconds for iss, client_id, seconds in self.silent}
        if isinstance(which, int):
            # A client without an attempt since the worker started has no record, but may have pending deliveries.
            with_parked = (key for key, count in parked_by_key.items() if count > 0)
            keys = (*circuit_by_key, *waiting_by_key, *delayed_by_key, *with_parked, *silent_by_key, *self.pauses)
            records = {**dict.fromkeys(keys, ClientRecord()), **self.health.clients}
        else:
            records = {key: self.health.clients.get(key) or ClientRecord() for key in which}

        def urgency(item: tuple[ClientKey, ClientRecord]) -> tuple[int, bool, bool, int, float]:
            """Return a sort key that is about `ClientStatus.urgency`, without a ClientStatus."""
            key, record = item
            failed_at, accepted_at = record.last_failure or 0.0, record.last_success or 0.0
            is_failing = failed_at > accepted_at or key in silent_by_key
            is_deferred = key in self.pauses or (record.deferred_at or 0.0) > max(failed_at, accepted_at)
            return circuit_by_key.get(key, 0), is_failing, is_deferred, waiting_by_key.get(key, 0), failed_at

        # Select before building: 10,000 ClientStatus objects blocked the event loop for 39 ms.
        items = records.items()
        selected = heapq.nlargest(which, items, key=urgency) if isinstance(which, int) else list(items)
        states = (
            ClientStatus(
                iss=key[0],
                client_id=key[1],
                circuit=_CIRCUITS[circuit_by_key.get(key, 0)],
                waiting=waiting_by_key.get(key, 0),
                parked=parked_by_key.get(key, 0),
                next_try=next_try_by_key.get(key),
                delayed=delayed_by_key.get(key, (0, None))[0],
                next_delayed=delayed_by_key.get(key, (0, None))[1],
                silent=round(silent_by_key.get(key, 0.0), 1),
                pause=self.pauses.get(key),
                **{name: getattr(record, name) for name in _RECORD_MEMBERS},
            )
            for key, record in selected
        )
        return states, len(records) - len(selected)


def merge_states(state: ClientStatus, other: ClientStatus) -> ClientStatus:
    """Merge the states of one client at two workers. Reason, status and text are those of the later failure."""
    later_failed = state if (state.last_failure or 0.0) >= (other.last_failure or 0.0) else other
    # For equally late deferrals, the state with the later failure comes first.
    later_deferred = max(later_failed, state, other, key=lambda state: state.deferred_at or 0.0)
    pauses = (each.pause for each in (state, other) if each.pause is not None)
    last_success = latest(state.last_success, other.last_success)
    failing_since = earliest(state.failing_since, other.failing_since)
    return replace(
        later_failed,
        circuit=max(_effective_circuit(state, other), _effective_circuit(other, state)),
        waiting=state.waiting + other.waiting,
        parked=state.parked + other.parked,
        delayed=state.delayed + other.delayed,
        next_delayed=earliest(state.next_delayed, other.next_delayed),
        waits_for=later_deferred.waits_for or state.waits_for or other.waits_for,
        delivered=state.delivered + other.delivered,
        dead=state.dead + other.dead,
        put_off=state.put_off + other.put_off,
        deferred_at=later_deferred.deferred_at,
        last_success=last_success,
        failing_since=None if failing_since is None else max(failing_since, last_success or 0.0),
        next_due=latest(state.next_due, other.next_due),
        next_try=earliest(state.next_try, other.next_try),
        expires_with_sid=earliest(state.expires_with_sid, other.expires_with_sid),
        expires_without_sid=earliest(state.expires_without_sid, other.expires_without_sid),
        silent=max(state.silent, other.silent),
        pause=max(pauses, key=lambda pause: pause.until, default=None),
    )


def _effective_circuit(state: ClientStatus, other: ClientStatus) -> Literal[0, 1, 2]:
    """Return the circuit of `state`, or 0 if it is outdated.

    A worker without pending deliveries cannot probe, so its circuit stays open until a delivery arrives. The circuit
    is outdated if the client has accepted a delivery of the other worker since this worker's last failure.
    """
    has_recovered = (other.last_success or 0.0) > (state.last_failure or 0.0)
    return 0 if has_recovered and not state.pending_count else state.circuit
