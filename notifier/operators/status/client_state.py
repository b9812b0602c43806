"""The state of a client, at one worker or at all. A worker with very many clients reports clients in trouble first."""

import heapq
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Literal

from notifier.delivery.verdict import CLIENT_CAUSES
from notifier.model.client import ClientKey
from notifier.model.moment import earliest, latest
from notifier.model.outcome import Cause, Reason
from notifier.operators.status.health_observer import ClientRecord, HealthObserver

MAX_REPORTED_CLIENTS = 500  # clients of one worker
_ATTEMPT_REASONS = frozenset(map(str, Reason))  # other reasons are those of dead letters, which do not wait


@dataclass(slots=True, kw_only=True)
class ClientState(ClientRecord):
    """The state of one client at one worker, or at all of them.

    `parked` deliveries wait in its bucket, see `BucketCounts`; `delayed` ones in delay queues, the next until
    `next_delayed`, see `DelayCounts`. `circuit`: 0 closed, 1 during a probe, 2 open until `next_try`. `silent`: seconds
    for which an attempt has had no answer, if that is long.
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

    @property
    def state(self) -> Literal["rests", "tried", "hangs", "put_off", "fails", "well"]:
        """Return the state as one word. A client with deferred deliveries is not well, whatever the cause."""
        if self.circuit:
            return "rests" if self.circuit == 2 else "tried"
        if self.silent:
            return "hangs"
        if self.is_deferred:
            return "put_off"
        return "fails" if self.is_failing else "well"

    @property
    def is_deferred(self) -> bool:
        """Return True if the client's last delivery was deferred by an internal fault, or before any was accepted."""
        since = max(self.last_success or 0.0, self.last_failure or 0.0)
        is_client_cause = self.waits_for in CLIENT_CAUSES and self.last_success is not None
        return self.deferred_at is not None and self.deferred_at >= since and not is_client_cause

    @property
    def pending_count(self) -> int:
        """Return the number of pending deliveries: in memory, in its bucket and in delay queues."""
        return self.waiting + max(0, self.parked) + self.delayed

    @property
    def next_attempt(self) -> float | None:
        """Return when the client is attempted next, as far as known; None if nothing is pending."""
        return self.next_try if self.circuit else self.next_delayed

    @property
    def expires(self) -> float | None:
        """Return when the client's first pending delivery is given up, as far as known; None if nothing is pending."""
        return earliest(self.expires_with_sid, self.expires_without_sid) if self.pending_count else None

    @property
    def cause(self) -> str:
        """Return why the client's deliveries are pending: a `Cause` or the last failure's `Reason`. Empty if none is.

        An attempt after the last deferral shows that its cause (`waits_for`) is over, unless the client is the cause.
        """
        if self.circuit and self.waits_for != Cause.RETRY_AFTER:
            return Cause.CIRCUIT
        if not (self.circuit or self.pending_count or self.is_deferred):
            return ""
        if max(self.last_success or 0.0, self.last_failure or 0.0) > (self.deferred_at or 0.0):
            if self.is_failing and self.waits_for != Cause.RETRY_AFTER:
                return self.reason if self.reason in _ATTEMPT_REASONS else self.waits_for
            return self.waits_for if self.waits_for in CLIENT_CAUSES else ""
        return self.waits_for

    @property
    def is_failing(self) -> bool:
        """Return True if the client's last attempt failed, or its circuit is not closed."""
        return self.circuit > 0 or (self.last_failure or 0.0) > (self.last_success or 0.0)

    @property
    def urgency(self) -> tuple[int, bool, bool, int, float]:
        """Return a sort key that is greatest for the client in most trouble."""
        return (
            self.circuit,
            self.is_failing or self.silent > 0,
            self.is_deferred,
            self.waiting,
            self.last_failure or 0.0,
        )


def troubled_clients_of(
    health: HealthObserver, circuits: Iterable[tuple[str, str, int]], silent: Iterable[tuple[str, str, float]]
) -> list[ClientKey]:
    """Return the clients that are not well at this worker."""
    keys = dict.fromkeys((iss, client_id) for iss, client_id, state in circuits if state)
    keys |= dict.fromkeys((iss, client_id) for iss, client_id, _ in silent)
    keys |= dict.fromkeys(key for key, record in health.clients.items() if record.is_in_trouble)
    return list(keys)


_RECORD_MEMBERS = tuple(member.name for member in fields(ClientRecord))


