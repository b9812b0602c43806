"""The trace that an event belongs to: W3C Trace Context's `traceparent`, as its publisher sent it.

It is kept with the event and with each of its deliveries, so that an attempt made tomorrow by another worker still
belongs to the sign-out that caused it. Clients are never sent it.
"""

import re
from collections.abc import Mapping

# Version 00, and later ones as far as they are like it (Trace Context §3.2.4); ids of zeros alone are invalid.
_FORM = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?=-|$)")
_NAMES = ("cloudEvents_traceparent", "cloudEvents:traceparent", "ce-traceparent", "traceparent")
LENGTH = 55


def traceparent_of(headers: Mapping[str, object], extension: object = None) -> str | None:
    """What the publisher sent; None where that is nothing, or not well-formed.

    The CloudEvents extension comes before the header of that name: what carries a message may set the latter itself.
    `extension` is that of a structured envelope.
    """
    if extension is not None and (found := _well_formed(extension)) is not None:
        return found
    for name in _NAMES:
        value = headers.get(name)
        if value is not None and (found := _well_formed(value)) is not None:
            return found
    return None


def _well_formed(value: object) -> str | None:
    text = value.decode(errors="replace") if isinstance(value, bytes | bytearray) else value
    if not isinstance(text, str) or _FORM.match(text) is None:
        return None
    return text[:LENGTH]


def parts(traceparent: str) -> tuple[int, int, bool]:
    """Trace id, span id, and whether the publisher records it."""
    _, trace, span, flags = traceparent[:LENGTH].split("-")
    return int(trace, 16), int(span, 16), bool(int(flags, 16) & 1)
