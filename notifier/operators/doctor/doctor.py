"""The doctor: runs checks of everything that a logout depends on, without touching any session.

All checks run at the same time, each with a separate deadline, so a check that hangs does not delay the others. A
check returns findings. A finding is a sentence about a problem and its remedy, or about something that works.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain

from notifier.model.ignored_members import IssueGroup
from notifier.model.shared_resources import shared_slots

MAX_CONCURRENT_CHECKS = 64  # each has one connection at most


class Severity(StrEnum):
    """The severity of a finding, in the order of the output. FAILED: logouts cannot be delivered, now or soon."""

    FAILED = "failed"
    WARNING = "warning"
    OK = "ok"


class Area(StrEnum):
    """The subject area of a check, in the order of the output."""

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
    """One result of a check. `subject` is the issuer, client or file that it concerns, `advice` the remedy.

    If it concerns several clients, `count` is their number, and `first` has the subjects of some of them.
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
    """Run the checks. Return their findings in the order of the areas, and of severity in each.

    `progress` is called after each check, with the number of ended checks and of all.
    """
    slots = shared_slots(MAX_CONCURRENT_CHECKS)
    done = 0

    async def run(check: Check) -> Sequence[Finding]:
        nonlocal done
        async with slots:
            try:
                async with asyncio.timeout(check.timeout):
                    return await check.run()
            except TimeoutError:
                text = f"no answer within {check.timeout:g} s"
                return [failure(check.area, check.subject, text, "check that this machine can reach it")]
            finally:
                done += 1
                progress(done, len(checks))

    results = await asyncio.gather(*map(run, checks))
    areas, severities = list(Area), list(Severity)
    return sorted(
        chain.from_iterable(results),
        key=lambda finding: (areas.index(finding.area), severities.index(finding.level)),
    )


def ok(area: Area, subject: str, text: str, advice: str = "") -> Finding:
    """Return a finding of something that works. Its advice is for operators who intended something else."""
    return Finding(area=area, subject=subject, level=Severity.OK, text=text, advice=advice)


def warning(area: Area, subject: str, text: str, advice: str) -> Finding:
    """Return a finding of something that works, but not for long or not for every client."""
    return Finding(area=area, subject=subject, level=Severity.WARNING, text=text, advice=advice)


def failure(area: Area, subject: str, text: str, advice: str) -> Finding:
    """Return a finding of something that does not work."""
    return Finding(area=area, subject=subject, level=Severity.FAILED, text=text, advice=advice)


def group_finding(group: IssueGroup, advice: str) -> Finding:
    """Return the finding about a group of issues in the registry."""
    mistake = group.mistake
    first = tuple(example.path for example in group.first)
    return Finding(
        area=Area.CLIENT, subject=mistake.path, level=Severity.WARNING, text=mistake.text, advice=advice,
        count=group.count, first=first,
    )  # fmt: skip
