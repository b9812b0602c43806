"""Makes one attempt: checks egress, has the channel make a push, sends it under one deadline and judges the outcome."""

from notifier.delivery.facts import Attempted, LogoutDelivered, Observer
from notifier.delivery.known_client import Mark, mark_of
from notifier.delivery.ports import Channel, Transport
from notifier.delivery.verdict import (
    DONE,
    Dead,
    Defer,
    RetryAt,
    Verdict,
    decide,
    our_fault_wait,
    pause_of,
    postponed,
    record,
)
from notifier.model.backoff import Jitter
from notifier.model.client import Client
from notifier.model.delivery import Delivery
from notifier.model.egress import check_uri
from notifier.model.errors import OurFault
from notifier.model.frozen import frozen, replace
from notifier.model.moment import Clock
from notifier.model.outcome import Answer, Break, Cause, Delivered, Failed, Outcome, Reason, Refused, StaleConnection
from notifier.model.request import Request

LEAST_OF_TIMEOUT = 0.9  # of a client's timeout must have passed, or the timeout is not the client's fault


@frozen
class Tools:
    """What an attempt is made with.

    `steady` is a clock that never jumps, and stops while the process is suspended (see `awake`).
    """

    channel: Channel
    transport: Transport
    clock: Clock
    steady: Clock
    jitter: Jitter
    observe: Observer


@frozen
class Judgement:
    """How an attempt ended: the delivery after it, what to do next, and what it says of the client.

    The delivery is unchanged if it is done. `pause`: seconds for which the client asked not to be called. `asked`: the
    client said when this delivery is to come again. `fact` tells what happened, but not yet what follows; None if no
    request was sent.
    """

    delivery: Delivery
    verdict: Verdict
    mark: Mark = Mark.NOTHING
    pause: float | None = None
    asked: bool = False
    fact: Attempted | None = None

    def complete_fact(self) -> Attempted | None:
        """Return `fact` with the moment of the next attempt."""
        if self.verdict is DONE:
            return self.fact
        due = self.verdict.due if isinstance(self.verdict, (RetryAt, Defer)) else None
        return self.fact if self.fact is None or due is None else replace(self.fact, next_due=due)


async def attempt(delivery: Delivery, client: Client, tools: Tools) -> Judgement:
    """Try to tell the client.

    Never raises for a fault of the client's. A fault of ours (`OurFault`) becomes a deferral, and no attempt counts.
    """
    began = tools.steady()
    try:
        outcome, jti = await _try(delivery, client, tools)
    except OurFault as fault:
        return defer_for(fault, delivery, client, tools)
    if isinstance(outcome, Dead):
        return Judgement(delivery=delivery, verdict=outcome)
    now, seconds = tools.clock(), tools.steady() - began
    if isinstance(outcome, Delivered):  # the usual end: no history is written, which would take 8 µs
        success = _delivered(delivery, client, jti, outcome, now, seconds)
        return Judgement(delivery=delivery, verdict=DONE, mark=Mark.ALIVE, fact=success)
    fact = _attempted(delivery, client, jti, outcome, now, seconds)
    if (our_fault := tools.channel.our_fault(outcome, client)) is not None:  # neither an attempt nor a rejection counts
        result = defer_for(our_fault, delivery, client, tools)
        return replace(result, mark=mark_of(outcome), fact=fact)
    after = record(delivery, outcome, now - seconds, seconds)  # by one clock: a jump meanwhile must not add to its age
    sid = tools.channel.names_session(delivery, client)
    verdict = decide(outcome, after, client.retry, carries_sid=sid, now=now, jitter=tools.jitter)
    if isinstance(verdict, Defer):
        after = postponed(after, verdict, client.retry, now)
    mark = Mark.NOTHING if _cut_short(outcome, seconds, client) else mark_of(outcome)
    pause = pause_of(outcome, client.retry)
    asked = isinstance(outcome, Failed) and outcome.retry_after is not None
    if asked:
        after = replace(after, asked=True)
    return Judgement(delivery=after, verdict=verdict, mark=mark, pause=pause, asked=asked, fact=fact)


def _attempted(delivery: Delivery, client: Client, jti: str, outcome: Outcome, at: float, seconds: float) -> Attempted:
    return Attempted(
        delivery=delivery,
        number=delivery.attempts + 1,
        jti=jti,
        alg=client.token.alg,
        outcome=outcome,
        seconds=seconds,
        at=at,
    )


def _delivered(
    delivery: Delivery, client: Client, jti: str, outcome: Outcome, at: float, seconds: float
) -> LogoutDelivered:
    ended = delivery.ended_at
    return LogoutDelivered(
        delivery=delivery,
        number=delivery.attempts + 1,
        jti=jti,
        alg=client.token.alg,
        outcome=outcome,
        seconds=seconds,
        at=at,
        propagation=None if ended is None else max(0.0, at - ended),
    )


def _cut_short(outcome: Outcome, seconds: float, client: Client) -> bool:
    """Return True if the deadline passed while this process was suspended, so that the client had no time to answer.

    `seconds` are of a clock that stopped meanwhile.
    """
    return outcome.reason is Reason.TIMEOUT and seconds < LEAST_OF_TIMEOUT * client.timeout


def defer_for(fault: OurFault, delivery: Delivery, client: Client, tools: Tools) -> Judgement:
    """Put the delivery off for a fault of ours: for 2, 4, 8 … 256 s."""
    now = tools.clock()
    wait = our_fault_wait(delivery.deferrals) * (1 + client.retry.jitter * (2 * tools.jitter() - 1))
    verdict = Defer(due=now + wait, cause=fault.cause, text=str(fault))
    return Judgement(delivery=postponed(delivery, verdict, client.retry, now), verdict=verdict)


async def _try(delivery: Delivery, client: Client, tools: Tools) -> tuple[Outcome | Dead, str]:
    """Return the outcome and the `jti` that was sent; `Dead` if nothing can be sent to this client."""
    channel = tools.channel.of(client)
    if client.route.withheld is not None:
        raise OurFault(Cause.ORIGIN, client.route.withheld)
    uri = channel.uri(client)
    if (denied := check_uri(uri, client.route.egress)) is not None:
        return Refused(reason=Reason.EGRESS_DENIED, text=denied), ""
    time_left, new_connection = client.timeout, False
    while True:
        push = await channel.prepare(delivery, client)
        if isinstance(push, Dead):
            return push, ""
        began = tools.steady()  # what signs the token has a time limit of its own
        wire = await tools.transport.post(
            Request(
                uri=push.uri or uri,
                body=push.body,
                secret=push.secret,
                timeout=max(0.001, time_left),
                route=client.route,
                new_connection=new_connection,
                client=client,
            )
        )
        match wire:
            case Answer() | Break():
                return channel.read(wire, client), push.jti
            case StaleConnection() if new_connection:
                broken = Break(reason=Reason.DISCONNECTED, ambiguous=True, text="closed before any answer")
                return channel.read(broken, client), push.jti
            case StaleConnection():
                time_left -= tools.steady() - began
                new_connection = True  # with a new push: the client may have read the first (R2, R3)
