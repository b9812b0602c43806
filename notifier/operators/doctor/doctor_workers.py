"""The doctor's findings from the workers' reports: problems, clients that fail, certificates, and library hooks.

A client that accepts connections may still answer 400 to every token, or hang. Only workers detect that.
"""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

from notifier.model.durations import format_in_words
from notifier.model.library_hooks import Hook
from notifier.model.printable import counted
from notifier.operators.doctor.doctor import Area, Finding, Severity, failure, ok, warning
from notifier.operators.status.client_status import ClientStatus
from notifier.operators.status.service_status import ServiceStatus, troubles_of

MAX_LISTED_CLIENTS = 20
RECENT_SECONDS = 900.0  # maximum age of a failure that counts as current

Statuses = Mapping[tuple[str, str], ClientStatus]
"""The state of each client at the workers, by issuer and `client_id`."""

DAY_SECONDS = 86_400.0
EXPIRY_WARNING_SECONDS = 14 * DAY_SECONDS
RENEW_ADVICE = "renew its certificate"


def judge_workers(
    status: ServiceStatus, examined: Container[tuple[str, str]], now: float, relays: Iterable[str] = ()
) -> Iterator[Finding]:
    """Yield findings about the workers, the problems that they report, and clients whose circuit is not closed.

    `examined` has the clients of this configuration, which have separate checks and are left out here. `relays`: the
    names of the relays, which need a second worker.
    """
    answered_count, worker_count = len(status.workers), status.seen
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
    for name in relays if worker_count == 1 else ():
        text = "has one worker only: while it restarts, tokens that the server sends once are lost"
        yield warning(Area.WORKER, f"relays.{name}", text, "run two")
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
        text = f"has an open circuit and is not in this configuration; a worker reports {_format_state(client, now)}"
        yield warning(
            Area.WORKER, f"{client.client_id} ({client.iss})", text, "compare the workers' configuration with this"
        )


def judge_client(subject: str, state: ClientStatus, origin: str, now: float) -> Finding:
    """Return the finding about a client whose server accepts connections, but which fails or is deferred at workers."""
    if state.state == "put_off":
        text = f"{origin} accepts connections, but its deliveries are deferred ({state.waits_for})"
        return warning(Area.CLIENT, subject, text, f"notifier explain {state.waits_for}")
    last = state.last_failure
    text = f"{origin} accepts connections, but a worker reports {_format_state(state, now)}"
    fails_now = bool(state.circuit) or (last is not None and now - last < RECENT_SECONDS)
    level = Severity.FAILED if fails_now else Severity.WARNING
    advice = f"notifier explain {state.reason or 'NotifierClientFailing'}"
    return Finding(area=Area.CLIENT, subject=subject, level=level, text=text, advice=advice)


def _format_state(state: ClientStatus, now: float) -> str:
    status = "" if state.status is None else f" {state.status}"
    ago = "" if state.last_failure is None else f" {format_in_words(now - state.last_failure)} ago"
    text = f": {state.text}" if state.text else ""
    waits = f"; {state.pending_count:,} of its deliveries wait" if state.pending_count else ""
    dead = f"; {state.dead:,} given up" if state.dead else ""
    return f"{state.reason or 'a failure'}{status}{ago}{text}{waits}{dead}"


AREAS: Mapping[str, Area] = {"api": Area.LISTENER, "web": Area.LISTENER, "queue": Area.QUEUE, "client": Area.CLIENT}


def judge_certificate(use: str, file: str, expires: float | None, now: float) -> Finding:
    """Return a finding about the expiry of notifier's own certificate. `use` is a key of AREAS.

    `expires` is in epoch seconds; None if the file contains no certificate, or its expiry cannot be read.
    """
    if expires is None:
        return failure(
            AREAS[use],
            file,
            "holds no certificate in PEM whose expiry can be read",
            "name notifier's certificate, with its chain",
        )
    return expiry_finding(AREAS[use], file, "is presented by notifier", expires, now)


def judge_hooks(hooks: Sequence[Hook], advice: str) -> Iterator[Finding]:
    """Yield a warning for each hook into a library (`model.library_hooks`) that is off on this machine."""
    for hook in hooks:
        if hook.difference is not None:
            text = f"hook {hook.name} is off: {hook.reason}; {hook.cost}"
            yield warning(Area.WORKER, hook.library, text, advice)


def expiry_finding(area: Area, subject: str, text: str, expires: float | None, now: float) -> Finding:
    """Return a finding that adds the expiry of a certificate (epoch seconds) to `text`. Without `expires`: no TLS."""
    if expires is None:
        return ok(area, subject, f"{text}, without TLS")
    seconds_left = expires - now
    if seconds_left < 0:
        return failure(area, subject, f"{text}; the certificate expired {_format_days(-seconds_left)} ago", "renew it")
    if seconds_left < EXPIRY_WARNING_SECONDS:
        return warning(area, subject, f"{text}; the certificate expires in {_format_days(seconds_left)}", "renew it")
    return ok(area, subject, f"{text}; the certificate is valid for {_format_days(seconds_left)}")


def _format_days(seconds: float) -> str:
    days = int(seconds // DAY_SECONDS)
    return counted(days, "day") if days else "less than a day"
