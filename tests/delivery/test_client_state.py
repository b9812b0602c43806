"""The state of one client in a worker: when its circuit opens and for how long, the effect of its attempts, and its
slots.
"""

from collections.abc import Callable

import pytest

from notifier.delivery.circuit import MAX_FAILING_SECONDS, CircuitChange, State
from notifier.delivery.client_state import ClientState
from notifier.delivery.line_and_parking import AdmittedDelivery
from notifier.delivery.ports import ClientReport
from notifier.delivery.slots import SlotPool
from notifier.model.delivery import Delivery
from notifier.model.message import Lane
from notifier.model.outcome import Delivered, Failed, Outcome, Reason, Refused, Signal
from tests.delivery.worker_harness import client

NOW = 1000.0


def untried(limit: int = 8) -> ClientState:
    """Return a client without an attempt."""
    return ClientState(key=("iss", "shop"), limit=limit, seen_at=NOW)


def admitted() -> AdmittedDelivery:
    """A delivery for it."""
    delivery = Delivery(id="d", event_id="e", id_given=True, iss="iss", client_id="shop", sub="s", sid="s")
    return AdmittedDelivery(delivery=delivery, client=client("shop"), lane=Lane.EVENTS)


def learn(one: ClientState, signal: Signal, now: float = NOW, *, repeat: bool = False) -> CircuitChange | None:
    """Record an attempt without duration."""
    return one.on_result(signal, 0.0, now, is_repeat=repeat, min_open_seconds=0.0)


def proven(successes: int = 1, limit: int = 8) -> ClientState:
    """Return a client with so many successes."""
    one = untried(limit)
    for _ in range(successes):
        learn(one, Signal.RESPONSIVE)
    return one


def down(one: ClientState | None = None, at: float = NOW) -> ClientState:
    """Return a client whose attempts fail, all at the same moment, until its circuit opens."""
    one = one or untried()
    while learn(one, Signal.UNAVAILABLE, at) is None:
        pass
    return one


@pytest.mark.parametrize(
    ("outcome", "signal"),
    [
        (Delivered(status=204), Signal.RESPONSIVE),
        (Refused(reason=Reason.REJECTED_TOKEN, status=400), Signal.RESPONSIVE),
        (Failed(reason=Reason.THROTTLED, status=429), Signal.RATE_LIMITED),
        (Failed(reason=Reason.SERVER_ERROR, status=408), Signal.RATE_LIMITED),
        (Failed(reason=Reason.SERVER_ERROR, status=503), Signal.UNAVAILABLE),
        (Failed(reason=Reason.TIMEOUT), Signal.UNAVAILABLE),
        (Failed(reason=Reason.INTERCEPTED, status=202), Signal.UNAVAILABLE),
        (Failed(reason=Reason.PROXY), Signal.NONE),
        (Refused(reason=Reason.EGRESS_DENIED), Signal.NONE),
    ],
)
def test_attempt_result_updates_its_client(outcome: Outcome, signal: Signal) -> None:
    """Any answer but 5xx shows that it works; an internal fault shows nothing."""
    assert outcome.signal is signal


# ── what an event does beside its circuit ──


@pytest.mark.parametrize(("after", "change"), [(2.1, CircuitChange.RECOVERED), (1.9, None)])
def test_circuit_closes_on_a_peer_report(after: float, change: CircuitChange | None) -> None:
    """Not within two seconds: it may accept no more than the peers send. It gets the peer's concurrency limit."""
    one = down(proven())
    up = ClientReport(key=one.key, circuit_closed=True, concurrency=6)
    assert one.on_peer_report(up, NOW + after) is change
    assert (one.circuit.budget, one.concurrency) == ((16, 6) if change else (0, 1))


@pytest.mark.parametrize(("seconds", "limited"), [(MAX_FAILING_SECONDS, True), (MAX_FAILING_SECONDS + 1, False)])
def test_a_rate_limit_survives_a_short_outage(seconds: float, *, limited: bool) -> None:
    """With several workers, overload looks like a short outage. After a longer one the client may accept more."""
    one = down(proven())
    one.rate.on_peer_report(0.1, 0.9, NOW)
    assert learn(one, Signal.RESPONSIVE, NOW + seconds, repeat=True) is CircuitChange.RECOVERED
    assert (one.rate.spacing > 0) is limited


def test_operator_ends_the_open_circuit() -> None:
    """Whoever is on the way to try it."""
    one = down()
    one.parking.on_probe_sent("d", NOW + 60, wall_offset=0.0)
    one.on_operator_probe(NOW + 0.5, force=False)
    assert (one.circuit.state, one.circuit.probe_at, one.parking.has_probe_out(NOW + 0.5)) == (
        State.OPEN,
        NOW + 0.5,
        False,
    )


