"""Seals the context of a front-channel page into its URL: whose session ended, and which clients are to be asked.

The context is JSON, deflated (zlib, RFC 1950), and encrypted and authenticated by Fernet, without the padding at its
end: `["iss", "sid" or null, client, …]`. A client is its `client_id`, or `[client_id, sid]` if it knows the session by
a `sid` of its own. Nothing is stored: whoever has one of the keys can seal a context and open it.
"""

import base64
import hashlib
import json
import re
import zlib

from cryptography.fernet import InvalidToken, MultiFernet

from notifier.model.front_channel import FrontChannelContext
from notifier.model.frozen import frozen

LIFETIME = 600  # seconds that a context can be opened
LONGEST = 7500  # characters: servers take a line of 8,190, and the rest of the URL needs some
_SPELLED = re.compile(r"[A-Za-z0-9_-]+={0,2}")  # base64url; decoders skip whatever else is in it
_LARGEST = 256 * 1024  # bytes of JSON; what is deflated into LONGEST characters could be far more


class TooManyClients(Exception):  # noqa: N818  a fact, not a fault of ours
    """The context would be longer than LONGEST characters. `fit` of its clients would not be too many."""

    def __init__(self, fit: int) -> None:
        super().__init__(f"the context would be longer than {LONGEST} characters; its first {fit} clients fit")
        self.fit = fit


@frozen
class OpenedContext:
    """A context that was sealed by one of our keys. `id` is the same at each opening; it expires at `until` (epoch)."""

    context: FrontChannelContext
    id: str
    until: float


def seal(context: FrontChannelContext, keys: MultiFernet, now: float) -> str:
    """Seal the context by the first key. Raises TooManyClients."""
    text = _sealed(context, keys, now)
    if len(text) <= LONGEST:
        return text
    low, high = 0, len(context.clients)  # `low` clients fit, `high` do not
    while high - low > 1:
        middle = (low + high) // 2
        part = FrontChannelContext(iss=context.iss, sid=context.sid, clients=context.clients[:middle])
        low, high = (middle, high) if len(_sealed(part, keys, now)) <= LONGEST else (low, middle)
    raise TooManyClients(low)


def open_sealed(text: str, keys: MultiFernet, now: float) -> OpenedContext | None:
    """Open a context. None if none of the keys has sealed it, if it is older than LIFETIME, or is no context."""
    if len(text) > LONGEST or not _SPELLED.fullmatch(text):
        return None
    padded = (text + "=" * (-len(text) % 4)).encode()
    try:
        inflating = zlib.decompressobj()
        plain = inflating.decompress(keys.decrypt_at_time(padded, LIFETIME, int(now)), _LARGEST)
        sealed_at = keys.extract_timestamp(padded)
        document = json.loads(plain)
        json.dumps(document, ensure_ascii=False).encode()  # half a surrogate pair can be in no URL
    except (InvalidToken, zlib.error, ValueError, RecursionError):
        return None
    context = _read(document)
    if context is None or inflating.unconsumed_tail:
        return None
    signed = base64.urlsafe_b64decode(padded)  # of the bytes, since the last character can be written in several ways
    digest = hashlib.blake2b(signed, digest_size=16).hexdigest()
    return OpenedContext(context=context, id=digest, until=float(sealed_at + LIFETIME))


def _sealed(context: FrontChannelContext, keys: MultiFernet, now: float) -> str:
    clients = [client_id if sid is None else [client_id, sid] for client_id, sid in context.clients]
    plain = json.dumps([context.iss, context.sid, *clients], separators=(",", ":"), ensure_ascii=False).encode()
    return keys.encrypt_at_time(zlib.compress(plain, 9), int(now)).decode().rstrip("=")


def _read(document: object) -> FrontChannelContext | None:
    if not isinstance(document, list) or len(document) < 2:
        return None
    iss, sid, *raw = document
    clients = [client for client in map(_client, raw) if client is not None]
    if not isinstance(iss, str) or not (sid is None or isinstance(sid, str)) or len(clients) != len(raw):
        return None
    return FrontChannelContext(iss=iss, sid=sid, clients=tuple(clients))


def _client(entry: object) -> tuple[str, str | None] | None:
    match entry:
        case str(client_id):
            return client_id, None
        case [str(client_id), str(sid)]:
            return client_id, sid
        case _:
            return None
