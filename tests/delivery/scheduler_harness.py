"""A harness for the scheduler: the scheduler, its clock, and the running attempts by client."""

import dataclasses
import itertools
from typing import Any

from notifier.delivery.channels import BackChannel
from notifier.delivery.client_state import Admission
from notifier.delivery.facts import Attempted, Fact
from notifier.delivery.line_and_parking import AdmittedDelivery
from notifier.delivery.ports import Tools
from notifier.delivery.scheduler import Scheduler
from notifier.delivery.slots import Slots
from notifier.delivery.verdict import DONE, AttemptReport, Defer, DeliveryVerdict, RetryAt, report_attempt
from notifier.model.client import Client, ClientKey
from notifier.model.delivery import Delivery
from notifier.model.message import Lane
from notifier.model.outcome import Delivered, Failed, Outcome, Reason, Signal
from tests.delivery.worker_harness import Others, PlainSigner, Receivers, client
from tests.support.deliveries import replace
from tests.support.no_pauses import NoPauses

SIZE = 64
AHEAD = 1_800_000_000.0  # seconds from the monotonic clock to the wall clock


class SchedulerHarness:
    """`fill` is the filled share of the prefetch of events. `proven`: clients at their full concurrency limit."""

    def __init__(
        self, size: int = SIZE, *, proven: tuple[str, ...] = (), fill: float = 0.0, workers: int = 1, **members: Any
    ) -> None:
        self.now, self.ahead, self.fill, self.yielding_seconds = 1000.0, AHEAD, fill, 0.0
        self.members = {"max_concurrent": 32} | members
        self.in_memory = dict.fromkeys(Lane, 0)
        self.facts: list[Fact] = []
        self.others = others = Others(workers)
        self.reports = others.reports
        channel = BackChannel(PlainSigner(), clock=self.wall, new_jti=str)
        self.tools = Tools(
            channels=dict.fromkeys(("back_channel", "front_channel"), channel),
            transport=Receivers(),
            clock=self.wall,
            monotonic=lambda: self.now,
            jitter=lambda: 0.5,
            observe=self.facts.append,
            pauses=NoPauses(),
        )
        slots = Slots(
            self.tools, others, size, self.in_memory,
            started_share=lambda: self.fill, yielding_seconds=lambda: self.yielding_seconds,
        )  # fmt: skip
        self.scheduler = Scheduler(self.tools, slots, others)
        self.running: dict[str, list[AdmittedDelivery]] = {}
        self._numbers = itertools.count()
        for name in proven:
            self.prove(name)

    def prove(self, name: str) -> None:
        """Make the client reach its concurrency limit."""
        for _ in range(40):
            assert self.ask(name) is Admission.START
            self.end(name)

    def wall(self) -> float:
        """The wall clock."""
        return self.now + self.ahead

    def offer(self, name: str, lane: Lane = Lane.EVENTS, *, fetched: bool = False, **members: Any) -> AdmittedDelivery:
        """Return a delivery for this client, by default a fresh one."""
        iss, client_id = self.key(name)
        delivery = Delivery(
            id=f"d{next(self._numbers)}", event_id="e", id_given=True, iss=iss, client_id=client_id, sub="s", sid="s"
        )
        return AdmittedDelivery(
            delivery=replace(delivery, **members), client=self.client(name), lane=lane, fetched=fetched
        )

    def client(self, name: str) -> Client:
        """Return a client with the members of this harness."""
        return client(name, **self.members)

    def ask(self, name: str, lane: Lane = Lane.EVENTS, **more: Any) -> Admission | Defer:
        """Return whether a delivery may start."""
        answer = self.ask_for(self.offer(name, lane, **more))
        if not isinstance(answer, AdmittedDelivery):
            return answer[1]
        return Admission.WAIT if answer.is_waiting else Admission.START

    def ask_for(self, asked: AdmittedDelivery) -> AdmittedDelivery | tuple[Delivery, Defer]:
        """Admit this delivery, and start it if there is room. Return the scheduler's answer."""
        answer = self.scheduler.admit(asked.delivery, asked.client, asked.lane, fetched=asked.fetched)
        if isinstance(answer, AdmittedDelivery) and not answer.is_waiting:
            self._begins(answer)
        return answer

    def deferred(self, asked: AdmittedDelivery) -> tuple[Delivery, Defer]:
        """Assert that the delivery is deferred."""
        answer = self.ask_for(asked)
        assert not isinstance(answer, AdmittedDelivery)
        return answer

    def waits(self, asked: AdmittedDelivery) -> AdmittedDelivery:
        """Assert that the delivery waits in memory."""
        answer = self.ask_for(asked)
        assert isinstance(answer, AdmittedDelivery)
        assert answer.is_waiting
        return answer

    def put_off(self, name: str, **more: Any) -> Defer:
        """Offer a delivery and defer it."""
        answer = self.ask(name, **more)
        assert isinstance(answer, Defer)
        return answer

    def _begins(self, admitted: AdmittedDelivery) -> None:
        self.running.setdefault(admitted.client.client_id, []).append(admitted)
        admitted.posted_at = self.now

    def end(self, name: str, outcome: Outcome | None = None) -> DeliveryVerdict:
        """End the last started attempt with this outcome, by default a success. Return the delivery and its verdict."""
        admitted = self.running[name].pop()
        delivery = admitted.delivery
        outcome = outcome or Delivered(status=204)
        report = AttemptReport(before=delivery, after=delivery, outcome=outcome, signal=Signal.RESPONSIVE)
        if isinstance(outcome, Failed):
            fact = Attempted(delivery=delivery, number=1, jti="", alg="", outcome=outcome, seconds=0.0, at=self.wall())
            report = report_attempt(delivery, dataclasses.replace(admitted.client, timeout=0.0), fact)
        self.scheduler.on_ended(admitted, report)
        answer: DeliveryVerdict = delivery, DONE
        if not isinstance(outcome, Delivered):
            answer = self.scheduler.deferrals.decide_verdict(admitted, report)
        self._start_waiting()
        return answer

    def fails(self, name: str, outcome: Outcome | None = None, **more: Any) -> tuple[RetryAt, Delivery]:
        """Start and fail an attempt. Return the verdict, and the delivery after it."""
        assert self.ask(name, **more) is Admission.START
        after, verdict = self.end(name, outcome or Failed(reason=Reason.SERVER_ERROR, status=503))
        assert isinstance(verdict, RetryAt)
        return verdict, after

    def as_many_as_run(self, name: str) -> int:
        """Start deliveries until the scheduler refuses, and return the count."""
        count = 0
        while self.ask(name) is Admission.START:
            count += 1
        return count

    def burst(self, name: str) -> int:
        """Start and end deliveries until the scheduler refuses, and return the count."""
        count = 0
        while self.ask(name) is Admission.START:
            self.end(name)
            count += 1
        return count

    def tick(self) -> list[tuple[AdmittedDelivery, Defer]]:
        """Call the periodic step of the scheduler, as the worker does many times a second."""
        deferred = list(self.scheduler.defer_without_slot())
        self._start_waiting()
        return deferred

    def _start_waiting(self) -> None:
        """Start deliveries in memory, as the worker does in rounds of the event loop."""
        while self.scheduler.start_turns:
            for begun in self.scheduler.start_waiting():
                self._begins(begun)

    @staticmethod
    def key(name: str) -> ClientKey:
        """The client's key."""
        return client(name).key
