"""Reads the publisher's trace: `traceparent` of W3C Trace Context.

Each delivery keeps it, so that an attempt made tomorrow by another worker still belongs to the sign-out that caused it.
Clients never receive it.
"""

import re
from collections.abc import Mapping

# Version 00, and the part of later versions that has the same form (Trace Context §3.2.4). All-zero ids are invalid.
_FORM = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?=-|$)")
_NAMES = ("cloudEvents_traceparent", "cloudEvents:traceparent", "ce-traceparent", "traceparent")
LENGTH = 55


def traceparent_of(headers: Mapping[str, object], extension: object = None) -> str | None:
    """Return the publisher's `traceparent`, None if there is none or it is not well-formed.

    The CloudEvents extension precedes the header `traceparent`, which any hop may set. `extension` is the attribute of
    a structured envelope.
    """
    if extension is not None and (context := _well_formed(extension)) is not None:
        return context
    for name in _NAMES:
        value = headers.get(name)
        if value is not None and (context := _well_formed(value)) is not None:
            return context
    return None


def _well_formed(value: object) -> str | None:
    text = value.decode(errors="replace") if isinstance(value, bytes | bytearray) else value
    if not isinstance(text, str) or _FORM.match(text) is None:
        return None
    return text[:LENGTH]


def parts(traceparent: str) -> tuple[int, int, bool]:
    """Return trace id, span id, and True if the publisher records the trace."""
    _, trace, span, flags = traceparent[:LENGTH].split("-")
    return int(trace, 16), int(span, 16), bool(int(flags, 16) & 1)
