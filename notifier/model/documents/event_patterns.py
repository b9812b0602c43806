"""JSON Schema patterns of a URI and a text. They allow exactly what the reader allows.

They use no look-around, since some validators (RE2) do not know it. In some engines, as in Python, `$` matches before a
last line break: a `not` beside the pattern excludes that.
"""

from typing import Any

CONTROLS = r"[\x00-\x1f\x7f-\x9f]"

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = rf"{_LABEL}(?:\.{_LABEL})*\.?"
_NUMBER = r"(?:[0-9]+|0[xX][0-9A-Fa-f]*)"
_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = rf"(?:{_OCTET}\.){{3}}{_OCTET}"
_PORT = (
    r"(?::(?:0{0,4}[1-9]|0{0,3}[1-9][0-9]|0{0,2}[1-9][0-9]{2}|0?[1-9][0-9]{3}|[1-5][0-9]{4}|6[0-4][0-9]{3}"
    r"|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?"
)
_START, _END = r"^[Hh][Tt][Tt][Pp][Ss]?://", r"(?:[/?]|$)"


def uri_schema(max_length: int) -> dict[str, Any]:
    """The schema of an absolute http or https URI: visible ASCII, no user name, no fragment (B3, B5). See `egress`."""
    return {
        "type": "string",
        "format": "uri",
        "minLength": 1,
        "maxLength": max_length,
        "not": {"pattern": r"[^!-\[\]-~]|#"},
        "anyOf": [
            {
                "description": "With a host name of at most 253 characters that does not end in a number.",
                "pattern": f"{_START}{_NAME}{_PORT}{_END}",
                "allOf": [{"pattern": rf"{_START}[^/?:]{{1,253}}\.?(?:[:/?]|$)"}],
                "not": {"pattern": rf"{_START}(?:[^/?:]*\.)?{_NUMBER}\.?(?:[:/?]|$)"},
            },
            {"description": "With an IPv4 address.", "pattern": f"{_START}{_IPV4}{_PORT}{_END}"},
            {"description": "With an IPv6 address.", "pattern": rf"{_START}\[{_ipv6()}\]{_PORT}{_END}"},
        ],
    }


def _ipv6() -> str:
    """RFC 3986 §3.2.2: eight groups; the last two may be IPv4, and one `::` may stand for groups of zero."""
    group = "[0-9A-Fa-f]{1,4}"
    last = f"(?:{group}:{group}|{_IPV4})"
    forms = [f"(?:{group}:){{6}}{last}", f"::(?:{group}:){{5}}{last}"]
    forms += [rf"(?:(?:{group}:){{0,{n}}}{group})?::(?:{group}:){{{4 - n}}}{last}" for n in range(5)]
    forms += [f"(?:(?:{group}:){{0,5}}{group})?::{group}", f"(?:(?:{group}:){{0,6}}{group})?::"]
    return f"(?:{'|'.join(forms)})"
