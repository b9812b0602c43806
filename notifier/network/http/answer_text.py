"""Keeps the printable beginning of a client's answer for diagnosis (R11), without secrets that it quotes."""

import base64
import re
from collections.abc import Iterator

from yarl import URL

from notifier.model.client import Route
from notifier.model.redaction import redact_secret

BODY_LIMIT = 16 * 1024  # bytes that are read
TEXT_LIMIT = 1024  # characters that are kept

_RUN = re.compile(r"[A-Za-z0-9_.-]{15,}")
_STEP = 8  # characters: any 15 consecutive ones of the token contain an aligned piece of 8
_SHORT = 5  # characters: a shorter header value is no secret, and might be any word


def answer_text(body: bytes, token: str, route: Route) -> str:
    """Return the first 1 KiB of `body` as text; control characters become spaces, parts of the token `[token]`.

    The values of the route's headers become `[header]`, also where the client quotes a part of 15 characters.
    """
    text = body[: TEXT_LIMIT * 4 + len(token)].decode("utf-8", "replace")
    text = "".join(character if character.isprintable() else " " for character in text)
    secrets = list(_secrets(route))
    for secret in secrets:
        text = redact_secret(text, secret, "[header]")

    def hidden(run: re.Match[str]) -> str:
        if _echoes(run[0], token):
            return "[token]"
        return "[header]" if any(_echoes(run[0], secret) for secret in secrets) else run[0]

    return _RUN.sub(hidden, text)[:TEXT_LIMIT].strip()


def _echoes(run: str, secret: str) -> bool:
    return any(run[start : start + _STEP] in secret for start in range(0, len(run) - _STEP + 1, _STEP))


def _secrets(route: Route) -> Iterator[str]:
    """The secrets in extra headers and the proxy's password, as a client might quote them: `Bearer x`, or only `x`."""
    values = [value for _, value in route.headers]
    if route.proxy is not None and (password := URL(route.proxy).password):
        values += [password, base64.b64encode(f"{URL(route.proxy).user or ''}:{password}".encode()).decode()]
    for value in values:
        scheme, _, last = value.rpartition(" ")
        for secret in (value, last, *(_of_basic(last) if scheme.lower() == "basic" else ())):
            if len(secret) > _SHORT:
                yield secret


def _of_basic(credentials: str) -> tuple[str, ...]:
    """`user:password`, and the password (RFC 7617)."""
    try:
        pair = base64.b64decode(credentials, validate=True).decode()
    except ValueError:
        return ()
    return pair, pair.partition(":")[2]
