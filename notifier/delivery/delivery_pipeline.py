"""Delivers: admits a delivery, attempts it, decides what follows, and settles it. `DeliveryPipeline._run` is the order.

An admission is synchronous, so that a delivery counts from the moment at which the worker starts it. The client's slot
is free once the attempt ends, before the delivery is settled. While the queue is unavailable a delivery stays here, in
memory. If its deferral is due before the queue has taken it, it is admitted once more.
"""

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any

from notifier.delivery.admission import StartNow, Ticket, Wait, before_attempt
from notifier.delivery.facts import Attempted, LogoutDelivered, Unexpected
from notifier.delivery.gate import Gate
from notifier.delivery.ledger import HeldMessage, Ledger, coverage_seconds
from notifier.delivery.pending_counts import BucketCounts, DelayCounts
from notifier.delivery.ports import Channel, Tools
from notifier.delivery.settlement import Settlement
from notifier.delivery.verdict import (
    DONE,
    AttemptResult,
    Dead,
    Defer,
    Done,
    RetryAt,
    Verdict,
    WaitsAs,
    defer_for,
    deferred,
    not_taken,
    result_of,
)
from notifier.model.delivery import Delivery
from notifier.model.egress import check_uri
from notifier.model.errors import InternalFault
from notifier.model.frozen import replace
from notifier.model.outcome import Break, Cause, Delivered, Outcome, Reason, Refused, Signal, StaleConnection
from notifier.model.registry import CurrentRegistry
from notifier.model.request import Request
from notifier.queues.queue_port import WorkerQueue


class DeliveryPipeline:
    """Runs deliveries, each in a task of `spawn`. `pump` is called when a slot may be free."""

    def __init__(
        self,
        tools: Tools,
        registry: CurrentRegistry,
        queue: WorkerQueue,
        gate: Gate,
        ledger: Ledger,
        spawn: Callable[[Coroutine[object, object, None]], None],
        pump: Callable[[], None],
    ) -> None:
        self._tools = tools
        self._registry = registry
        self._gate = gate
        self._ledger = ledger
        self._spawn = spawn
        self._pump = pump
        self._making_room = False  # a delivery is being deferred to make room for another
        self.settlement = Settlement(queue, clock=tools.clock, observe=tools.observe)
        self.parked = BucketCounts(queue.bucket)
        self.delayed = DelayCounts(tools.clock)

    def start(self, held: HeldMessage, delivery: Delivery, *, fetched: bool = False) -> bool:
        """Admit the delivery and run it in a task. Returns False if it is to be parked."""
        if delivery.parked:
            delivery = replace(delivery, parked=False)
            self.parked.add(delivery.key, -1)
        admitted = self._admit(held, delivery, fetched=fetched)
        self._spawn(self._run(held, delivery, admitted))
        verdict = None if isinstance(admitted, Ticket) else admitted.verdict
        return not isinstance(verdict, Defer) or verdict.waits_as is not WaitsAs.PARKED

    def make_room(self) -> None:
        """Defer the deliveries that would wait longest in memory, unless that is under way."""
        if not self._making_room:
            for ticket, later in self._gate.free_memory():
                self._making_room = True
                ticket.wake(later)

    async def _run(self, held: HeldMessage, begun: Delivery, admitted: Ticket | AttemptResult) -> None:
        while True:
            result = await self._attempt(admitted) if isinstance(admitted, Ticket) else admitted
            verdict = result.verdict
            if isinstance(verdict, Done):  # nearly always
                covers_copies_until: float | None = math.inf
                break
            since, covers_copies_until = self._tools.steady(), None
            if not isinstance(verdict, Dead):  # as of now: the retry may be back before its confirm
                wait, alone = verdict.due - self._tools.clock(), self._gate.slots.workers() == 1
                covers_copies_until = since + coverage_seconds(wait, alone=alone)
            if await self.settlement.settle(result.delivery, verdict, held.message):
                break
            self._making_room = False
            begun = not_taken(begun, result.delivery, self._tools.steady() - since)
            admitted = self._admit(held, begun)
        self._making_room = False
        for holder, copy in self._ledger.settle_delivery(held, begun, covers_copies_until=covers_copies_until):
            self.start(holder, copy)
        if not isinstance(verdict, RetryAt | Defer):
            return
        if verdict.waits_as is WaitsAs.PARKED:
            self.parked.add(begun.key, +1)
            self._gate.buckets.on_parked(begun.key)
            return
        self.delayed.put_off(begun.key, verdict)
        if verdict.waits_as is WaitsAs.PROBE:
            self._gate.buckets.on_probe_sent(begun.key)

    # ── admit ──

    def _admit(self, held: HeldMessage, delivery: Delivery, *, fetched: bool = False) -> Ticket | AttemptResult:
        """Return its ticket if the delivery is attempted, now or after a wait in memory; else the result without it."""
        registry = self._registry()
        client = registry.client_of(delivery)
        judged_as = client or registry.default_of(delivery.iss)
        now = self._tools.clock()
        verdict: Verdict | None = None
        fresh = delivery.first_taken_at is None and delivery.not_after is None  # so it cannot have expired
        if not fresh or client is None or client.paused or client.logout_uri is None:
            verdict = before_attempt(delivery, client, judged_as, registry, now)
            if delivery.leash is not None and isinstance(verdict, Dead):
                self._gate.buckets.on_probe_lost(delivery.key)
        if verdict is None and client is not None:
            answer = self._gate.admit(delivery, client, held.lane, fetched=fetched)
            if isinstance(answer, StartNow):
                return answer
            if isinstance(answer, Wait):
                answer.woken = asyncio.get_running_loop().create_future()
                return answer
            delivery, verdict = answer
        if isinstance(verdict, Defer):
            return deferred(delivery, verdict, judged_as.retry, now)
        assert verdict is not None
        return AttemptResult(delivery=delivery, verdict=verdict)

    # ── attempt and decide ──

    async def _attempt(self, ticket: Ticket) -> AttemptResult:
        """Wait for the delivery's turn, attempt it, and return the result.

        A failed probe stays unacked until another delivery replaces it as the probe, for at most half of
        `probe_wait_seconds`, if that is not 0.
        """
        delivery, client = ticket.delivery, ticket.client
        if ticket.woken is not None and (later := await ticket.woken) is not None:
            return deferred(*later, client.retry, self._tools.clock())
        result: AttemptResult | None = None
        try:
            result = await attempt(ticket, self._tools)
        except Exception as error:  # noqa: BLE001  around one delivery: a fault in our code must not stop the others
            iss, client_id = client.key
            self._tools.observe(Unexpected(iss=iss, client_id=client_id, event_id=delivery.event_id, error=error))
            fault = InternalFault(Cause.UNKNOWN, f"unexpected {type(error).__name__}")
            result = defer_for(fault, delivery, client, self._tools.clock(), self._tools.jitter)
        finally:  # of a task that is cancelled too
            ended = AttemptResult(delivery=delivery, verdict=DONE) if result is None else result
            started, result, probe_wait_seconds = self._gate.on_ended(ticket, ended)
            for following in started:
                following.wake()
        if probe_wait_seconds:
            ticket.woken = asyncio.get_running_loop().create_future()
            self._pump()
            await asyncio.wait((ticket.woken,), timeout=probe_wait_seconds / 2)
            result = self._gate.buckets.on_rotated(ticket, result)
        if (fact := result.fact) is not None:
            due = result.verdict.due if isinstance(result.verdict, RetryAt | Defer) else None
            self._tools.observe(fact if due is None else replace(fact, next_due=due))
        self._pump()
        return result


