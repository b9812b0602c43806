"""Encrypts tokens to the keys of their clients, which are read from each `jwks_uri` when needed, and kept.

A set is read again when its Cache-Control expires, and at once after a 400, since the client may have a new key. For a
client that refuses everything it is read at most every DOUBTED_EVERY seconds. Sets are read only for deliveries. While
a set cannot be read, the last one stays. No delivery waits for a server that did not answer last time: a delivery
without a key is deferred.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NoReturn, TypeAlias

import structlog
from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwe import JWERegistry
from joserfc.jwk import ECKey, OKPKey, RSAKey

from notifier.model.client import Client, ClientKeysSource, ContentEncryption, Encryption, KeyManagement, PublishedKey
from notifier.model.errors import InternalFault
from notifier.model.outcome import Cause
from notifier.network.http.issuer_document import IssuerDocument, UnreadDocument
from notifier.network.http.issuer_documents import DocumentReader
from notifier.tokens.client_jwks import encryption_key, without_key
from notifier.tokens.foreign_keys import read_jwks

Encrypt = Callable[[str, str | None, str], str]
"""Makes a JWE of a JWS, with this `typ` (None: without) and `iss`. Raises ValueError."""

_KINDS: Mapping[str, type[RSAKey | ECKey | OKPKey]] = MappingProxyType({"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey})
KEYS_WITHIN = 5.0  # seconds that a client has to give its JWK Set: deliveries wait for the first one
FRESH = 3600.0  # seconds for which a set counts whose answer has no Cache-Control
FRESH_LEAST, FRESH_MOST = 60.0, 86_400.0  # seconds, bounds; without the upper one, only a 400 would reveal a new key
AGAIN = 10.0  # seconds after a set that could not be read, or has no key that fits
DOUBTED_EVERY = 300.0  # seconds between two readings for a client's 400
MOST_SETS = 10_000  # kept, 3 KiB each; a dropped set is read again


def compact_encrypter(key: PublishedKey, alg: KeyManagement, enc: ContentEncryption) -> Encrypt:
    """Return a function that encrypts to this key. Raises ValueError if the key is invalid.

    It makes a JWS in a JWE (RFC 7516 §7.1, RFC 7519 §5.2) by joserfc. By default that refuses algorithms that it
    does not recommend, and unknown headers such as the `iss` of B17. It supports more of RFC 7518 than clients may
    request: `KeyManagement` and `ContentEncryption` are the limit.
    """
    registry = JWERegistry(algorithms=[alg, enc], strict_check_header=False)
    named = {} if key.kid is None else {"kid": key.kid}
    try:
        # Without `use` and `key_ops`, which were looked at: of the latter joserfc takes `encrypt` alone.
        public = _KINDS[key.kty].import_key({"kty": key.kty, **dict(key.material)})
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"is no {key.kty} key ({type(error).__name__})") from error

    def encrypt(token: str, typ: str | None, iss: str) -> str:
        typed = {} if typ is None else {"typ": typ}
        header = {"alg": str(alg), "enc": str(enc), "cty": "JWT", **typed, **named, "iss": iss}
        try:
            return jwe.encrypt_compact(header, token, public, registry=registry)
        except (JoseError, TypeError) as error:
            raise ValueError(f"cannot be encrypted to ({type(error).__name__})") from error

    return encrypt


class ClientKeyReader:
    """Reads JWK Sets of clients."""

    def __init__(self) -> None:
        self._reader = DocumentReader()

    async def read(self, place: ClientKeysSource) -> IssuerDocument | UnreadDocument:
        """Read a client's JWK Set, or return the reason why it cannot be read. Never raises."""
        route = place.route
        if route.withheld is not None:
            return UnreadDocument(text=route.withheld)
        return await self._reader.read(
            place.uri, egress=route.egress, tls=route.tls, within=KEYS_WITHIN, proxy=route.proxy
        )

    async def close(self) -> None:
        """Stop reading TLS files."""
        await self._reader.close()


ReadKeys = Callable[[ClientKeysSource], Awaitable[IssuerDocument | UnreadDocument]]
"""Fetches a client's JWK Set. Never raises, and bounds its own time."""

_Asked: TypeAlias = tuple[KeyManagement, ContentEncryption]


@dataclass(slots=True)
class _KeySet:
    """The keys of one `jwks_uri`, or of a registration.

    `keys` None: never read. `fault`: why the last reading failed. By a clock that never goes back: `due` to be read
    again, `read_at` when `keys` came, `doubted` by a 400.
    """

    keys: tuple[PublishedKey, ...] | None = None
    fault: str | None = None
    due: float = float("-inf")
    read_at: float = float("-inf")
    doubted: float = float("-inf")
    reading: asyncio.Task[None] | None = None
    prepared: dict[_Asked, Encrypt | str] = field(default_factory=dict)


