"""Defines the common part of the channels: signatures by the issuer's keys, and how responses are read."""

import math
from collections.abc import Collection

from notifier.delivery.ports import ChannelTools
from notifier.delivery.verdict import Dead
from notifier.features.channels.subjects import SubjectRule, build_subject
from notifier.model.client import Client
from notifier.model.delivery import Delivery
from notifier.model.errors import InternalFault
from notifier.model.outcome import (
    Cause,
    DeadReason,
    Delivered,
    HttpResponse,
    Outcome,
    Reason,
    Refused,
    TransportFailure,
    to_outcome,
)
from notifier.model.record import copy_record


class SignedChannel:
    """A channel whose requests the issuer's keys may sign. `successes`: the statuses that mean success."""

    successes: Collection[int] = ()

    def __init__(self, tools: ChannelTools) -> None:
        self._tools = tools

    def read(self, result: HttpResponse | TransportFailure, client: Client) -> Outcome:
        """Return the outcome of a response. The client's `success_statuses` and `retry_statuses` come first.

        A success of another status is refused, because a page at a wrong address has it, too.
        """
        outcome = to_outcome(result, client.response, self._tools.clock())
        match outcome:
            case Delivered(status=status) if status in (*client.response.success_statuses, *self._successes_at(client)):
                return outcome
            case Delivered(status=status):
                text = f"it means no success here; if it does, add {status} to success_statuses"
                answered = f"{text}; its answer: {outcome.text}" if outcome.text else text
                return Refused(reason=Reason.REFUSED, status=status, text=answered)
            case Refused() if isinstance(result, HttpResponse):
                return self._read_refusal(outcome, result, client)
            case _:
                return outcome

    def _successes_at(self, client: Client) -> Collection[int]:  # noqa: ARG002
        return self.successes

    def _read_refusal(self, refusal: Refused, response: HttpResponse, client: Client) -> Outcome:
        """Return the outcome of a response that is no success."""
        raise NotImplementedError

    def internal_fault(self, outcome: Outcome, client: Client) -> InternalFault | None:
        """Return the internal fault that explains why the client rejected a signature; None if none is known."""
        if outcome.reason is not Reason.REJECTED_TOKEN or client.channel is None or not client.channel.signed:
            return None
        problem = self._tools.unverifiable(client)
        return None if problem is None else InternalFault(Cause.SIGNING, problem)

    def _subject(self, rule: SubjectRule, delivery: Delivery, client: Client) -> dict[str, object] | Dead:
        """Return the identifier of the user, or Dead if the event lacks a value of the rule.

        Dead, too, if only one session ended, and the request would end all of the user's. Such a delivery was planned
        before its client was known, or for another channel.
        """
        subject = build_subject(rule, delivery, client)
        if isinstance(subject, Dead) or delivery.sid is None or client.channel is None or not client.channel.ends_all:
            return subject
        text = "one session ended, and the client's channel would end all sessions of the user (sessions: true permits)"
        return Dead(reason=DeadReason.SESSION_ONLY, text=text)

    def _issued_at(self) -> int:
        """Return the present time, rounded down: never in the future (R10)."""
        return math.floor(self._tools.clock())

    async def _sign(self, delivery: Delivery, client: Client, typ: str, claims: dict[str, object]) -> tuple[str, str]:
        """Return a JWT with these claims and a new `jti`, and the `jti` (R2). Raises InternalFault."""
        jti = self._tools.new_jti()
        token = await self._tools.signer.sign(delivery.iss, client.token.alg, typ, {**claims, "jti": jti})
        return token, jti


def judge(refusal: Refused, *, retried: bool) -> Refused:
    """Return the refusal as a rejected signature, which is `retried` a few times (R12), or as final."""
    if retried:
        return copy_record(refusal, reason=Reason.REJECTED_TOKEN)
    return copy_record(refusal, reason=Reason.REFUSED) if refusal.reason is Reason.REJECTED_TOKEN else refusal