async def attempt(ticket: Ticket, tools: Tools) -> AttemptResult:
    """Notify the client, under one deadline. An internal fault becomes a deferral, and no attempt counts."""
    delivery, client = ticket.delivery, ticket.client
    channel = tools.channel_of(client)
    try:
        sent = await _post(channel, ticket, tools)
    except InternalFault as fault:
        return defer_for(fault, delivery, client, tools.clock(), tools.jitter)
    if isinstance(sent, Dead):
        return AttemptResult(delivery=delivery, verdict=sent)
    outcome, jti, seconds = sent
    now = tools.clock()
    members: dict[str, Any] = {
        "delivery": delivery, "number": delivery.attempts + 1, "jti": jti, "alg": client.token.alg,
        "outcome": outcome, "seconds": seconds, "at": now,
    }  # fmt: skip
    if isinstance(outcome, Delivered):  # the usual end: no history is written, which would take 8 µs
        ended = delivery.ended_at
        success = LogoutDelivered(**members, propagation=None if ended is None else max(0.0, now - ended))
        return AttemptResult(delivery=delivery, verdict=DONE, signal=Signal.RESPONSIVE, fact=success)
    fact = Attempted(**members)
    refused_by_proxy = outcome.reason is Reason.PROXY
    internal = InternalFault(Cause.PROXY, outcome.text) if refused_by_proxy else channel.internal_fault(outcome, client)
    if internal is not None:  # neither an attempt nor a rejection counts
        return replace(defer_for(internal, delivery, client, now, tools.jitter), signal=outcome.signal, fact=fact)
    return result_of(delivery, client, fact, tools.jitter)


async def _post(channel: Channel, ticket: Ticket, tools: Tools) -> tuple[Outcome, str, float] | Dead:
    """Return the outcome, the `jti` that was sent, and the seconds without those of signing, which has its own limit.

    Returns `Dead` if nothing can be sent to this client.
    """
    client = ticket.client
    if client.route.withheld is not None:
        raise InternalFault(Cause.ORIGIN, client.route.withheld)
    uri = channel.uri(client)
    if (denied := check_uri(uri, client.route.egress)) is not None:
        return Refused(reason=Reason.EGRESS_DENIED, text=denied), "", 0.0
    seconds, new_connection = 0.0, False
    while True:
        push = await channel.prepare(ticket.delivery, client)
        if isinstance(push, Dead):
            return push
        ticket.posted_at = began = tools.steady()
        wire = await tools.transport.post(
            Request(
                uri=push.uri or uri, body=push.body, secret=push.secret, timeout=max(0.001, client.timeout - seconds),
                route=client.route, new_connection=new_connection, client=client,
            )
        )  # fmt: skip
        seconds += tools.steady() - began
        if not isinstance(wire, StaleConnection):
            return channel.read(wire, client), push.jti, seconds
        if new_connection:
            broken = Break(reason=Reason.DISCONNECTED, ambiguous=True, text="closed before any answer")
            return channel.read(broken, client), push.jti, seconds
        new_connection = True  # with a new push: the client may have read the first (R2, R3)
