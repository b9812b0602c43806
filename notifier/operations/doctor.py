"""The doctor: looks at everything that a logout depends on, without touching any session, and says what to do.

A check is a name and something to await; all run at the same time, each under its own deadline, so that one thing that
hangs costs its own answer alone. What a check found are findings: plain sentences, each with its way out.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

AT_A_TIME = 64  # checks; each is at most one connection


class Severity(StrEnum):
    """How bad it is. One that has failed keeps some logout from being delivered, now or soon."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


class Area(StrEnum):
    """What is looked at, in the order in which it is told."""

    QUEUE = "queue"
    CLOCK = "clock"
    KEYS = "keys"
    ISSUER = "issuer"
    LISTENER = "listener"
    CLIENT = "client"
    CANARY = "canary"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was found. `subject`: of which issuer, client or file; `advice`: what to do about it."""

    area: Area
    subject: str
    level: Severity
    text: str
    advice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing to look at. `within` seconds it must be done."""

    area: Area
    subject: str
    within: float
    run: Callable[[], Awaitable[Sequence[Finding]]]


async def examine(checks: Sequence[Check], progress: Callable[[], None] = lambda: None) -> list[Finding]:
    """What was found, in the order of the checks. `progress` is called after each."""
    turns = asyncio.Semaphore(AT_A_TIME)

    async def one(check: Check) -> Sequence[Finding]:
        async with turns:
            try:
                async with asyncio.timeout(check.within):
                    return await check.run()
            except TimeoutError:
                text = f"no answer within {check.within:g} s"
                return [failed(check.area, check.subject, text, "look whether it can be reached from this machine")]
            finally:
                progress()

    found = await asyncio.gather(*(one(check) for check in checks))
    order = {area: place for place, area in enumerate(Area)}
    return sorted((finding for findings in found for finding in findings), key=lambda finding: order[finding.area])


def ok(area: Area, subject: str, text: str, advice: str = "") -> Finding:
    """All is well there; the advice is for those who meant it otherwise."""
    return Finding(area=area, subject=subject, level=Severity.OK, text=text, advice=advice)


def warning(area: Area, subject: str, text: str, advice: str) -> Finding:
    """It works, but not for long, or not for everybody."""
    return Finding(area=area, subject=subject, level=Severity.WARNING, text=text, advice=advice)


def failed(area: Area, subject: str, text: str, advice: str) -> Finding:
    """It does not work."""
    return Finding(area=area, subject=subject, level=Severity.FAILED, text=text, advice=advice)
