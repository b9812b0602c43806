"""Removes secrets from texts: secrets of a known form from log lines, and a given secret from a client's response.

A client may quote a secret in different spellings. It may return `a/b+c@d` as `a\\/b\\u002bc@d` (in JSON), as
`a%2Fb%2Bc%40d` (in a URL) or as `a/b&#43;c&#64;d` (in a page), user names in lower case, and accents as separate
characters. A secret is therefore also sought in the decoded text, without invisible characters.
"""

import html
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import unquote, unquote_plus

from notifier.model.printable import visible

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


_MIN_PART_CHARACTERS = 3  # a shorter secret may be part of any word, so only the whole word counts
_MAX_FOLDED_CHARACTERS = 1024  # of a longer one only the exact case is sought: a pattern takes text × secret
_ESCAPE = re.compile(r"[\\%+&]")
_JSON_ESCAPE = re.compile(r"\\(?:[uU]([0-9A-Fa-f]{4})|(.))")
_HTML_REFERENCE = re.compile(r"&#?[0-9A-Za-z]{1,32};?")  # Python refuses a number of thousands of digits
_JSON_BLANKS = frozenset("nrtf")


def redact_secrets(text: str, secrets: Iterable[tuple[str, str]]) -> str:
    """Redact each secret, which comes with its name, as `redact_secret` does.

    A text quotes few of them, and decoding takes milliseconds. So it is decoded again only after a quoted one.
    """
    readings = _list_readings(text)
    for secret, name in secrets:
        words = _list_words(visible(secret))
        if any(_is_quoted(word, reading, lower) for reading, lower in readings for word in words):
            text = redact_secret(text, secret, name)
            readings = _list_readings(text)
    return readings[0][0]


def _list_readings(text: str) -> list[tuple[str, str]]:
    """Return the visible text and each decoded one, also in lower case."""
    text = visible(text)
    readings = text, *(visible(decode(text)) for beginning, decode in _DECODERS if beginning in text)
    return [(reading, reading.lower()) for reading in readings]


def redact_secret(text: str, secret: str, name: str) -> str:
    """Return the visible text with `secret`, in any spelling and either case, replaced by `name`.

    The text is decoded if only the decoded one quotes the secret.
    """
    words = _list_words(visible(secret))
    text = _replace_words(visible(text), words, name)
    if _ESCAPE.search(text) is None:
        return text
    for beginning, decode in _DECODERS:
        if beginning in text:  # faster than to decode it
            decoded = visible(decode(text))
            redacted = _replace_words(decoded, words, name)
            text = text if redacted == decoded else redacted
    return text


def _list_words(secret: str) -> list[str]:
    """Return the secret with composed and separate accents, in cases that change the number of characters (`ß`)."""
    if secret.isascii():
        return [secret] if secret else []
    forms = [unicodedata.normalize(form, secret) for form in ("NFC", "NFD")]
    return list(dict.fromkeys(word for form in forms for word in (form, form.lower(), form.upper())))


def _replace_words(text: str, words: list[str], name: str) -> str:
    """Return the text with `name` for each word in either case."""

    def hide(found: re.Match[str]) -> str:
        start, end = found.span()
        around = found.string[max(0, start - 1) : start] + found.string[end : end + 1]
        is_part = end - start < _MIN_PART_CHARACTERS and any(map(str.isalnum, around))
        return found[0] if is_part else name

    lower = text.lower()
    for word in words:
        if len(word) > _MAX_FOLDED_CHARACTERS:
            text = text.replace(word, name)
        elif _is_quoted(word, text, lower):
            text = re.sub(re.escape(word), hide, text, flags=re.IGNORECASE)
    return text


def _is_quoted(word: str, text: str, lower: str) -> bool:
    """Return True if the text, which is `lower` in lower case, has the word; a short one in either case."""
    return word in text if len(word) > _MAX_FOLDED_CHARACTERS else word.lower() in lower


def _decode_json(text: str) -> str:
    units = _JSON_ESCAPE.sub(_decode_escape, text)
    return units.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # joins the halves of a pair


def _decode_escape(escape: re.Match[str]) -> str:
    code, char = escape.groups()
    return chr(int(code, 16)) if code else " " if char in _JSON_BLANKS else char


def _decode_html(text: str) -> str:
    return _HTML_REFERENCE.sub(lambda reference: html.unescape(reference[0]), text)


_DECODERS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("\\", _decode_json),
    ("%", unquote),
    ("+", unquote_plus),
    ("&", _decode_html),
)


def redact_subject(text: str, sub: str | None, sid: str | None, email: str | None = None) -> str:
    """Return a response, such as "no session of alice", with `[sub]`, `[sid]`, `[email]` in place of their values."""
    return redact_secrets(text, list_subject(sub, sid, email))


def list_subject(sub: str | None, sid: str | None, email: str | None) -> Sequence[tuple[str, str]]:
    """Return the known values, each with its name. The address is first, since it may contain the `sub`."""
    values = (email, "[email]"), (sub, "[sub]"), (sid, "[sid]")
    return [(value, name) for value, name in values if value is not None]
