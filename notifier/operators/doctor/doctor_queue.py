"""The doctor's check of the queue: turns the state of the broker, or of the embedded queue's file, into findings.

The queue also has the pauses of clients that operators requested.
"""

import re
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence

from notifier.model.errors import NotifierError, QueueError, TopologyMismatch
from notifier.model.message import PARKED_LARGE, PolicyKey
from notifier.model.moment import Clock
from notifier.model.pauses import PauseDocument
from notifier.model.record import copy_record
from notifier.model.registry import Registry
from notifier.operators.doctor.doctor import Area, Finding, failure, ok, warning
from notifier.queues.queue_port import Queue
from notifier.queues.queue_state import BrokerState, FileState, parse_release

TESTED_VERSIONS = ((3, 10), (4, 99))  # first and last supported version of RabbitMQ
WARNING_CLOCK_OFFSET_SECONDS = 5.0
FAILING_CLOCK_OFFSET_SECONDS = 30.0  # the maximum age of a token at many receivers
MAX_LISTED_PAUSES = 20  # with separate findings


async def examine_queue(queue: Queue, where: str, registry: Registry, clock: Clock = time.time) -> Sequence[Finding]:
    """Return findings about a queue that is not open, and about its pauses. `where` is its hosts or its file."""
    try:
        state = await queue.examine()
    except QueueError as error:
        advice = "check that it runs, and check queue.url, queue.username and queue.password_file"
        return [failure(Area.QUEUE, where, str(error), advice)]
    findings = list(judge_file(state) if isinstance(state, FileState) else judge_broker(state, where))
    try:
        if not isinstance(state, FileState) or (state.fault is None and state.size is not None):
            findings += judge_pauses(await queue.register.read(), registry, clock())
    except TopologyMismatch:
        pass  # the broker's findings name the missing queue
    except NotifierError as error:
        advice = "workers keep the pauses that they have read; the runbook's NotifierPausesUnread has the remedy"
        findings.append(failure(Area.CLIENT, "pauses", str(error), advice))
    await queue.close()
    return findings


def judge_pauses(document: PauseDocument, registry: Registry, now: float) -> Iterator[Finding]:
    """Yield a warning for each client that an operator has paused, the first MAX_LISTED_PAUSES to end."""
    pauses = sorted(document.limit_ends(registry, now).in_force(now).values(), key=lambda pause: pause.until)
    for pause in pauses[:MAX_LISTED_PAUSES]:
        options = shlex.join(["--client-id", pause.client_id, "--iss", pause.iss])
        advice = f"its logouts wait; notifier resume {options} ends it"
        yield warning(Area.CLIENT, pause.client_id, f"is {pause.text}", advice)
    if more := pauses[MAX_LISTED_PAUSES:]:
        yield warning(Area.CLIENT, "pauses", f"{len(more):,} more clients are paused", "notifier pauses lists them")


def judge_broker(state: BrokerState, host: str) -> Iterator[Finding]:
    """Yield findings about the broker, and about notifier's permissions there."""
    yield _check_version(state, host)
    yield from _check_permissions(state, host)
    if state.blocked:
        text = "blocks publishing: a memory or disk alarm"
        yield failure(Area.QUEUE, host, text, "free memory or disk on it; `rabbitmq-diagnostics alarms` names the node")
    if state.keeps_expired is False:
        text = "drops messages that expire while their next queue is missing or full, so logouts can be lost"
        advice = "run `rabbitmqctl enable_feature_flag stream_queue` on one of its nodes; it takes effect at once"
        yield failure(Area.QUEUE, host, text, advice)
    yield from _check_policies(state, host)
    for difference in state.different:
        advice = "choose another queue.prefix, or stop the workers, `notifier topology delete`, and start them again"
        yield failure(Area.QUEUE, host, difference, advice)
    if state.missing:
        others = f" and {len(state.missing) - 3} more" if len(state.missing) > 3 else ""
        missing = ", ".join(state.missing[:3]) + others
        if state.declares and state.may_configure:
            advice = (
                "a worker declares it when it starts; publishers that start before it need `notifier topology declare`"
            )
            yield warning(Area.QUEUE, host, f"not declared yet: {missing}", advice)
        else:
            advice = "run `notifier topology declare` as a user that may configure it"
            is_required = any(
                f".{PARKED_LARGE}-" not in name and not name.endswith(".pauses") for name in state.missing
            )
            yield (failure if is_required else warning)(Area.QUEUE, host, f"missing: {missing}", advice)
    if not (state.missing or state.different):
        yield ok(Area.QUEUE, host, f"every queue and exchange under {state.prefix} exists with the right arguments")
    for binding in state.bindings:
        if binding.problem:
            yield warning(Area.QUEUE, host, str(copy_record(binding, advice="")), binding.advice)
        else:
            yield ok(Area.QUEUE, host, f"source {binding.binding.source} may read exchange {binding.binding.exchange}")


