"""Seal the context of a front-channel page into its URL: the ended session, and the clients to request.

The context is the JSON `["iss", "sid" or null, client, …]`, deflated (zlib, RFC 1950), and encrypted and authenticated
by Fernet, without the padding at its end. A client is its `client_id`, or `[client_id, sid]` if it has another `sid`,
or `[client_id, sid or null, frontchannel_logout_uri, session required]` if the address is included. Nothing is stored:
any holder of a key can seal and open contexts.
"""

import base64
import hashlib
import json
import re
import zlib

from cryptography.fernet import InvalidToken, MultiFernet

from notifier.model.client import FrontChannelClient
from notifier.model.front_channel import FrontChannelContext
from notifier.model.frozen import frozen

CONTEXT_LIFETIME_SECONDS = 600  # a context expires then
MAX_CONTEXT_CHARACTERS = 7500  # servers accept a request line of 8,190
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+={0,2}")  # decoders would skip other characters
_MAX_JSON_BYTES = 256 * 1024  # bounds the inflated size


class TooManyClients(Exception):  # noqa: N818  an expected result
    """The context would exceed MAX_CONTEXT_CHARACTERS."""


@frozen
class OpenedContext:
    """A context sealed by one of notifier's keys. `id` identifies the sealed context. `expires_at`: epoch seconds.

    `exclusive_key`: no other issuer than that of the context has the key.
    """

    context: FrontChannelContext
    id: str
    expires_at: float
    exclusive_key: bool = False


def seal_context(context: FrontChannelContext, keys: MultiFernet, now: float) -> str:
    """Return the context sealed by the first key. Raises TooManyClients."""
    text = _encrypt(context, keys, now)
    if len(text) > MAX_CONTEXT_CHARACTERS:
        raise TooManyClients
    return text


def open_context(text: str, keys: MultiFernet, now: float) -> OpenedContext | None:
    """Return the opened context; None if it is invalid, expired, or not sealed by one of the keys."""
    if len(text) > MAX_CONTEXT_CHARACTERS or not _BASE64URL.fullmatch(text):
        return None
    padded = (text + "=" * (-len(text) % 4)).encode()
    try:
        inflating = zlib.decompressobj()
        plain = inflating.decompress(keys.decrypt_at_time(padded, CONTEXT_LIFETIME_SECONDS, int(now)), _MAX_JSON_BYTES)
        sealed_at = keys.extract_timestamp(padded)
        document = json.loads(plain)
        json.dumps(document, ensure_ascii=False).encode()  # refuse half a surrogate pair, which no URL can contain
    except (InvalidToken, zlib.error, ValueError, RecursionError):
        return None
    context = _parse_context(document)
    if context is None or inflating.unconsumed_tail:
        return None
    signed = base64.urlsafe_b64decode(padded)  # the id is of the bytes: the last character has several spellings
    digest = hashlib.blake2b(signed, digest_size=16).hexdigest()
    return OpenedContext(context=context, id=digest, expires_at=float(sealed_at + CONTEXT_LIFETIME_SECONDS))


def _encrypt(context: FrontChannelContext, keys: MultiFernet, now: float) -> str:
    clients = [_to_entry(client_id, sid, context.supplied.get(client_id)) for client_id, sid in context.clients]
    plain = json.dumps([context.iss, context.sid, *clients], separators=(",", ":"), ensure_ascii=False).encode()
    return keys.encrypt_at_time(zlib.compress(plain, 9), int(now)).decode().rstrip("=")


def _to_entry(client_id: str, sid: str | None, supplied: FrontChannelClient | None) -> object:
    if supplied is not None:
        return [client_id, sid, supplied.frontchannel_logout_uri, supplied.frontchannel_logout_session_required]
    return client_id if sid is None else [client_id, sid]


def _parse_context(document: object) -> FrontChannelContext | None:
    """Parse the context. Repeated clients are dropped, as otherwise a short text could render a huge page."""
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
            case [str(client_id), str(own)]:
                clients.setdefault(client_id, own)
            case [str(client_id), None | str() as own, str(uri), bool(required)]:
                if client_id not in clients:
                    front = FrontChannelClient(
                        frontchannel_logout_uri=uri, frontchannel_logout_session_required=required
                    )
                    clients[client_id], supplied[client_id] = own, front
            case _:
                return None
    return FrontChannelContext(iss=iss, sid=sid, clients=tuple(clients.items()), supplied=supplied)
