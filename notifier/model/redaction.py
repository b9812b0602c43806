"""Removes secrets from texts: secrets of a known form from log lines, and a given secret from a client's response.

A client may quote a secret in different spellings. It may return `a/b+c@d` as `a\\/b+c@d` (PHP's json_encode), as
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
    """Return the line without tokens, passwords in URLs and private keys. DEL is escaped, which JSON does not do."""
    if "\x7f" in line:
        line = line.replace("\x7f", r"\u007f")
    for beginning, pattern, replacement in _SECRETS:
        if beginning in line:  # faster than the pattern
            line = pattern.sub(replacement, line)
    return _WORD.sub(_replace_password, line) if "@" in line and "://" in line else line


def _replace_password(word: re.Match[str]) -> str:
    before, at, host = word[0].rpartition("@")
    user = _USER.search(before) if at else None
    return word[0] if user is None else f"{before[: user.end()]}[password]@{host}"


_MIN_SUBJECT_CHARACTERS = 3  # a shorter `sub` or `sid` may be any word of a response
_PLAIN = re.compile(r"[A-Za-z0-9._-]*")  # characters that no spelling escapes
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


def redact_subject(text: str, sub: str | None, sid: str | None, email: str | None = None) -> str:
    """Return a response, such as "no session of alice", with `[sub]`, `[sid]`, `[email]` in place of their values."""
    for name, value in (("[email]", email), ("[sub]", sub), ("[sid]", sid)):  # an address may contain the `sub`
        if value is not None and len(value) >= _MIN_SUBJECT_CHARACTERS:
            text = redact_secret(text, value, name)
    return text


def list_spellings(secret: str) -> list[str]:
    """Return the spellings of `secret` in JSON, URLs and HTML, the longest first."""
    if _PLAIN.fullmatch(secret) is not None:
        return [secret]
    in_json = json.dumps(secret)[1:-1]
    spellings = {
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
    return sorted(spellings, key=len, reverse=True)


def _entity(character: re.Match[str]) -> str:
    return f"&#{ord(character[0])};"
