"""Makes one attempt at an available client, and decides its verdict."""

from typing import NamedTuple

from notifier.delivery import pipeline
from notifier.delivery.facts import Attempted
from notifier.delivery.line_and_parking import AdmittedDelivery
from notifier.delivery.ports import Tools
from notifier.delivery.verdict import Standing, Verdict, decide
from notifier.model.delivery import Delivery


class DecidedAttempt(NamedTuple):
    """The delivery after an attempt, its verdict, and the fact that reports the attempt."""

    delivery: Delivery
    verdict: Verdict
    fact: Attempted | None


async def attempt(ticket: AdmittedDelivery, tools: Tools) -> DecidedAttempt:
    """Make one attempt, and return its result."""
    report = await pipeline.attempt(ticket, tools)
    return DecidedAttempt(*decide(report, ticket.client, Standing(), tools.clock(), tools.jitter), report.fact)
