"""The doctor: runs checks of everything that a logout depends on, without touching any session.

All checks run at the same time, each under its own deadline, so that a check that hangs costs its own answer only. A
check returns findings: plain sentences, each with what to do.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

MAX_CONCURRENT_CHECKS = 64  # checks; each has one connection at most


class Severity(StrEnum):
    """How bad a finding is. What a failed finding is about keeps logouts from being delivered, now or soon."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


class Area(StrEnum):
    """What a check is about, in the order of the output."""

    QUEUE = "queue"
    WORKER = "worker"
    CLOCK = "clock"
    KEYS = "keys"
    ISSUER = "issuer"
    LISTENER = "listener"
    CLIENT = "client"
    CANARY = "canary"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One result. `subject` is the issuer, client or file that it concerns, `advice` is what to do.

    `count`: the number of clients that it concerns, if they are many; then `first` has the subjects of the first ones.
    """

    area: Area
    subject: str
    level: Severity
    text: str
    advice: str = ""
    count: int = 1
    first: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check. It fails if it takes longer than `timeout` seconds."""

    area: Area
    subject: str
    timeout: float
    run: Callable[[], Awaitable[Sequence[Finding]]]


async def examine(
    checks: Sequence[Check], progress: Callable[[int, int], None] = lambda _done, _total: None
) -> list[Finding]:
    """Run the checks. The findings come in the order of their areas. `progress` is called after each check."""
    at_a_time = asyncio.Semaphore(MAX_CONCURRENT_CHECKS)
    done = 0

    async def run(check: Check) -> Sequence[Finding]:
        nonlocal done
        async with at_a_time:
            try:
                async with asyncio.timeout(check.timeout):
                    return await check.run()
            except TimeoutError:
                text = f"no answer within {check.timeout:g} s"
                return [failure(check.area, check.subject, text, "check that this machine can reach it")]
            finally:
                done += 1
                progress(done, len(checks))

    lists = await asyncio.gather(*(run(check) for check in checks))
    order = {area: place for place, area in enumerate(Area)}
    return sorted((finding for findings in lists for finding in findings), key=lambda finding: order[finding.area])


def ok(area: Area, subject: str, text: str, advice: str = "") -> Finding:
    """A finding without a problem. Its advice is for operators who intended something else."""
    return Finding(area=area, subject=subject, level=Severity.OK, text=text, advice=advice)


def warning(area: Area, subject: str, text: str, advice: str) -> Finding:
    """A finding of something that works, but not for long or not for everybody."""
    return Finding(area=area, subject=subject, level=Severity.WARNING, text=text, advice=advice)


def failure(area: Area, subject: str, text: str, advice: str) -> Finding:
    """A finding of something that does not work."""
    return Finding(area=area, subject=subject, level=Severity.FAILED, text=text, advice=advice)
