"""Chooses the headers of a request that go on with its event, for the expressions of its source and for dead letters.

What may hold a secret never does: the proof's own header, and each whose name sounds like one.
"""

import re
from collections.abc import Collection, Iterable
from itertools import chain

from notifier.server.problem import Refusal, problem

MOST = 8192  # bytes of all that is kept: one AMQP frame must hold it, escaped
_SECRET = re.compile(r"auth|cookie|token|secret|password|passwd|credential|api-?key|-key\b|signature|cert|jwt")
_HOP = frozenset(
    {"connection", "content-length", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)  # they concern this connection alone
_HARMLESS = re.compile(r"ce-|traceparent$|tracestate$|content-type$|(x-)?idempotency-key$")


def kept_headers(headers: Iterable[tuple[str, str]], secret: Collection[str]) -> dict[str, str]:
    """The headers that go on, by name in lower case. Raises Refusal (431) if they are too large.

    `secret` are names in lower case that never go on. A header that is there several times is joined (RFC 9110 §5.2).
    """
    kept: dict[str, str] = {}
    for raw, value in headers:
        name = raw.lower()
        if name in secret or name in _HOP or (_SECRET.search(name) and not _HARMLESS.match(name)):
            continue
        text = value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        kept[name] = f"{kept[name]}, {text}" if name in kept else text
    if sum(map(len, chain(kept, kept.values()))) > MOST:
        raise Refusal(problem(431, f"The headers are larger than {MOST // 1024} KiB"))
    return kept
