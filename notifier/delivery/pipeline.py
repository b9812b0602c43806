"""Runs one delivery: admits it, attempts it, decides the verdict, and settles it. `DeliveryPipeline._run` is the order.

An admission is synchronous, so that a delivery counts from the moment at which the worker starts it. The client's slot
is free once the attempt ends, before the delivery is settled. While the queue is unavailable, the delivery stays in
memory; if its deferral becomes due meanwhile, the delivery is admitted again.
"""

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any

from notifier.delivery.admission import verdict_without_attempt
from notifier.delivery.facts import Attempted, LogoutDelivered, Unexpected
from notifier.delivery.line_and_parking import AdmittedDelivery
from notifier.delivery.ports import Channel, MessageOfDelivery, Tools
from notifier.delivery.scheduler import Scheduler
from notifier.delivery.settlement import Settlement
from notifier.delivery.verdict import (
    DONE,
    AttemptReport,
    Dead,
    Defer,
    DeliveryVerdict,
    Done,
    RetryAt,
    Verdict,
    WaitKind,
    record_deferral,
    report_attempt,
    report_fault,
)
from notifier.model.backoff import deferral_wait
from notifier.model.delivery import Delivery
from notifier.model.egress import check_uri
from notifier.model.errors import CancelledRequest, InternalFault, describe_error
from notifier.model.outcome import (
    Cause,
    Delivered,
    Failed,
    HttpResponse,
    Outcome,
    Reason,
    Refused,
    Signal,
    StaleConnection,
    TransportFailure,
)
from notifier.model.record import copy_record
from notifier.model.registry import CurrentRegistry
from notifier.queues.queue_port import WorkerQueue

NO_ANSWER = TransportFailure(reason=Reason.TIMEOUT, ambiguous=True, text="no answer")
MAX_COVERAGE_SECONDS = 60.0  # for which copies of a delivery need no attempt because of its pending retry