@pytest.mark.parametrize("make", [untried, proven, down])
def test_each_client_is_paused_on_request(make: Callable[[], ClientState]) -> None:
    """Until the pause is over, or an operator forces it. Its circuit is as before meanwhile."""
    one, was = make(), make().circuit.state
    one.parking.on_pause(NOW + 60)
    one.parking.on_pause(NOW + 30)  # a shorter one changes nothing
    assert [one.parking.is_paused(NOW + seconds) for seconds in (0, 59, 60)] == [True, True, False]
    one.on_operator_probe(NOW + 5, force=False)
    assert one.parking.is_paused(NOW + 5)
    one.on_operator_probe(NOW + 5, force=True)
    assert not one.parking.is_paused(NOW + 5)
    assert one.circuit.state is was


# ── other reports ──────────────────────────────────────────────────────────────────────────────────────────────


def test_report_on_a_client_without_attempts_has_no_effect() -> None:
    """A report about a client without an attempt here has no effect: the first attempt shows its state."""
    one = untried()
    assert (
        one.on_peer_report(ClientReport(key=one.key, circuit_closed=False, failing_seconds=9.0, open_seconds=8.0), NOW)
        is None
    )
    assert one.on_peer_report(ClientReport(key=one.key, circuit_closed=True), NOW) is None
    assert one.circuit.state is State.UNTRIED


def test_rate_limit_of_a_peer_is_applied() -> None:
    """Several workers that search for the rate independently would find none."""
    for former_share in (0.0, 0.9):
        one = proven()
        one.on_peer_report(ClientReport(key=one.key, circuit_closed=True, spacing=0.25, former_share=former_share), NOW)
        assert one.rate.former_share == former_share
        assert one.rate.spacing > 0


def test_internal_fault_is_not_charged_to_the_client() -> None:
    """It neither uses failure budget nor ends an outage, and a client that is not up has no attempt for a second."""
    well, rests = proven(), down()
    for number in range(50):
        assert learn(well, Signal.NONE, NOW + number) is None
        assert learn(rests, Signal.NONE, NOW + number) is None
        assert rests.circuit.probe_at == NOW + number + 1
    assert (well.circuit.state, well.circuit.budget) == (State.CLOSED, 16)
    assert rests.circuit.state is State.OPEN


def test_concurrency_grows_with_each_success() -> None:
    """One at first, its limit in the end, half of it after a rest."""
    one = untried(limit=6)
    assert one.concurrency == 1
    for expected in (2, 3, 4, 5, 6, 6):
        learn(one, Signal.RESPONSIVE, NOW)
        assert one.concurrency == expected
    for _ in range(32):
        learn(one, Signal.UNAVAILABLE, NOW + 1)
    assert (one.circuit.state is State.CLOSED, one.concurrency) == (False, 3)


def test_client_is_slow_by_mean_duration_or_silence() -> None:
    """A tenth of a second without an answer for a quick client; four times its usual time for another.

    The silence starts when a request is sent, however long the attempt has been running.
    """
    one = proven()
    signing, attempt = admitted(), admitted()
    one.on_started(signing, SlotPool.QUICK, NOW - 9)
    one.on_started(attempt, SlotPool.QUICK, NOW - 9)
    assert (one.pool_at(NOW), one.silent_seconds(NOW)) == (SlotPool.QUICK, 0.0)
    attempt.posted_at = NOW
    assert [one.pool_at(NOW + silence) for silence in (0.09, 0.11)] == [SlotPool.QUICK, SlotPool.SLOW]
    one.attempt_seconds = 0.2
    assert [one.pool_at(NOW + silence) for silence in (0.7, 0.9)] == [SlotPool.QUICK, SlotPool.SLOW]
    one.on_attempt_ended(attempt)
    assert one.pool_at(NOW + 9) is SlotPool.QUICK
    one.attempt_seconds = 1.1
    assert one.pool_at(NOW) is SlotPool.SLOW


def test_rate_releases_tokens_one_by_one() -> None:
    """One at first, then one each `step` seconds; unused tokens are not saved up."""
    one = proven(limit=100)
    one.rate.registered_interval = 0.5
    taken = 0
    for tick in range(200):
        now = NOW + 60 + tick / 20
        while one.rate.tokens(now, one.limit) >= 1:
            one.on_started(attempt := admitted(), SlotPool.QUICK, now)
            one.on_attempt_ended(attempt)
            taken += 1
    assert 19 <= taken <= 23