class ClientEncryption:
    """Satisfies `Encrypter`. `steady` gives seconds of a clock that never goes back."""

    def __init__(self, read: ReadKeys, steady: Callable[[], float]) -> None:
        self._read = read
        self._steady = steady
        self._sets: OrderedDict[ClientKeysSource | tuple[PublishedKey, ...], _KeySet] = OrderedDict()

    async def encrypt(self, client: Client, encryption: Encryption, token: str) -> str:
        """Return the token as a JWE. Raises InternalFault(cause=encryption) if the client's key cannot be had now."""
        where = encryption.keys
        key_set = self._set_of(where)
        if isinstance(where, ClientKeysSource):
            await self._current(where, key_set)
        encrypt = self._encrypt_for(encryption, key_set)
        try:
            return encrypt(token, client.token.typ, client.iss)
        except ValueError as error:
            _refuse(where, f"has a key that {error}")

    def doubted(self, encryption: Encryption) -> str | None:
        """Say that a 400 may come from a key that the client no longer has. Its keys are read again, not too often."""
        where = encryption.keys
        if not isinstance(where, ClientKeysSource) or (key_set := self._sets.get(where)) is None:
            return None
        now = self._steady()
        if now - key_set.doubted >= DOUBTED_EVERY:
            key_set.doubted = now
            self._look(where, key_set)
        if key_set.read_at >= key_set.doubted:
            return None
        why = "are read again" if key_set.fault is None else f"cannot be read: {key_set.fault}"
        return f"it answered 400, perhaps since it has another key by now; its keys at {where.uri} {why}"

    async def close(self) -> None:
        """End the readings."""
        readings = [key_set.reading for key_set in self._sets.values() if key_set.reading is not None]
        for reading in readings:
            reading.cancel()
        await asyncio.gather(*readings, return_exceptions=True)

    def _set_of(self, where: ClientKeysSource | tuple[PublishedKey, ...]) -> _KeySet:
        key_set = self._sets.get(where)
        if key_set is not None:
            self._sets.move_to_end(where)
            return key_set
        if len(self._sets) >= MOST_SETS:
            oldest = next((key for key, key_set in self._sets.items() if key_set.reading is None), None)
            if oldest is not None:
                del self._sets[oldest]
        key_set = self._sets[where] = _KeySet() if isinstance(where, ClientKeysSource) else _KeySet(keys=where)
        return key_set

    async def _current(self, where: ClientKeysSource, key_set: _KeySet) -> None:
        """Read the set if it is due. Who comes meanwhile waits for that reading, unless the last one failed."""
        if self._steady() >= key_set.due:
            self._look(where, key_set)
        if key_set.reading is not None and key_set.fault is None:
            await asyncio.shield(key_set.reading)

    def _look(self, where: ClientKeysSource, key_set: _KeySet) -> None:
        if key_set.reading is None:
            key_set.reading = asyncio.create_task(self._take(where, key_set))

    async def _take(self, where: ClientKeysSource, key_set: _KeySet) -> None:
        try:
            document = await self._read(where)
        finally:
            key_set.reading = None
        now = self._steady()
        keys = document.text if isinstance(document, UnreadDocument) else read_jwks(document.content)
        if isinstance(keys, str):
            if keys != key_set.fault:
                structlog.get_logger().warning("client_keys_unread", jwks_uri=where.uri, reason=keys)
            key_set.fault, key_set.due = keys, now + AGAIN
            return
        assert isinstance(document, IssuerDocument), "it was read"
        fresh = FRESH if document.max_age is None else min(max(document.max_age, FRESH_LEAST), FRESH_MOST)
        key_set.fault, key_set.due, key_set.read_at = None, now + fresh, now
        if keys != key_set.keys:
            key_set.keys, key_set.prepared = keys, {}

    def _encrypt_for(self, encryption: Encryption, key_set: _KeySet) -> Encrypt:
        where, asked = encryption.keys, (encryption.alg, encryption.enc)
        if key_set.keys is None:
            _refuse(where, f"cannot be read: {key_set.fault}")
        prepared = key_set.prepared.get(asked)
        if prepared is None:
            prepared = key_set.prepared[asked] = _prepared(key_set.keys, encryption)
        if isinstance(prepared, str):
            key_set.due = min(key_set.due, key_set.read_at + AGAIN)
            _refuse(where, prepared)
        return prepared


def _prepared(keys: tuple[PublishedKey, ...], encryption: Encryption) -> Encrypt | str:
    key = encryption_key(keys, encryption.alg)
    if isinstance(key, str):
        return key
    try:
        return compact_encrypter(key, encryption.alg, encryption.enc)
    except ValueError as error:
        return f"has a key that {error}"


def _refuse(where: ClientKeysSource | tuple[PublishedKey, ...], why: str) -> NoReturn:
    raise InternalFault(Cause.ENCRYPTION, without_key(where, why))
