"""One attempt: check egress, mint a fresh token, POST it under one deadline, and judge what came of it.

The token lives in here alone: it is made for one POST, and neither stored, logged nor put into a result (R2).
"""

from collections.abc import Callable

from notifier.domain.backoff import Jitter
from notifier.domain.client import Algorithm, Client
from notifier.domain.delivery import Delivery
from notifier.domain.egress import check_uri
from notifier.domain.errors import OurFault
from notifier.domain.frozen import frozen, replace
from notifier.domain.logout_token import carries_sid, claims_for
from notifier.domain.outcome import (
    Answer,
    Break,
    Cause,
    DeadReason,
    Delivered,
    Failed,
    Outcome,
    Reason,
    Refused,
    StaleConnection,
    read_wire,
)
from notifier.domain.verdict import (
    Dead,
    Defer,
    Done,
    RetryAt,
    Verdict,
    decide,
    our_fault_wait,
    pause_of,
    postponed,
    record,
)
from notifier.pipeline.facts import Attempted, Observer
from notifier.pipeline.ports import Clock, Request, Signer, Transport
from notifier.pipeline.standing import Mark, mark_of

HELD = 0.9  # of a timeout, at the least, must have passed for it to be the client's


def _nothing_known(_iss: str, _alg: Algorithm) -> str | None:
    return None


@frozen
class Tools:
    """What an attempt is made with. `steady` is a clock that never jumps, not even where this process is held (see
    `awake`); `new_jti` never gives the same twice; `unpublished`, asked at a 400 alone, says why no client can verify
    what the issuer's key signs by that algorithm, where that is known.
    """

    signer: Signer
    transport: Transport
    clock: Clock
    steady: Clock
    jitter: Jitter
    new_jti: Callable[[], str]
    observe: Observer
    unpublished: Callable[[str, Algorithm], str | None] = _nothing_known


@frozen
class AttemptResult:
    """An attempt's end: the delivery with what happened written into it (as it was, if it is done), what to do next,
    and what it said of the client. `pause`: seconds for which the client asked to be left alone.
    """

    delivery: Delivery
    verdict: Verdict
    mark: Mark = Mark.NOTHING
    pause: float | None = None


async def attempt(delivery: Delivery, client: Client, tools: Tools) -> AttemptResult:
    """Try to tell the client.

    Never raises for a fault of the client's; a fault of ours (`OurFault`) becomes a deferral, and no attempt counts.
    """
    began = tools.steady()
    try:
        outcome, jti = await _try(delivery, client, tools)
    except OurFault as fault:
        return defer_for(fault, delivery, client, tools)
    if isinstance(outcome, DeadReason):
        return AttemptResult(delivery=delivery, verdict=Dead(reason=outcome, text=_WITHOUT[outcome]))
    now, seconds = tools.clock(), tools.steady() - began
    if isinstance(outcome, Delivered):  # the most usual end needs no history written, 8 µs
        verdict: Verdict = Done()
        tools.observe(_attempted(delivery, client, jti, outcome, now, seconds, verdict))
        return AttemptResult(delivery=delivery, verdict=verdict, mark=Mark.ALIVE)
    if outcome.reason is Reason.REJECTED_TOKEN:
        why = tools.unpublished(delivery.iss, client.token.alg)
        if why is not None:  # ours: every client must refuse the token, so neither an attempt nor a rejection counts
            result = defer_for(OurFault(Cause.SIGNING, f"{why}: no client can verify it"), delivery, client, tools)
            tools.observe(_attempted(delivery, client, jti, outcome, now, seconds, result.verdict))
            return replace(result, mark=mark_of(outcome))
    after = record(delivery, outcome, now - seconds)  # by one clock: its ages must not grow by a jump meanwhile
    sid = carries_sid(delivery, client)
    verdict = decide(outcome, after, client.retry, carries_sid=sid, now=now, jitter=tools.jitter)
    tools.observe(_attempted(delivery, client, jti, outcome, now, seconds, verdict))
    if isinstance(verdict, Defer):
        after = postponed(after, verdict, client, now)
    mark = Mark.NOTHING if _cut_short(outcome, seconds, client) else mark_of(outcome)
    return AttemptResult(delivery=after, verdict=verdict, mark=mark, pause=pause_of(outcome, client.retry))


def _attempted(
    delivery: Delivery, client: Client, jti: str, outcome: Outcome, at: float, seconds: float, verdict: Verdict
) -> Attempted:
    return Attempted(
        delivery=delivery,
        number=delivery.attempts + 1,
        jti=jti,
        alg=client.token.alg,
        outcome=outcome,
        seconds=seconds,
        at=at,
        next_due=verdict.due if isinstance(verdict, RetryAt | Defer) else None,
    )


def _cut_short(outcome: Outcome, seconds: float, client: Client) -> bool:
    """Whether the deadline passed while this process was held: the client had no time to answer in.

    `seconds` of a clock that stood still meanwhile. A little less than its timeout is no sign of that.
    """
    return isinstance(outcome, Failed) and outcome.reason is Reason.TIMEOUT and seconds < HELD * client.timeout


def defer_for(fault: OurFault, delivery: Delivery, client: Client, tools: Tools) -> AttemptResult:
    """The deferral for a fault of ours: looked at again after 2, 4, 8 … 256 s."""
    now = tools.clock()
    wait = our_fault_wait(delivery.deferrals) * (1 + client.retry.jitter * (2 * tools.jitter() - 1))
    verdict = Defer(due=now + wait, cause=fault.cause, text=str(fault))
    return AttemptResult(delivery=postponed(delivery, verdict, client, now), verdict=verdict)


_WITHOUT = {
    DeadReason.NO_SID: "the client must have `sid`, and the event has none",
    DeadReason.NO_SUB: "the client must have a `sub` of its own, and the event has none for it",
}


async def _try(delivery: Delivery, client: Client, tools: Tools) -> tuple[Outcome | DeadReason, str]:
    """What the attempt met and the `jti` it carried; a `DeadReason` where no token can be made for this client."""
    uri = client.backchannel_logout_uri or ""
    if (denied := check_uri(uri, client.route.egress)) is not None:
        return Refused(reason=Reason.EGRESS_DENIED, text=denied), ""
    deadline = tools.steady() + client.timeout
    new_connection = False
    while True:
        jti = tools.new_jti()
        claims = claims_for(delivery, client, now=tools.clock(), jti=jti)
        if isinstance(claims, DeadReason):
            return claims, ""
        token = tools.signer.sign(delivery.iss, client.token.alg, client.token.typ, claims)
        left = max(0.001, deadline - tools.steady())
        wire = await tools.transport.post(
            Request(uri=uri, token=token, timeout=left, route=client.route, new_connection=new_connection)
        )
        match wire:
            case Answer() | Break():
                return read_wire(wire, client.response, tools.clock()), jti
            case StaleConnection() if new_connection:
                broken = Break(reason=Reason.DISCONNECTED, ambiguous=True, text="closed before any answer")
                return read_wire(broken, client.response, tools.clock()), jti
            case StaleConnection():
                new_connection = True  # with a new token: the first may have been read (R2, R3)