class DeliveryPipeline:
    """Runs deliveries, each in a task that `spawn` starts. Calls `schedule_round` when a slot may be free."""

    def __init__(
        self,
        tools: Tools,
        registry: CurrentRegistry,
        queue: WorkerQueue,
        scheduler: Scheduler,
        spawn: Callable[[Coroutine[object, object, None]], asyncio.Task[None]],
        schedule_round: Callable[[], None],
    ) -> None:
        self._tools = tools
        self._registry = registry
        self._scheduler = scheduler
        self._spawn = spawn
        self._schedule_round = schedule_round
        self._making_room = False  # deliveries are being deferred because memory is full
        self.settlement = Settlement(queue, clock=tools.clock, observe=tools.observe)

    def start(self, message: MessageOfDelivery, delivery: Delivery, *, fetched: bool = False) -> bool:
        """Admit the delivery and run it in a task. Returns False if it is parked without an attempt."""
        if delivery.progress.parked:
            self.settlement.parked.add(delivery.key, -1)
        admitted = self._admit(message, delivery, fetched=fetched)
        task = self._spawn(self._run(message, delivery, admitted))
        if isinstance(admitted, AdmittedDelivery):
            admitted.task = task
            return True
        verdict = admitted[1]
        return not isinstance(verdict, Defer) or verdict.wait_kind is not WaitKind.PARKED

    def make_room(self) -> None:
        """Defer the deliveries that would wait longest in memory, unless such deferrals are under way."""
        if not self._making_room:
            for admitted, deferral in self._scheduler.free_memory():
                self._making_room = True
                admitted.wake(deferral)

    async def _run(
        self, message: MessageOfDelivery, delivery: Delivery, admitted: AdmittedDelivery | DeliveryVerdict
    ) -> None:
        """Attempt the delivery if it was admitted, make the verdict durable, and settle the delivery.

        Until `covers_copies_until`, copies of the delivery need no attempt: the retry or the success stands for them.
        """
        while True:
            after, verdict = await self._attempt(admitted) if isinstance(admitted, AdmittedDelivery) else admitted
            if isinstance(verdict, Done):  # nearly always
                covers_copies_until: float | None = math.inf
                break
            decided_at, covers_copies_until = self._tools.monotonic(), None
            if not isinstance(verdict, Dead):  # counted from now, since the retry may return before its confirm
                wait, only_worker = verdict.due - self._tools.clock(), self._scheduler.slots.worker_count() == 1
                covers_copies_until = decided_at + coverage_seconds(wait, only_worker=only_worker)
            if await self.settlement.settle(after, verdict, message):
                break
            # The deferral is due, and the queue has not taken it: admit the delivery again.
            self._making_room = False
            progress = delivery.progress.after_lost_deferral(after.progress, self._tools.monotonic() - decided_at)
            delivery = copy_record(delivery, progress=progress)
            admitted = self._admit(message, delivery)
            if isinstance(admitted, AdmittedDelivery):
                admitted.task = asyncio.current_task()
        self._making_room = False
        for copy_message, copy in message.on_delivery_settled(delivery, covers_copies_until=covers_copies_until):
            self.start(copy_message, copy)
        if not isinstance(verdict, RetryAt | Defer):
            return
        if verdict.wait_kind is WaitKind.PARKED:
            self.settlement.parked.add(delivery.key, +1, self._scheduler.slots.worker_count(assumed=1))
            self._scheduler.deferrals.on_parked(delivery.key)
        elif verdict.wait_kind is WaitKind.PROBE:
            self._scheduler.deferrals.on_probe_durable(delivery.key, delivery.id)

    def _admit(
        self, message: MessageOfDelivery, delivery: Delivery, *, fetched: bool = False
    ) -> AdmittedDelivery | DeliveryVerdict:
        """Return the delivery as admitted if it is to be attempted, now or later; otherwise the verdict on it."""
        registry, pauses = self._registry(), self._tools.pauses
        client = registry.client_of(delivery)
        client_or_default = client or registry.default_of(delivery.iss)
        now = self._tools.clock()
        if client is not None and client.channel is not None and delivery.progress.first_taken_at is None:
            # Its requests may have this time, which must not change.
            delivery = copy_record(delivery, progress=delivery.progress.after_take(now))
        verdict: Verdict | None = None
        pause = pauses.in_force.get(client.key) if pauses.in_force and client is not None else None
        may_be_expired = delivery.progress.first_taken_at is not None or delivery.not_after is not None
        if may_be_expired or pause is not None or client is None or client.paused or client.logout_uri is None:
            verdict = verdict_without_attempt(delivery, client, client_or_default, registry, now, pause)
            if delivery.progress.probe_due is not None and isinstance(verdict, Dead):
                self._scheduler.deferrals.on_probe_lost(delivery.key)
        if verdict is None and client is not None:
            answer = self._scheduler.admit(delivery, client, message.lane, fetched=fetched)
            if isinstance(answer, AdmittedDelivery):
                if answer.is_waiting:
                    answer.wake_future = asyncio.get_running_loop().create_future()
                return answer
            delivery, verdict = answer
        if isinstance(verdict, Defer):
            delivery = record_deferral(delivery, verdict, client_or_default.retry, now)
        assert verdict is not None
        return delivery, verdict

    async def _attempt(self, admitted: AdmittedDelivery) -> DeliveryVerdict:
        """Wait for a slot if necessary, attempt the delivery, and return the delivery after it with its verdict."""
        delivery, client, pauses = admitted.delivery, admitted.client, self._tools.pauses
        if admitted.wake_future is not None and (defer := await admitted.wake_future) is not None:
            return record_deferral(delivery, defer, client.retry, self._tools.clock()), defer
        try:
            if self._tools.clock() >= pauses.outdated_at:
                await pauses.refresh()
            if not pauses.in_force or (pause := pauses.in_force.get(client.key)) is None:
                report = await attempt(admitted, self._tools)
            else:  # paused while the delivery waited
                report = report_fault(InternalFault(Cause.PAUSED, pause.text), delivery)
        except asyncio.CancelledError:
            cancelled = report_fault(InternalFault(Cause.UNKNOWN, "the attempt was cancelled"), delivery)
            self._scheduler.on_ended(admitted, cancelled, is_cancelled=True)
            raise
        except Exception as error:  # noqa: BLE001  around one delivery: an internal error must not stop the others
            report = self._report_unexpected(admitted, error)
        self._scheduler.on_ended(admitted, report)
        after, fact = delivery, report.fact
        verdict: Verdict = DONE
        if not isinstance(report.outcome, Delivered):  # rarely
            after, verdict = self._decide(admitted, report)
            if fact is not None and isinstance(verdict, RetryAt | Defer):
                fact = copy_record(fact, next_due=verdict.due)
        if fact is not None:
            self._tools.observe(fact)
        self._schedule_round()
        return after, verdict

    def _decide(self, admitted: AdmittedDelivery, report: AttemptReport) -> DeliveryVerdict:
        """Return the verdict on an attempt that was not successful: a deferral after an internal error."""
        try:
            return self._scheduler.deferrals.decide_verdict(admitted, report)
        except Exception as error:  # noqa: BLE001  as around the attempt
            return self._scheduler.deferrals.decide_verdict(admitted, self._report_unexpected(admitted, error))

    def _report_unexpected(self, admitted: AdmittedDelivery, error: Exception) -> AttemptReport:
        """Report an internal error, and return the report of an attempt that it prevented."""
        iss, client_id = admitted.client.key
        self._tools.observe(Unexpected(iss=iss, client_id=client_id, event_id=admitted.delivery.event_id, error=error))
        return report_fault(InternalFault(Cause.UNKNOWN, f"unexpected: {describe_error(error)}"), admitted.delivery)


