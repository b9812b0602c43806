"""The printable beginning of a client's answer, kept for diagnosis (R11), without anything secret that it echoes."""

import re
from collections.abc import Iterable

BODY_LIMIT = 16 * 1024  # bytes that are read
TEXT_LIMIT = 1024  # characters that are kept

_RUN = re.compile(r"[A-Za-z0-9_.-]{15,}")
_STEP = 8  # characters: any 15 of the token in a row hold 8 that begin at a multiple of 8


def answer_text(body: bytes, token: str, secrets: Iterable[str]) -> str:
    """The first 1 KiB of `body` as text; control characters become spaces, parts of the token `[token]`."""
    text = body[: TEXT_LIMIT * 4 + len(token)].decode("utf-8", "replace")
    text = "".join(character if character.isprintable() else " " for character in text)
    for secret in secrets:
        text = text.replace(secret, "[header]")
    return _RUN.sub(lambda run: "[token]" if _echoes(run[0], token) else run[0], text)[:TEXT_LIMIT].strip()


def _echoes(run: str, token: str) -> bool:
    return any(run[start : start + _STEP] in token for start in range(0, len(run) - _STEP + 1, _STEP))