POLICY_EFFECTS: Mapping[PolicyKey, str] = {
    PolicyKey.OVERFLOW: "a full queue drops its oldest, and messages that expire without their next queue are lost",
    PolicyKey.MESSAGE_TTL: "an event that waits longer becomes a dead letter, and a dead letter is deleted",
    PolicyKey.MAX_LENGTH: "a full queue accepts no more, and that of the dead letters drops its oldest",
    PolicyKey.DELIVERY_LIMIT: "a dead letter that was read so often is deleted",
}


def _check_policies(state: BrokerState, host: str) -> Iterator[Finding]:
    """Yield a failure for each policy of the broker that changes notifier's queues.

    Without one, yield a finding that there is none or that the policies cannot be read; none if they were not examined.
    """
    match state.policies:
        case str(fault):
            advice = "`rabbitmqctl list_policies` and `rabbitmqctl list_operator_policies` show them"
            yield warning(Area.QUEUE, host, f"its policies are unknown: {fault}", advice)
        case ():
            text = "no policy shows on a temporary queue; `rabbitmqctl list_policies` shows a longer or larger limit"
            yield ok(Area.QUEUE, host, text)
        case tuple(keys):
            advice = (
                f"exclude {state.prefix}.* from the policy, or ask the broker's operator; `rabbitmqctl list_policies`"
            )
            for key in keys:
                yield failure(Area.QUEUE, host, f"{key.text}: {POLICY_EFFECTS[key]}", advice)


def _check_version(state: BrokerState, host: str) -> Finding:
    if TESTED_VERSIONS[0] <= parse_release(state.version) <= TESTED_VERSIONS[1]:
        return ok(Area.QUEUE, host, f"connected to RabbitMQ {state.version}")
    advice = "use RabbitMQ 3.10 to 4.x, or run all tests on it: NOTIFIER_TEST_AMQP_URL=… make test-all"
    return warning(Area.QUEUE, host, f"is version {state.version or 'unknown'}, for which this was not tested", advice)


def _check_permissions(state: BrokerState, host: str) -> Iterator[Finding]:
    """Yield a finding for each missing permission, with the command that grants it; ok if there is none."""
    prefix, declares = state.prefix, state.declares
    wanted = re.escape(prefix).replace(r"\-", "-") + r"\."
    grant = "rabbitmqctl set_permissions -p VHOST USER"
    if declares and not state.may_configure:
        advice = f"{grant} '^{wanted}' …, or declare by another user and set queue.topology: verify"
        yield failure(Area.QUEUE, host, f"the user may not configure {prefix}.*", advice)
    if not state.may_write:
        advice = f"{grant} … '^({wanted}|amq\\.default$)' …"
        yield failure(Area.QUEUE, host, "the user may not write to amq.default, which retries use", advice)
    if not state.may_read:
        yield failure(Area.QUEUE, host, f"the user may not read {prefix}.*", f"{grant} … … '^{wanted}'")
    if not declares and not state.may_announce:
        text = f"the user may not configure {prefix}.worker.*: status shows its workers as missing"
        yield warning(Area.QUEUE, host, text, rf"{grant} '^{wanted}worker(s|\..*)$' …")
    elif state.may_write and state.may_read and (state.may_configure or not declares):
        yield ok(Area.QUEUE, host, "the user has all permissions that a worker needs")


def clock_finding(subject: str, ahead: float) -> Finding:
    """Return a finding about a clock that is `ahead` seconds ahead of this machine's clock."""
    if abs(ahead) < WARNING_CLOCK_OFFSET_SECONDS:
        return ok(Area.CLOCK, subject, "its clock and ours agree")
    direction = "ahead of" if ahead > 0 else "behind"
    text = f"its clock is {abs(ahead):,.0f} s {direction} ours"
    advice = "synchronise both by NTP; a token whose iat lies in the future, or more than 30 s back, is refused"
    to_finding = failure if abs(ahead) >= FAILING_CLOCK_OFFSET_SECONDS else warning
    return to_finding(Area.CLOCK, subject, text, advice)


def judge_file(state: FileState) -> Iterator[Finding]:
    """Yield a finding about the file of the embedded queue."""
    name = str(state.path)
    if state.fault is not None:
        yield failure(Area.QUEUE, name, state.fault, "nothing can be queued until this is corrected")
    elif state.size is None:
        yield ok(Area.QUEUE, name, "does not exist yet; the first worker creates it")
    else:
        usage = "a worker uses it" if state.worker else "no worker uses it now"
        yield ok(Area.QUEUE, name, f"is intact ({state.size / 1024:,.0f} KiB); {usage}")