async def attempt(admitted: AdmittedDelivery, tools: Tools) -> AttemptReport:
    """Send one request to the client, and return the report of the attempt."""
    delivery, client = admitted.delivery, admitted.client
    channel = tools.channels[client.channel_kind]
    try:
        sent = await _post(channel, admitted, tools)
    except InternalFault as fault:
        return report_fault(fault, delivery)
    if isinstance(sent, Dead):
        return AttemptReport(before=delivery, after=delivery, outcome=sent)
    outcome, jti, seconds = sent
    now = tools.clock()
    members: dict[str, Any] = {
        "delivery": delivery, "number": delivery.progress.attempts + 1, "jti": jti, "alg": client.token.alg,
        "outcome": outcome, "seconds": seconds, "at": now,
    }  # fmt: skip
    if isinstance(outcome, Delivered):  # nearly always; no history is written, which would take 8 µs
        propagation = None if delivery.ended_at is None else max(0.0, now - delivery.ended_at)
        success = LogoutDelivered(**members, propagation=propagation)
        return AttemptReport(before=delivery, after=delivery, outcome=outcome, signal=Signal.RESPONSIVE, fact=success)
    fact = Attempted(**members)
    is_proxy = outcome.reason is Reason.PROXY
    internal_fault = InternalFault(Cause.PROXY, outcome.text) if is_proxy else channel.internal_fault(outcome, client)
    if internal_fault is None:
        return report_attempt(delivery, client, fact)
    if isinstance(outcome, Failed) and outcome.ended_early:
        delivery = copy_record(delivery, progress=copy_record(delivery.progress, ended_early=True))
    return copy_record(report_fault(internal_fault, delivery), signal=outcome.signal, fact=fact)


async def _post(channel: Channel, admitted: AdmittedDelivery, tools: Tools) -> tuple[Outcome, str, float] | Dead:
    """Send the request, and return (outcome, `jti` of the token, seconds of the request without signing).

    Returns `Dead` if nothing can be sent to this client. Raises InternalFault. A request on a kept-alive connection
    that turns out to be closed is repeated once on a new connection, and a request whose access token is refused once
    with a new one. An attempt that is ended early means what its timeout would have meant then.
    """
    client = admitted.client
    if client.route.withheld is not None:
        raise InternalFault(Cause.ORIGIN, client.route.withheld)
    uri = client.logout_uri or ""
    if (egress_problem := check_uri(uri, client.route.egress)) is not None:
        return Refused(reason=Reason.EGRESS_DENIED, text=egress_problem), "", 0.0
    seconds, timeout, new_connection, may_renew = 0.0, client.timeout, False, True

    def on_begin() -> None:
        admitted.posted_at = tools.monotonic()

    while True:
        push = await channel.prepare(admitted.delivery, client)
        if isinstance(push, Dead):
            return push
        admitted.posted_at = tools.monotonic()
        request = push.to_request(
            client, uri, timeout, new_connection=new_connection, delivery=admitted.delivery, on_begin=on_begin
        )
        try:
            response = await tools.transport.post(request)
        except asyncio.CancelledError as cancelled:
            if not admitted.take_early_end():
                raise
            seconds += tools.monotonic() - admitted.posted_at
            meaning = cancelled.meaning if isinstance(cancelled, CancelledRequest) else NO_ANSWER
            if isinstance(meaning, InternalFault):
                raise meaning from None
            within = f"within {seconds:.1f} s of {client.timeout:g} s"
            text = f"{meaning.text} {within}; ended since other clients needed the slot"
            return channel.read(copy_record(meaning, text=text, ended_early=True), client), push.jti, seconds
        seconds += tools.monotonic() - admitted.posted_at
        if push.renew is not None and may_renew and isinstance(response, HttpResponse) and response.status == 401:
            may_renew = False
            push.renew()
        elif not isinstance(response, StaleConnection):
            return channel.read(response, client), push.jti, seconds
        elif new_connection:
            disconnected = TransportFailure(reason=Reason.DISCONNECTED, ambiguous=True, text="closed before any answer")
            return channel.read(disconnected, client), push.jti, seconds
        else:
            new_connection = True  # the repetition has a new token, since the client may have read the first (R2, R3)
        admitted.posted_at, timeout = math.inf, max(0.001, client.timeout - seconds)


def coverage_seconds(wait: float, *, only_worker: bool = False) -> float:
    """Return for how many seconds copies of a delivery need no attempt, if its retry is due after `wait` seconds.

    They need none until the retry leaves its first delay queue, since another worker may then receive it, and for a
    minute at most. With `only_worker` they need none for a minute.
    """
    return MAX_COVERAGE_SECONDS if only_worker else min(MAX_COVERAGE_SECONDS, deferral_wait(wait))
