"""Parse and format the RFC 3339 timestamps of events."""

import re
from datetime import UTC, datetime

_FORM = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ](?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)(?:\.[0-9]{1,20})?"
    r"(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)


def is_moment(text: str) -> bool:
    """Return whether it is a timestamp with an offset and an existing date. Leap seconds are valid (§5.7)."""
    if _FORM.fullmatch(text) is None:
        return False
    try:
        datetime.fromisoformat(text[:10])
    except ValueError:
        return False
    return True


def format_moment(moment: datetime) -> str:
    """Return the timestamp in UTC, to the microsecond. Raises OverflowError if its year has not four digits in UTC."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
