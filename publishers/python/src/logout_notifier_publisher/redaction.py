"""Redact a value, such as a user id, in a server's text, in any of its escaped forms.

Servers escape quoted values in different ways. They return `a/b+c@d` as `a\\/b+c@d` (PHP's json_encode), as
`a%2Fb%2Bc%40d` (in a URL) or as `a/b&#43;c&#64;d` (in a page), and may change the case of user ids.
"""

import html
import json
import re
from urllib.parse import quote, quote_plus

_PLAIN = re.compile(r"[A-Za-z0-9._-]*")  # never escaped
_NO_LETTER = re.compile(r"[^A-Za-z0-9]")
_UNSAFE = re.compile(r"[^A-Za-z0-9 ._,:;/=-]")


def redact(text: str, secret: str, name: str) -> str:
    """Return the text with `secret`, in any spelling and either case, replaced by `name`."""
    for spelling in _spellings(secret):
        text = re.sub(re.escape(spelling), lambda _: name, text, flags=re.IGNORECASE)
    return text


def _spellings(secret: str) -> list[str]:
    """Return the usual escaped forms, the longest first."""
    if _PLAIN.fullmatch(secret) is not None:
        return [secret]
    in_json = json.dumps(secret)[1:-1]
    found = {
        secret,
        in_json,
        in_json.replace("/", "\\/"),
        json.dumps(secret, ensure_ascii=False)[1:-1],
        quote(secret, safe=""),
        quote(secret),
        quote_plus(secret),
        html.escape(secret),
        _NO_LETTER.sub(_entity, secret),
        _UNSAFE.sub(_entity, secret),
    }
    return sorted(found, key=len, reverse=True)


def _entity(character: re.Match[str]) -> str:
    return f"&#{ord(character[0])};"
