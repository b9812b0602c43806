"""Interprets a client's response: its start as text for diagnosis (R11), without the secrets that the client quotes.

The error code of a response is read from the body as it arrived: a secret may be part of the code.
"""

import base64
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import product

from pydantic_core import from_json
from yarl import URL

from notifier.model.client import Route
from notifier.model.outcome import CHALLENGES, HttpResponse, find_challenge
from notifier.model.printable import visible
from notifier.model.redaction import list_subject, redact_secrets
from notifier.model.request import Request
from notifier.network.http.requests import RawResponse

MAX_TEXT_CHARACTERS = 1024  # kept of a response
_REDIRECTS = range(300, 400)
_AWS, _CLOUDFLARE = CHALLENGES

# Python knows all of them. Others are not looked up: Python would cache each name, and some codecs are slow.
_CHARSETS = (
    "utf-8", "iso-8859-1", "windows-1252", "iso-8859-15", "iso-8859-2", "windows-1250", "iso-8859-5", "windows-1251",
    "koi8-r", "koi8-u", "iso-8859-6", "windows-1256", "iso-8859-7", "windows-1253", "iso-8859-8", "windows-1255",
    "iso-8859-9", "windows-1254", "iso-8859-13", "windows-1257", "windows-1258", "tis-620", "shift_jis", "euc-jp",
    "gbk", "gb2312", "gb18030", "big5", "euc-kr",
)  # fmt: skip
_WIDE_CHARSETS = ("utf-16le", "utf-16be")  # sought only: an ASCII text that declares one would become unreadable
_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([A-Za-z0-9_-]{1,40})", re.IGNORECASE)
_USER = re.compile(r"//[^/?#]*@")
_TOKEN_RUN = re.compile(r"[A-Za-z0-9_.~+/-]{15,}=*")  # an access token may have all of them (RFC 6750 §2.1)
_PIECE_CHARACTERS = 8  # any 15 consecutive characters of the token contain an aligned piece of 8
_MAX_ESCAPE_CHARACTERS = 12  # of one character: an emoji takes that many in JSON, as two \uXXXX, and in a URL
_MAX_WORD_CHARACTERS = 5  # a header value of at most this length may be any word, so it is not treated as a secret


def to_http_response(response: RawResponse, request: Request) -> HttpResponse:
    """Return the parts of the response that an outcome depends on."""
    headers = response.headers
    retry_after = headers.get("Retry-After")
    challenge = find_challenge(headers.get) if _AWS in headers or _CLOUDFLARE in headers else ""
    if not response.body and retry_after is None and not challenge and response.status not in _REDIRECTS:
        return HttpResponse(status=response.status)
    return HttpResponse(
        status=response.status,
        text=_to_text(response, request),
        retry_after=None if retry_after is None else retry_after[:100],
        date=None if retry_after is None else headers.get("Date"),
        code=read_error_code(response.body, request.extras.error_member),
        challenge=challenge,
        is_web_page=_is_web_page(response),
    )


def read_error_code(body: bytes, member: str) -> str | None:
    """Return the error code in a JSON body, of which only the beginning may be known. None without one or a `member`.

    It must be neither stored nor logged, since it may quote anything.
    """
    if not member:
        return None
    try:
        content = from_json(visible(body.decode("utf-8", "replace")), allow_partial=True)
    except ValueError:
        return None
    code = content.get(member) if isinstance(content, dict) else None
    return code if isinstance(code, str) else None


def _is_web_page(response: RawResponse) -> bool:
    """Return True if the response is HTML for people, and not only declared as HTML, as frameworks do by default."""
    media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media_type not in ("text/html", "application/xhtml+xml") or not response.body:
        return False
    is_readable = response.headers.get("Content-Encoding", "identity").lower() == "identity"
    return not is_readable or response.body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")


def _to_text(response: RawResponse, request: Request) -> str:
    """Return the start of the body for diagnosis. For a redirect it begins with the location."""
    text = "[body not decompressed]" if response.body else ""
    if response.body and response.headers.get("Content-Encoding", "identity").lower() == "identity":
        text = answer_text(response.body, request, response.headers.get("Content-Type", ""))
    location = response.headers.get("Location") if response.status in _REDIRECTS else None
    if location is None:
        return text
    path, separator, _ = _USER.sub("//", location).partition("?")  # the query of a login page may be confidential
    target = f"to {path}?…" if separator else f"to {path}"
    place = target.encode("utf-8", "surrogateescape")
    target = answer_text(place, request)
    return f"{target}: {text}"[:MAX_TEXT_CHARACTERS] if text else target


