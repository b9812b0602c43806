"""Seal the context of a front-channel page into its URL: the ended session, and the clients that the page calls.

The context is the JSON `["iss", "sid" or null, entry, …]`, compressed (zlib, RFC 1950), and encrypted by Fernet,
without base64 padding. An entry is a `client_id`, `[client_id, sid]` for a client with another `sid`, or
`[client_id, sid or null, frontchannel_logout_uri, frontchannel_logout_session_required]` if the publisher supplied the
address. Nothing is stored: any holder of a key can seal and open contexts.
"""

import base64
import hashlib
import json
import re
import zlib

from cryptography.fernet import InvalidToken, MultiFernet

from notifier.model.client import FrontChannelClient
from notifier.model.front_channel import FrontChannelContext
from notifier.model.record import record

CONTEXT_LIFETIME_SECONDS = 600  # from sealing until a page can no longer be opened
MAX_CONTEXT_CHARACTERS = 7500  # many servers accept a request line of 8,190 bytes
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+={0,2}")  # Python's decoder skips other characters
_MAX_JSON_BYTES = 256 * 1024  # of a decompressed context


class TooManyClients(Exception):  # noqa: N818  an expected result
    """The context would exceed MAX_CONTEXT_CHARACTERS."""


@record
class OpenedContext:
    """A context sealed by one of notifier's keys. `id`: its digest. `expires_at`: epoch seconds.

    `exclusive_key`: only the issuer of the context has the key that sealed it.
    """

    context: FrontChannelContext
    id: str
    expires_at: float
    exclusive_key: bool = False


def seal_context(context: FrontChannelContext, keys: MultiFernet, now: float) -> str:
    """Return the context sealed by the first key. Raises TooManyClients."""
    entries = [_to_entry(client_id, sid, context.supplied.get(client_id)) for client_id, sid in context.clients]
    plain = json.dumps([context.iss, context.sid, *entries], separators=(",", ":"), ensure_ascii=False).encode()
    text = keys.encrypt_at_time(zlib.compress(plain, zlib.Z_BEST_COMPRESSION), int(now)).decode().rstrip("=")
    if len(text) > MAX_CONTEXT_CHARACTERS:
        raise TooManyClients
    return text


def open_context(text: str, keys: MultiFernet, now: float) -> OpenedContext | None:
    """Return the opened context; None if it is invalid, expired or sealed by another key."""
    if len(text) > MAX_CONTEXT_CHARACTERS or not _BASE64URL.fullmatch(text):
        return None
    padded = (text + "=" * (-len(text) % 4)).encode()
    try:
        compressed = keys.decrypt_at_time(padded, CONTEXT_LIFETIME_SECONDS, int(now))
        decompressor = zlib.decompressobj()
        document = json.loads(decompressor.decompress(compressed, _MAX_JSON_BYTES))
        sealed_at = keys.extract_timestamp(padded)
        json.dumps(document, ensure_ascii=False).encode()  # refuse half a surrogate pair, which no URL can contain
    except (InvalidToken, zlib.error, ValueError, RecursionError):
        return None
    context = _parse_context(document)
    exceeds_limit = bool(decompressor.unconsumed_tail)
    if context is None or exceeds_limit:
        return None
    sealed = base64.urlsafe_b64decode(padded)  # several texts decode to the same bytes, and have the same id
    digest = hashlib.blake2b(sealed, digest_size=16).hexdigest()
    return OpenedContext(context=context, id=digest, expires_at=float(sealed_at + CONTEXT_LIFETIME_SECONDS))


def _to_entry(client_id: str, sid: str | None, supplied: FrontChannelClient | None) -> object:
    if supplied is not None:
        return [client_id, sid, supplied.frontchannel_logout_uri, supplied.frontchannel_logout_session_required]
    return client_id if sid is None else [client_id, sid]


def _parse_context(document: object) -> FrontChannelContext | None:
    """Return the context of a decrypted document; None if its form is wrong. Only a client's first entry counts.

    A short compressed text can contain thousands of equal entries, which would make a huge page.
    """
    match document:
        case [str(iss), None | str() as sid, *entries]:
            clients: dict[str, str | None] = {}
            supplied: dict[str, FrontChannelClient] = {}
        case _:
            return None
    for entry in entries:
        match entry:
            case str(client_id):
                clients.setdefault(client_id, None)
            case [str(client_id), str(client_sid)]:
                clients.setdefault(client_id, client_sid)
            case [str(client_id), None | str() as client_sid, str(uri), bool(session_required)]:
                if client_id not in clients:
                    clients[client_id] = client_sid
                    supplied[client_id] = FrontChannelClient(
                        frontchannel_logout_uri=uri, frontchannel_logout_session_required=session_required
                    )
            case _:
                return None
    return FrontChannelContext(iss=iss, sid=sid, clients=tuple(clients.items()), supplied=supplied)
