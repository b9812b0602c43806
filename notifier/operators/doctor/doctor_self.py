"""The doctor's judgement of notifier itself: its own certificates, and its hooks into libraries."""

from collections.abc import Iterator, Mapping, Sequence

from notifier.model.library_hooks import Hook
from notifier.operators.doctor.doctor import Area, Finding, failed, warning
from notifier.operators.doctor.doctor_clients import expiry_finding

AREAS: Mapping[str, Area] = {"api": Area.LISTENER, "web": Area.LISTENER, "queue": Area.QUEUE, "client": Area.CLIENT}


def judge_certificate(use: str, file: str, expires: float | None, now: float) -> Finding:
    """Judge how long a certificate of ours lasts. `use` is a key of AREAS. `expires` None: the file holds none."""
    if expires is None:
        return failed(AREAS[use], file, "holds no certificate in PEM", "name our certificate, with its chain")
    return expiry_finding(AREAS[use], file, "is shown by us", expires, now)


def judge_hooks(hooks: Sequence[Hook], advice: str) -> Iterator[Finding]:
    """Yield a finding for each hook into a library that is not in use on this machine."""
    for hook in hooks:
        if hook.difference is not None:
            text = f"hook {hook.name} is off: {hook.reason}; {hook.cost}"
            yield warning(Area.WORKER, hook.library, text, advice)