def answer_text(body: bytes, request: Request, content_type: str = "") -> str:
    """Return the start of a response's body as text, by its charset, without invisible characters and secrets.

    Quoted parts of the token become `[token]`, and parts of the route's headers `[header]`, from 15 characters on. The
    user and session of the delivery become `[email]`, `[sub]` and `[sid]`: the text is kept for whoever may not see
    them. They are also sought as they look if the body has another charset than it declares.
    """
    token, delivery = request.secret, request.delivery
    limit = MAX_TEXT_CHARACTERS * 4 + len(token)
    charset = _charset_of(content_type)
    text = body[:limit].decode(charset, "replace")
    secrets = list(_find_secrets(request.route))
    subject = () if delivery is None else list_subject(delivery.sub, delivery.sid, delivery.email)
    named = (request.extras.authorization.rpartition(" ")[2], "[token]"), *((secret, "[header]") for secret in secrets)
    text = redact_secrets(text, (*named, *subject))
    if charset != "utf-8" or "\N{REPLACEMENT CHARACTER}" in text or "%" in text:
        misread = ((form, name) for value, name in subject for form in _list_misread_forms(value, charset))
        text = redact_secrets(text, misread)
    sizes = [len(value) for value in (*secrets, *(value for value, _ in subject)) if value]
    if len(body) > limit and sizes:  # the end may have a part of a secret, which was not found
        text = text[: -_MAX_ESCAPE_CHARACTERS * max(sizes)]

    def hide_secret(run: re.Match[str]) -> str:
        text = _hide_quote(run[0], token, "[token]")
        for secret in secrets:
            text = _hide_quote(text, secret, "[header]")
        return text

    return _TOKEN_RUN.sub(hide_secret, text)[:MAX_TEXT_CHARACTERS].strip()


def _charset_of(content_type: str) -> str:
    """Return the charset that a media type declares. UTF-8 if it declares none, or one that is not in the table."""
    declared = _CHARSET.search(content_type)
    charset = "utf-8" if declared is None else declared[1].lower()
    return charset if charset in _CHARSETS else "utf-8"


def _list_misread_forms(value: str, charset: str) -> Iterable[str]:
    """Return how a text looks that was encoded by one charset, and decoded by `charset` or, in a URL, by UTF-8."""
    if value.isascii():
        return ()
    forms = dict[str, None]()
    for encoding, spelling in product((*_CHARSETS, *_WIDE_CHARSETS), {value, value.lower(), value.upper()}):
        with suppress(UnicodeEncodeError):
            encoded = spelling.encode(encoding)
            forms |= dict.fromkeys(encoded.decode(decoding, "replace") for decoding in {charset, "utf-8"})
    return forms.keys() - {value}


def _hide_quote(run: str, secret: str, name: str) -> str:
    """Return the run with `name` in place of its part that quotes the secret; the path before a token remains."""
    size = _PIECE_CHARACTERS
    starts = [start for start in range(0, len(run) - size + 1, size) if run[start : start + size] in secret]
    if not starts:
        return run
    start, end = starts[0], starts[-1] + size
    while start and run[start - 1 : start - 1 + size] in secret:
        start -= 1
    while end < len(run) and run[end + 1 - size : end + 1] in secret:
        end += 1
    return run[:start] + name + run[end:]


def _find_secrets(route: Route) -> Iterator[str]:
    """Yield the values of the extra headers and the proxy's password, in each form that a client may quote.

    A client may quote the header `Bearer x` as `Bearer x` or `x`, and Basic credentials also decoded.
    """
    values = [value for _, value in route.headers]
    proxy = None if route.proxy is None else URL(route.proxy)
    if proxy is not None and proxy.password:
        values += [proxy.password, base64.b64encode(f"{proxy.user or ''}:{proxy.password}".encode()).decode()]
    for value in values:
        scheme, _, credentials = value.rpartition(" ")
        decoded = _decode_basic(credentials) if scheme.lower() == "basic" else ()
        for secret in (value, credentials, *decoded):
            if len(secret) > _MAX_WORD_CHARACTERS:
                yield secret


def _decode_basic(credentials: str) -> tuple[str, ...]:
    """Return `user:password`, and the password (RFC 7617). Empty if the credentials cannot be decoded."""
    try:
        pair = base64.b64decode(credentials, validate=True).decode()
    except ValueError:
        return ()
    return pair, pair.partition(":")[2]
