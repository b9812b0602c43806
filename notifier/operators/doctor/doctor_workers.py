"""The doctor's findings from the workers: what is wrong at them, how clients answer them, their certificates and hooks.

A client that accepts connections may answer 400 to all tokens, or hang. Only a worker that sends it tokens knows.
"""

from collections.abc import Container, Iterator, Mapping, Sequence

from notifier.model.durations import format_in_words
from notifier.model.library_hooks import Hook
from notifier.model.printable import counted
from notifier.operators.doctor.doctor import Area, Finding, Severity, failure, ok, warning
from notifier.operators.status.client_state import ClientState
from notifier.operators.status.service_status import ServiceStatus, troubles_of

MAX_LISTED_CLIENTS = 20  # clients
RECENT_SECONDS = 900.0  # seconds for which a failure is one of now

ClientStates = Mapping[tuple[str, str], ClientState]
"""How each client fares at the workers, by issuer and `client_id`."""

DAY_SECONDS = 86_400.0
EXPIRY_WARNING_SECONDS = 14 * DAY_SECONDS  # seconds
RENEW_ADVICE = "renew its certificate"


def judge_workers(status: ServiceStatus, examined: Container[tuple[str, str]], now: float) -> Iterator[Finding]:
    """Yield findings about the workers, and the problems that they report. `examined`: clients of other checks."""
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
        judged = warning if trouble.mild else failure
        yield judged(Area.WORKER, f"{trouble.kind.replace('_', ' ')} {whom}".strip(), trouble.text, advice)
    unexamined = [
        client for client in status.clients if client.circuit and (client.iss, client.client_id) not in examined
    ]
    for client in unexamined[:MAX_LISTED_CLIENTS]:
        text = f"is down, and this configuration does not have it; a worker met {_format_state(client, now)}"
        yield warning(
            Area.WORKER, f"{client.client_id} ({client.iss})", text, "compare the workers' configuration with this"
        )


def judge_client(subject: str, met: ClientState, origin: str, now: float) -> Finding:
    """Return the finding about a client that accepts connections and is not well."""
    if met.state == "put_off":
        text = f"{origin} takes connections, but its deliveries are put off ({met.waits_for})"
        return warning(Area.CLIENT, subject, text, f"notifier explain {met.waits_for}")
    last = met.last_failure
    text = f"{origin} takes connections, but a worker met {_format_state(met, now)}"
    level = Severity.FAILED if met.circuit or (last is not None and now - last < RECENT_SECONDS) else Severity.WARNING
    advice = f"notifier explain {met.reason or 'NotifierClientFailing'}"
    return Finding(area=Area.CLIENT, subject=subject, level=level, text=text, advice=advice)


def _format_state(met: ClientState, now: float) -> str:
    status = "" if met.status is None else f" {met.status}"
    ago = "" if met.last_failure is None else f" {format_in_words(now - met.last_failure)} ago"
    text = f": {met.text}" if met.text else ""
    waits = f"; {met.pending_count:,} of its deliveries wait" if met.pending_count else ""
    dead = f"; {met.dead:,} given up" if met.dead else ""
    return f"{met.reason or 'a failure'}{status}{ago}{text}{waits}{dead}"


AREAS: Mapping[str, Area] = {"api": Area.LISTENER, "web": Area.LISTENER, "queue": Area.QUEUE, "client": Area.CLIENT}


def judge_certificate(use: str, file: str, expires: float | None, now: float) -> Finding:
    """Judge how long a certificate of ours lasts. `use` is a key of AREAS. `expires` None: the file holds none."""
    if expires is None:
        return failure(AREAS[use], file, "holds no certificate in PEM", "name our certificate, with its chain")
    return expiry_finding(AREAS[use], file, "is shown by us", expires, now)


def judge_hooks(hooks: Sequence[Hook], advice: str) -> Iterator[Finding]:
    """Yield a finding for each hook into a library that is not in use on this machine."""
    for hook in hooks:
        if hook.difference is not None:
            text = f"hook {hook.name} is off: {hook.reason}; {hook.cost}"
            yield warning(Area.WORKER, hook.library, text, advice)


def expiry_finding(area: Area, subject: str, text: str, expires: float | None, now: float) -> Finding:
    """A finding that is good unless the certificate expires soon."""
    if expires is None:
        return ok(area, subject, f"{text}, without TLS")
    left = expires - now
    if left < 0:
        return failure(area, subject, f"{text}; the certificate ended {_format_days(-left)} ago", "renew it")
    if left < EXPIRY_WARNING_SECONDS:
        return warning(area, subject, f"{text}; the certificate ends in {_format_days(left)}", "renew it")
    return ok(area, subject, f"{text}; the certificate is good for {_format_days(left)}")


def _format_days(seconds: float) -> str:
    days = int(seconds // DAY_SECONDS)
    return counted(days, "day") if days else "less than a day"
