"""Defines the common part of the channels: the user's name, signatures by the issuer's keys, and reading of responses.

The user's name is a subject identifier (RFC 9493), built from the values of a delivery. Receivers differ in more than
the format: one has other names for the members, another has the name of an attribute as the format. So a rule is the
identifier itself, with names in braces. The formats of the RFC are rules that have a name.
"""

import math
import re
from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType
from typing import TypeAlias

from notifier.delivery.ports import ChannelTools
from notifier.delivery.verdict import Dead
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

SubjectRule: TypeAlias = Mapping[str, str]
FORMATS: Mapping[str, SubjectRule] = {
    "iss_sub": {"format": "iss_sub", "iss": "{iss}", "sub": "{sub}"},
    "email": {"format": "email", "email": "{email}"},
    "opaque": {"format": "opaque", "id": "{sub}"},
}
_NAMES = ("iss", "sub", "email")
_BRACES = re.compile(r"\{([^{}]*)\}")
_ADDRESS = re.compile(r"[^@\s]+@[^@\s]+")
_EXAMPLE = 'an identifier such as {format: iss_sub, iss: "{iss}", sub: "{sub}"}'
_NO_SUB = Dead(reason=DeadReason.NO_SUB, text="the client knows users by `sub`, and the event has none for it")
_BY_EMAIL = "the client knows users by e-mail address, and"


def parse_rule(value: object) -> SubjectRule:
    """Return the rule of a format's name, or the identifier itself. Raises ValueError with the remedy."""
    if isinstance(value, str) and value in FORMATS:
        return FORMATS[value]
    members = dict(value) if isinstance(value, Mapping) else {}
    if not members or not all(isinstance(text, str) for pair in members.items() for text in pair):
        raise ValueError(f"must be {', '.join(FORMATS)}, or {_EXAMPLE}")
    if not members.get("format") or "{" in members["format"]:
        raise ValueError(f"needs a format without braces, as {_EXAMPLE}")
    names = set(names_in(members))
    if not names <= {*_NAMES} or any({*"{}"} & {*_BRACES.sub("", text)} for text in members.values()):
        raise ValueError(f"may have {', '.join(f'{{{name}}}' for name in _NAMES)} in its texts, and no other braces")
    if not names & {"sub", "email"}:
        raise ValueError("must name the user by {sub} or {email}")
    return MappingProxyType(members)


def names_in(rule: SubjectRule) -> Iterator[str]:
    """Yield the names in braces."""
    for text in rule.values():
        yield from _BRACES.findall(text)


def build_subject(rule: SubjectRule, delivery: Delivery, client: Client) -> dict[str, object] | Dead:
    """Return the identifier of the user, or Dead if the event lacks a value of the rule.

    A pairwise client receives only the `sub` of its own entry, as in a logout token (B7).
    """
    sub = delivery.sub if delivery.entry_sub or not client.pairwise else None
    values = {"iss": delivery.iss, "sub": sub, "email": delivery.email}
    for name in names_in(rule):
        value = values[name]
        if not value or (name == "email" and _ADDRESS.fullmatch(value) is None):
            return _NO_SUB if name == "sub" else _describe_email(delivery)
    return {member: _BRACES.sub(lambda name: values[name[1]] or "", text) for member, text in rule.items()}


def _describe_email(delivery: Delivery) -> Dead:
    """Return why there is no usable `email`. Whether the event had one that does not count is in the log only."""
    if delivery.email:
        text = f"{_BY_EMAIL} the event's `email` is not valid: an address has one `@` and no spaces"
    else:
        publisher = "an unnamed publisher" if delivery.publisher is None else f"publisher {delivery.publisher!a}"
        text = f"{_BY_EMAIL} the event has none that counts: it is missing, or {publisher} is not one whose `email`"
        text += " counts (issuers.<iss>.publishers, registry.inline; log members_ignored)"
    return Dead(reason=DeadReason.NO_EMAIL, text=text)


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
