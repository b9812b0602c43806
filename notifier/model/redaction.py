"""Removes secrets from texts: secrets of a known form, and a given secret from a client's response in any spelling.

Receivers escape quoted values in different ways. They return `a/b+c@d` as `a\\/b+c@d` (PHP's json_encode), as
`a%2Fb%2Bc%40d` (in a URL) or as `a/b&#43;c&#64;d` (in a page), and user names in lower case.
"""

import html
import json
import re
from urllib.parse import quote, quote_plus

_SECRETS = (
    # Any base64url of a JSON object: a whole JWS or JWE, or the beginning of a truncated one.
    ("eyJ", re.compile(r"eyJ[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*){0,4}"), "[token]"),
    ("earer ", re.compile(r"([Bb]earer +)[A-Za-z0-9._~+/=-]+"), r"\1[token]"),
    (
        "PRIVATE KEY",
        re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----[^\"]*?(?:-----END [A-Z ]*-----|(?=\")|\Z)"),
        "[key]",
    ),
)
_WORD = re.compile(r"[^\s\"]+")
_USER = re.compile(r"://[^/\s:@\"]*:")


def redact(line: str) -> str:
    """Remove tokens, passwords in URLs, private keys, and DEL, which JSON does not escape."""
    if "\x7f" in line:
        line = line.replace("\x7f", r"\u007f")
    for sign, pattern, instead in _SECRETS:
        if sign in line:
            line = pattern.sub(instead, line)
    return _WORD.sub(_without_password, line) if "@" in line and "://" in line else line


def _without_password(word: re.Match[str]) -> str:
    before, at, after = word[0].rpartition("@")
    user = _USER.search(before) if at else None
    return word[0] if user is None else f"{before[: user.end()]}[password]@{after}"


_TELLING = 3  # characters: a shorter `sub` may be any word of a response
_PLAIN = re.compile(r"[A-Za-z0-9._-]*")  # never escaped
_NO_LETTER = re.compile(r"[^A-Za-z0-9]")
_UNSAFE = re.compile(r"[^A-Za-z0-9 ._,:;/=-]")


def redact_secret(text: str, secret: str, name: str) -> str:
    """Return the text with `secret`, in any spelling and either case, replaced by `name`."""
    lower = text.lower()
    for spelling in list_spellings(secret):
        if spelling.lower() in lower:
            text = re.sub(re.escape(spelling), lambda _: name, text, flags=re.IGNORECASE)
            lower = text.lower()
    return text


def redact_subject(text: str, sub: str | None, sid: str | None) -> str:
    """Remove the user from a response ("no session of alice")."""
    for name, value in (("[sub]", sub), ("[sid]", sid)):
        if value is not None and len(value) >= _TELLING:
            text = redact_secret(text, value, name)
    return text


def list_spellings(secret: str) -> list[str]:
    """Return the usual spellings of `secret` in quotations, the longest first."""
    if _PLAIN.fullmatch(secret) is not None:
        return [secret]
    in_json = json.dumps(secret)[1:-1]
    parts = {
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
    return sorted(parts, key=len, reverse=True)


def _entity(character: re.Match[str]) -> str:
    return f"&#{ord(character[0])};"