def clients_of(
    health: HealthObserver,
    circuits: Iterable[tuple[str, str, int]],
    waiting: Iterable[tuple[str, str, int]],
    parked: Iterable[tuple[str, str, int]] = (),
    next_tries: Iterable[tuple[str, str, float]] = (),
    delayed: Iterable[tuple[str, str, int, float]] = (),
    silent: Iterable[tuple[str, str, float]] = (),
    *,
    which: Collection[ClientKey] | int = MAX_REPORTED_CLIENTS,
) -> tuple[Iterator[ClientState], int]:
    """Return an iterator that makes the states of clients, and the number of clients left out.

    `which`: the clients to return, known to this worker or not; or the maximum number of known ones, the clients in
    most trouble first.
    """
    states = {(iss, client_id): state for iss, client_id, state in circuits}
    in_memory = {(iss, client_id): count for iss, client_id, count in waiting}
    in_buckets = {(iss, client_id): count for iss, client_id, count in parked}
    tries = {(iss, client_id): moment for iss, client_id, moment in next_tries}
    later = {(iss, client_id): (count, due) for iss, client_id, count, due in delayed}
    unresponsive = {(iss, client_id): seconds for iss, client_id, seconds in silent}
    if isinstance(which, int):
        # For a client of the time before the worker started, its pending deliveries may be all that is known.
        with_pending = (
            *states,
            *in_memory,
            *later,
            *(key for key, count in in_buckets.items() if count > 0),
            *unresponsive,
        )
        records = {**dict.fromkeys(with_pending, ClientRecord()), **health.clients}
    else:
        records = {key: health.clients.get(key) or ClientRecord() for key in which}

    def urgency(item: tuple[ClientKey, ClientRecord]) -> tuple[int, bool, bool, int, float]:
        key, record = item
        failed, accepted = record.last_failure or 0.0, record.last_success or 0.0
        is_deferred = (record.deferred_at or 0.0) > max(failed, accepted)
        return states.get(key, 0), failed > accepted or key in unresponsive, is_deferred, in_memory.get(key, 0), failed

    # Select before building: 10,000 ClientState objects blocked the event loop for 39 ms.
    items = records.items()
    chosen = heapq.nlargest(which, items, key=urgency) if isinstance(which, int) else list(items)
    reported = (
        ClientState(
            iss=key[0],
            client_id=key[1],
            circuit=2 if (state := states.get(key, 0)) == 2 else 1 if state else 0,
            waiting=in_memory.get(key, 0),
            parked=in_buckets.get(key, 0),
            next_try=tries.get(key),
            delayed=later.get(key, (0, None))[0],
            next_delayed=later.get(key, (0, None))[1],
            silent=round(unresponsive.get(key, 0.0), 1),
            **{name: getattr(record, name) for name in _RECORD_MEMBERS},
        )
        for key, record in chosen
    )
    return reported, len(records) - len(chosen)


def merge_states(state: ClientState, other: ClientState) -> ClientState:
    """Merge the states of one client at two workers. The later failure gives reason and status."""
    later = state if (state.last_failure or 0.0) >= (other.last_failure or 0.0) else other
    deferred = max(later, state, other, key=lambda state: state.deferred_at or 0.0)
    last_success = latest(state.last_success, other.last_success)
    failing_since = earliest(state.failing_since, other.failing_since)
    return replace(
        later,
        circuit=max(_effective_circuit(state, other), _effective_circuit(other, state)),
        waiting=state.waiting + other.waiting,
        parked=state.parked + other.parked,
        delayed=state.delayed + other.delayed,
        next_delayed=earliest(state.next_delayed, other.next_delayed),
        waits_for=deferred.waits_for or state.waits_for or other.waits_for,
        delivered=state.delivered + other.delivered,
        dead=state.dead + other.dead,
        put_off=state.put_off + other.put_off,
        deferred_at=deferred.deferred_at,
        last_success=last_success,
        failing_since=failing_since and max(failing_since, last_success or 0.0),
        next_due=latest(state.next_due, other.next_due),
        next_try=earliest(state.next_try, other.next_try),
        expires_with_sid=earliest(state.expires_with_sid, other.expires_with_sid),
        expires_without_sid=earliest(state.expires_without_sid, other.expires_without_sid),
        silent=max(state.silent, other.silent),
    )


def _effective_circuit(state: ClientState, other: ClientState) -> Literal[0, 1, 2]:
    """Return the circuit at one worker; 0 if the client has since accepted a delivery at another.

    A worker without pending deliveries cannot probe, so its circuit stays open until a delivery arrives.
    """
    knows_better = (other.last_success or 0.0) > (state.last_failure or 0.0)
    return 0 if knows_better and not state.pending_count else state.circuit
