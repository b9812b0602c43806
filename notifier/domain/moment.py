"""A moment in time as people and documents write it (RFC 3339), and as we reckon with it: seconds since the epoch."""

import re
from datetime import UTC, datetime

_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d{1,20})?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)


def read_moment(text: str) -> float:
    """Seconds since the epoch. Raises ValueError where `text` is no RFC 3339 timestamp or names no offset.

    A leap second is taken as the second before it (RFC 3339 §5.7 allows `:60`, our clock does not know it).
    """
    if _RFC_3339.fullmatch(text) is None:
        raise ValueError("no RFC 3339 timestamp with an offset")
    if text[17:19] == "60":
        text = f"{text[:17]}59{text[19:]}"
    return datetime.fromisoformat(text.upper()).timestamp()


def render_moment(moment: float) -> str:
    """RFC 3339 in UTC, to the microsecond. What lies outside the years 1 to 9999 is written as the epoch itself."""
    try:
        written = datetime.fromtimestamp(moment, UTC)
    except (ValueError, OverflowError, OSError):
        written = datetime.fromtimestamp(0, UTC)
    return written.isoformat(timespec="microseconds").replace("+00:00", "Z")
