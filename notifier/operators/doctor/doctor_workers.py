"""The doctor's findings from the workers: their problems, how clients respond to them, certificates and hooks.

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
RECENT_SECONDS = 900.0  # seconds for which a failure is current

ClientStates = Mapping[tuple[str, str], ClientState]
"""The state of each client at the workers, by issuer and `client_id`."""

DAY_SECONDS = 86_400.0
EXPIRY_WARNING_SECONDS = 14 * DAY_SECONDS  # seconds
RENEW_ADVICE = "renew its certificate"


def judge_workers(status: ServiceStatus, examined: Container[tuple[str, str]], now: float) -> Iterator[Finding]:
    """Yield findings about the workers, and the problems that they report. `examined`: clients that are checked."""
    answered_count, worker_count = len(status.workers), max(status.seen, len(status.workers))
    if answered_count == worker_count:
        text = (
            f"{answered_count} of {counted(worker_count, 'worker')} answered"
            if worker_count
            else "no worker is running, so no state is available"
        )
        yield ok(Area.WORKER, "workers", text)
    else:
        why = ", since the queue takes no message" if status.blocked else ""
        silent_count = worker_count - answered_count
        text = (
            f"{silent_count} of {counted(worker_count, 'worker')} did not answer{why}; their reports are missing here"
        )
        advice = "check whether they are busy or run an older release"
        yield warning(Area.WORKER, "workers", text, advice)
    for shared_trouble in troubles_of(status):
        trouble = shared_trouble.trouble
        subject = " ".join(filter(None, (trouble.client_id, trouble.iss or trouble.subject)))
        advice = f"notifier explain {trouble.explained}" if trouble.explained else "see the log of the worker"
        to_finding = warning if trouble.mild else failure
        yield to_finding(Area.WORKER, f"{trouble.kind.replace('_', ' ')} {subject}".strip(), trouble.text, advice)
    unexamined = [
        client for client in status.clients if client.circuit and (client.iss, client.client_id) not in examined
    ]
    for client in unexamined[:MAX_LISTED_CLIENTS]:
        text = f"is down, and is not in this configuration; a worker reports {_format_state(client, now)}"
        yield warning(
            Area.WORKER, f"{client.client_id} ({client.iss})", text, "compare the workers' configuration with this"
        )


def judge_client(subject: str, met: ClientState, origin: str, now: float) -> Finding:
    """Return the finding about a client that accepts connections but fails or is deferred."""
    if met.state == "put_off":
        text = f"{origin} accepts connections, but its deliveries are deferred ({met.waits_for})"
        return warning(Area.CLIENT, subject, text, f"notifier explain {met.waits_for}")
    last = met.last_failure
    text = f"{origin} accepts connections, but a worker reports {_format_state(met, now)}"
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
    """Judge the expiry of a certificate of notifier. `use`: a key of AREAS. `expires` None: the file has none."""
    if expires is None:
        return failure(AREAS[use], file, "holds no certificate in PEM", "name notifier's certificate, with its chain")
    return expiry_finding(AREAS[use], file, "is presented by notifier", expires, now)


def judge_hooks(hooks: Sequence[Hook], advice: str) -> Iterator[Finding]:
    """Yield a finding for each hook into a library that is not in use on this machine."""
    for hook in hooks:
        if hook.difference is not None:
            text = f"hook {hook.name} is off: {hook.reason}; {hook.cost}"
            yield warning(Area.WORKER, hook.library, text, advice)


def expiry_finding(area: Area, subject: str, text: str, expires: float | None, now: float) -> Finding:
    """Return a finding about the certificate's expiry: ok unless it expires soon."""
    if expires is None:
        return ok(area, subject, f"{text}, without TLS")
    left = expires - now
    if left < 0:
        return failure(area, subject, f"{text}; the certificate expired {_format_days(-left)} ago", "renew it")
    if left < EXPIRY_WARNING_SECONDS:
        return warning(area, subject, f"{text}; the certificate expires in {_format_days(left)}", "renew it")
    return ok(area, subject, f"{text}; the certificate is valid for {_format_days(left)}")


def _format_days(seconds: float) -> str:
    days = int(seconds // DAY_SECONDS)
    return counted(days, "day") if days else "less than a day"
