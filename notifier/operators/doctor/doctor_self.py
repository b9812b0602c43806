"""The doctor's judgement of notifier itself: its own certificates."""

from collections.abc import Mapping

from notifier.operators.doctor.doctor import Area, Finding, failed
from notifier.operators.doctor.doctor_clients import expiry_finding

AREAS: Mapping[str, Area] = {"api": Area.LISTENER, "web": Area.LISTENER, "queue": Area.QUEUE, "client": Area.CLIENT}


def judge_certificate(use: str, file: str, expires: float | None, now: float) -> Finding:
    """Judge how long a certificate of ours lasts. `use` is a key of AREAS. `expires` None: the file holds none."""
    if expires is None:
        return failed(AREAS[use], file, "holds no certificate in PEM", "name our certificate, with its chain")
    return expiry_finding(AREAS[use], file, "is shown by us", expires, now)
