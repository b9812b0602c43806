"""Parses and formats durations as operators write them: `500ms`, `5s`, `2m`, `24h`, `7d`.

A bare number is not a duration, because it might mean seconds or milliseconds. 0 needs no unit.
"""

import re

DAY_SECONDS = 86_400.0

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?) ?(ms|s|m|h|d)")


def parse_duration(value: object) -> float:
    """Return the duration in seconds. Raises ValueError with the expected form."""
    if isinstance(value, int | float | str) and not isinstance(value, bool) and str(value).strip() in ("0", "0.0"):
        return 0.0
    if isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())) is not None:
        amount, unit = match.groups()
        # Division is exact here, multiplication is not: 3 * 0.001 is 0.003 by luck only.
        return float(amount) / 1000 if unit == "ms" else float(amount) * _SECONDS[unit]
    bare = str(value)
    if not isinstance(value, bool) and re.fullmatch(r"[0-9.]{1,20}", bare):
        raise ValueError(f"{bare} has no unit: write {bare}s if seconds are meant (or ms, m, h, d)")
    raise ValueError("is not a duration: write a number and a unit, such as 500ms, 5s, 2m, 24h or 7d")


def format_duration(seconds: float) -> str:
    """Return the shortest form with one unit, to the millisecond: 90 → `90s`, 120 → `2m`, 0.5 → `500ms`."""
    milliseconds = round(seconds * 1000)
    if milliseconds == 0:
        return "0s"
    for unit in ("d", "h", "m", "s"):
        count, rest = divmod(milliseconds, round(_SECONDS[unit] * 1000))
        if rest == 0:
            return f"{count}{unit}"
    return f"{milliseconds}ms"


def format_in_words(seconds: float) -> str:
    """Return the approximate duration for people: 90 → `90 s`, 150 → `2 min`."""
    seconds = max(0.0, seconds)
    for unit, size in (("d", 86_400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
