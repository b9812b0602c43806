"""The doctor's findings from the workers that run: what is wrong at them, and how each client answers them.

A client that accepts connections may answer 400 to all tokens, or hang. Only a worker that sends it tokens knows.
"""

from collections.abc import Container, Iterator, Mapping

from notifier.model.durations import in_words
from notifier.model.printable import counted
from notifier.model.trouble import MILD
from notifier.operators.doctor.doctor import Area, Finding, Severity, failed, ok, warning
from notifier.operators.status.client_state import ClientState
from notifier.operators.status.service_status import ServiceStatus, troubles_of

MOST_OTHERS = 20  # clients
LATELY = 900.0  # seconds for which a failure is one of now

Met = Mapping[tuple[str, str], ClientState]
"""How each client fares at the workers, by issuer and `client_id`."""


def judge_workers(status: ServiceStatus, examined: Container[tuple[str, str]], now: float) -> Iterator[Finding]:
    """Yield findings about the workers, and all that they say is wrong. `examined`: clients of other checks."""
    answered, there = len(status.workers), max(status.seen, len(status.workers))
    if answered == there:
        text = (
            f"{answered} of {counted(there, 'worker')} answered"
            if there
            else "none runs now; its state cannot be asked"
        )
        yield ok(Area.WORKER, "workers", text)
    else:
        why = ", since the queue takes no message" if status.blocked else ""
        text = f"{there - answered} of {counted(there, 'worker')} did not answer{why}; what they met is missing here"
        advice = "look whether they are busy or of an older release"
        yield warning(Area.WORKER, "workers", text, advice)
    for shared in troubles_of(status):
        trouble = shared.trouble
        whom = " ".join(filter(None, (trouble.client_id, trouble.iss or trouble.subject)))
        advice = f"notifier explain {trouble.explained}" if trouble.explained else "see the log of the worker"
        judged = warning if trouble.kind in MILD else failed
        yield judged(Area.WORKER, f"{trouble.kind.replace('_', ' ')} {whom}".strip(), trouble.text, advice)
    unexamined = [
        client for client in status.clients if client.circuit and (client.iss, client.client_id) not in examined
    ]
    for client in unexamined[:MOST_OTHERS]:
        text = f"is down, and this configuration does not have it; a worker met {_words(client, now)}"
        yield warning(
            Area.WORKER, f"{client.client_id} ({client.iss})", text, "compare the workers' configuration with this"
        )


def judge_met(subject: str, met: ClientState, origin: str, now: float) -> Finding:
    """Return the finding about a client that accepts connections and is not well."""
    if met.state == "put_off":
        text = f"{origin} takes connections, but its deliveries are put off ({met.waits_for})"
        return warning(Area.CLIENT, subject, text, f"notifier explain {met.waits_for}")
    last = met.last_failure
    text = f"{origin} takes connections, but a worker met {_words(met, now)}"
    level = Severity.FAILED if met.circuit or (last is not None and now - last < LATELY) else Severity.WARNING
    advice = f"notifier explain {met.reason or 'NotifierClientFailing'}"
    return Finding(area=Area.CLIENT, subject=subject, level=level, text=text, advice=advice)


def _words(met: ClientState, now: float) -> str:
    status = "" if met.status is None else f" {met.status}"
    ago = "" if met.last_failure is None else f" {in_words(now - met.last_failure)} ago"
    text = f": {met.text}" if met.text else ""
    waits = f"; {met.waits:,} of its deliveries wait" if met.waits else ""
    dead = f"; {met.dead:,} given up" if met.dead else ""
    return f"{met.reason or 'a failure'}{status}{ago}{text}{waits}{dead}"
