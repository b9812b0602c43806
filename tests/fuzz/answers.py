"""Random answers of a receiver: bytes similar and dissimilar to HTTP, and the end of the connection."""

import gzip
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise

from hypothesis import strategies as st

from tests.support.behaviours import Peer


class End(Enum):
    """The end of the connection after the bytes."""

    KEPT = "kept"
    CLOSED = "closed"
    RESET = "reset"
    FLOOD = "flood"  # the last piece again and again, until the other side has had enough


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """The bytes of one answer, in the pieces in which they are sent."""

    pieces: tuple[bytes, ...]
    end: End

    async def run(self, peer: Peer) -> None:
        """Answer one request by the script."""
        for piece in self.pieces:
            await peer.send(piece)
        match self.end:
            case End.KEPT:
                pass
            case End.CLOSED:
                peer.close()
            case End.RESET:
                peer.reset()
            case End.FLOOD:
                for _ in range(4096):
                    await peer.send(self.pieces[-1] or b"x")
                peer.close()


_BOMB = gzip.compress(bytes(4 * 1024 * 1024))
_STATUS_LINES = (
    *[b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 204 No Content\r\n", b"HTTP/1.1 503 Busy\r\n", b"HTTP/1.0 200 OK\r\n"] * 12,
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n",
    b"HTTP/1.1 103 Early\r\nLink: </a>\r\n\r\n" * 40, b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n",
    b"HTTP/2 200\r\n", b"HTTP/9.9 200 OK\r\n", b"HTTP/1.1 2000 OK\r\n", b"HTTP/1.1 20 OK\r\n", b"HTTP/1.1 -1 OK\r\n",
    b"HTTP/1.1 200\r\n", b"HTTP/1.1  200  OK\r\n", b"HTTP/1.1 200 \xff\xfe\x00\r\n", b"HTTP/1.1 200 OK\n",
    b"http/1.1 200 OK\r\n", b"HTTP/1.1 000 OK\r\n", b"HTTP/1.1 999 OK\r\n", b"HTTP/1.1 600 OK\r\n",
    b"\r\n\r\nHTTP/1.1 200 OK\r\n", b"GET / HTTP/1.1\r\n", b"HTTP/1.1 200 " + b"m" * 20_000 + b"\r\n",
    b"SSH-2.0-OpenSSH_9\r\n", b"\x15\x03\x01\x00\x02\x02\x46", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"ICY 200 OK\r\n",
    b"", b"\x00" * 64, b"HTTP/1.1 200 OK\r",
)  # fmt: skip
_HEADERS = (
    b"Content-Length: 0\r\n", b"Content-Length: 5\r\n", b"Content-Length: 5\r\nContent-Length: 6\r\n",
    b"Content-Length: -1\r\n", b"Content-Length: 99999999999999999999999\r\n", b"Content-Length: 5x\r\n",
    b"Content-Length:\r\n", b"Content-Length: +5\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", b"Transfer-Encoding: gzip, chunked\r\n",
    b"Transfer-Encoding: xchunked\r\n", b"Transfer-Encoding: chunked, chunked\r\n", b"Content-Encoding: gzip\r\n",
    b"Content-Encoding: br\r\n", b"Content-Encoding: \xff\r\n", b"Connection: close\r\n",
    b"Connection: upgrade\r\nUpgrade: websocket\r\n", b"Connection: keep-alive\r\n", b"Retry-After: 1\r\n",
    b"Retry-After: -1\r\n", b"Retry-After: " + b"9" * 400 + b"\r\n", b"Retry-After: \xb2\r\n", b"Retry-After: ,\r\n",
    b"Retry-After: Fri, 31 Dec 99999 23:59:59 GMT\r\n", b"Retry-After: Fri, 31 Dec 1999 23:59:59 +9999999999\r\n",
    b"Retry-After: nan\r\n", b"Retry-After: Sun, 06 Nov 1994 08:49:37 GMT\r\n", b"Retry-After: \x00\r\n",
    b"Retry-After: 0 0 0 0\r\n", b"Retry-After: 1, 2\r\n", b"Set-Cookie: a=b; Expires=never; \xff\r\n",
    b"Set-Cookie: " + b"=;" * 500 + b"\r\n", b"Set-Cookie: a\x01=b\r\n", b"Location: ::\r\n",
    b"Content-Type: text/html; charset=no-such; boundary=\r\n", b"Content-Type: \xff\r\n", b" folded: yes\r\n",
    b"no colon\r\n", b": none\r\n", b"X\x00Y: z\r\n", b"X Y: z\r\n", b"X: a\r\n b\r\n", b"X: " + b"h" * 9000 + b"\r\n",
    b"X: y\r\n" * 3000, b"X: \xff\xfe\n", b"Trailer: X\r\n", b'WWW-Authenticate: Basic realm="\r\n',
    b'Link: <>; rel="\r\n', b"Link: <http://[>; rel=next\r\n", b"Date: never\r\n",
)  # fmt: skip
_BODIES = (
    b"", b"hello", b"hello world", b"5\r\nhello\r\n0\r\n\r\n", b"5\r\nhello\r\n", b"ffffffffffffffffff\r\nhello",
    b"-5\r\nhello\r\n0\r\n\r\n", b"5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n", b"5 \r\nhello\r\n0\r\n\r\n",
    b"0x5\r\nhello\r\n0\r\n\r\n", b"5\r\nhelloXX0\r\n\r\n", b"\r\n", b"zz\r\n",
    b"5;" + b"e" * 70_000 + b"\r\nhello\r\n0\r\n\r\n", b"0\r\n" + b"T: t\r\n" * 9000 + b"\r\n",
    b"0" * 70_000 + b"5\r\nhello\r\n0\r\n\r\n", _BOMB, zlib.compress(bytes(100_000)), b"\x1f\x8b", b"x" * 100_000,
    b"\xff\xfe" * 900, b"\x00\x1b[31m\x7f\xc2\x85", "\u2028é".encode() * 500,
    b"HTTP/1.1 500 Second\r\nContent-Length: 0\r\n\r\n", b"1\r\n.\r\n" * 9000, b"hello" + b"HTTP/1.1 200 OK\r\n\r\n",
)  # fmt: skip


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    """An answer of odd parts, sometimes truncated, and sent in up to three pieces."""
    head = draw(st.sampled_from(_STATUS_LINES)) + b"".join(draw(st.lists(st.sampled_from(_HEADERS), max_size=3)))
    sent = head + draw(st.sampled_from([b"\r\n"] * 14 + [b"", b"\n"])) + draw(st.sampled_from(_BODIES))
    how = draw(st.integers(0, 9))
    if how == 0:
        sent = sent[: draw(st.integers(0, len(sent)))]
    elif how == 1:
        at = draw(st.integers(0, len(sent)))
        sent = sent[:at] + draw(st.binary(min_size=1, max_size=3)) + sent[at + 1 :]
    cuts = sorted(draw(st.lists(st.integers(0, len(sent)), max_size=2)))
    # An answer that never ends costs the whole deadline, so few connections are kept where that is likely.
    ends = [End.CLOSED] * 10 + [End.RESET] * 3 + [End.FLOOD] + [End.KEPT]
    return Script(pieces=_cut(sent, cuts), end=draw(st.sampled_from(ends)))


def _cut(sent: bytes, cuts: Sequence[int]) -> tuple[bytes, ...]:
    places = [0, *cuts, len(sent)]
    return tuple(sent[start:end] for start, end in pairwise(places))
