"""Converts between RFC 3339 timestamps, which people and documents use, and epoch seconds. Waits."""

import asyncio
import math
import re
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

Clock = Callable[[], float]
"""Seconds since the epoch."""


async def wait_for_event(event: asyncio.Event, seconds: float) -> None:
    """Wait until the event is set, but at most this many seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


class MinuteLimit:
    """Limits each kind of log line to one per minute. `monotonic` is a clock that never jumps."""

    def __init__(self, monotonic: Clock = time.monotonic) -> None:
        self._monotonic = monotonic
        self._logged_at: dict[tuple[str | None, ...], float] = {}

    def allows(self, *kind: str | None) -> bool:
        """Return True unless a line of this kind was logged within the last minute."""
        return self._monotonic() - self._logged_at.get(kind, float("-inf")) >= 60.0

    def on_logged(self, *kind: str | None) -> None:
        """Record that a line of this kind is logged now."""
        self._logged_at[kind] = self._monotonic()


def is_in_milliseconds(moment: float) -> bool:
    """Return True if a time since the epoch must be in milliseconds: as seconds it is after the year 5000."""
    return moment > 1e11


_YEAR = "(?:[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)"  # 0000 does not match
_BY_FOUR = "(?:0[48]|[2468][048]|[13579][26])"
_DATE = (
    f"(?:{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    f"|02-(?:0[1-9]|1[0-9]|2[0-8]))|(?:[0-9]{{2}}{_BY_FOUR}|{_BY_FOUR}00)-02-29)"
)
_HOUR, _MINUTE = "(?:[01][0-9]|2[0-3])", "[0-5][0-9]"
RFC_3339 = f"{_DATE}[Tt ]{_HOUR}:{_MINUTE}:(?:{_MINUTE}|60)(?:\\.[0-9]{{1,20}})?(?:[Zz]|[+-]{_HOUR}:{_MINUTE})"
"""The pattern of a whole timestamp. It has no look-around, so that a JSON Schema can use it."""

_RFC_3339 = re.compile(RFC_3339)


def parse_moment(text: str) -> float:
    """Return seconds since the epoch. Raises ValueError if `text` is not an RFC 3339 timestamp with an offset.

    A leap second (`:60`, RFC 3339 §5.7) counts as the second before it.
    """
    if _RFC_3339.fullmatch(text) is None:
        raise ValueError("not an RFC 3339 timestamp with an offset")
    if text[17:19] == "60":
        text = f"{text[:17]}59{text[19:]}"
    return datetime.fromisoformat(text.upper()).timestamp()


def parse_http_date(text: str) -> float | None:
    """Return seconds since the epoch of an HTTP date (RFC 9110 §5.6.7, any of three forms); None if it is invalid."""
    try:
        moment = parsedate_to_datetime(text[:64])
        # A date in the form of asctime has no zone and means GMT, not the local zone.
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


_FIRST_MOMENT = datetime.min.replace(tzinfo=UTC).timestamp()
_LAST_MOMENT = math.nextafter(datetime.max.replace(tzinfo=UTC).timestamp(), 0.0)  # rounded up, it is in the year 10000


def format_moment(moment: float) -> str:
    """Return an RFC 3339 timestamp in UTC, to the microsecond. Outside the years 1 to 9999, return the nearest."""
    date = datetime.fromtimestamp(max(_FIRST_MOMENT, min(_LAST_MOMENT, moment)), UTC)  # the last moment for NaN
    return date.isoformat(timespec="microseconds").replace("+00:00", "Z")


def format_optional_moment(moment: float | None) -> str | None:
    """Return `format_moment` of a moment, None if it is unknown."""
    return None if moment is None else format_moment(moment)


def format_moment_for_people(moment: float) -> str:
    """Return the moment for people, to the second, in UTC: `2026-01-31 12:00:00Z`. `parse_moment` can parse it."""
    return f"{format_moment(moment)[:19].replace('T', ' ')}Z"


def earliest(*moments: float | None) -> float | None:
    """Return the first of the known moments, None if all are unknown."""
    return min([moment for moment in moments if moment is not None], default=None)


def latest(*moments: float | None) -> float | None:
    """Return the last of the known moments, None if all are unknown."""
    return max([moment for moment in moments if moment is not None], default=None)
