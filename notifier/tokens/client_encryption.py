"""Encrypts tokens to the public keys of clients, which are read from each client's `jwks_uri` and cached.

A JWK Set is read when a delivery needs it, again when its Cache-Control expires, and at once after a 400, since the
client may have a new key. After 400s it is read at most every DOUBT_INTERVAL_SECONDS. While a set cannot be read, the
last set stays in use. If the server of a set did not answer last time, deliveries do not wait for it: without a key
they are deferred.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn, TypeAlias

import structlog
from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwe import JWERegistry
from joserfc.jwk import ECKey, OKPKey, RSAKey

from notifier.model.client import Client, ClientKeysSource, ContentEncryption, Encryption, KeyManagement, PublishedKey
from notifier.model.errors import InternalFault
from notifier.model.outcome import Cause
from notifier.model.shared_resources import shared_bound, shared_task
from notifier.network.http.issuer_document import DocumentIssue, IssuerDocument
from notifier.network.http.issuer_documents import DocumentReader
from notifier.tokens.foreign_keys import (
    MAX_SET_BYTES,
    encryption_key,
    find_coordinate_fault,
    format_key_fault,
    keep_used_keys,
    read_jwks,
)

Encrypt = Callable[[str, str | None, str], str]
"""Encrypts a JWS: returns a JWE whose header has this `typ` (unless None) and `iss`. Raises ValueError."""

_KINDS: Mapping[str, type[RSAKey | ECKey | OKPKey]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
READ_TIMEOUT_SECONDS = 5.0  # for a client's JWK Set: deliveries wait for the first one
DEFAULT_FRESH_SECONDS = 3600.0  # for a set whose answer has no Cache-Control
MIN_FRESH_SECONDS, MAX_FRESH_SECONDS = 60.0, 86_400.0  # without a maximum, only a 400 would reveal a new key
RETRY_SECONDS = 10.0  # after a set that could not be read, or has no key that fits
DOUBT_INTERVAL_SECONDS = 300.0  # between two readings for a client's 400
MAX_SETS = shared_bound(10_000)  # kept, 3 KiB each; a dropped set is read again


def compact_encrypter(key: PublishedKey, alg: KeyManagement, enc: ContentEncryption) -> Encrypt:
    """Return a function that encrypts tokens to this key (RFC 7516 §7.1). Raises ValueError if the key is invalid.

    joserfc by default refuses algorithms that it does not recommend, and unknown headers such as `iss` (B17). The
    registry here permits exactly `alg` and `enc`, and all headers.
    """
    registry = JWERegistry(algorithms=[alg, enc], strict_check_header=False)
    kid_header = {} if key.kid is None else {"kid": key.kid}
    try:
        # Leaves out `use` and `key_ops`: `encryption_key` has checked them, and joserfc accepts only `encrypt`.
        public = _KINDS[key.kty].import_key({"kty": key.kty, **dict(key.material)})
    except (JoseError, ValueError, TypeError, KeyError) as error:
        fault = find_coordinate_fault(key.kty, dict(key.material))
        raise ValueError(fault or f"is no {key.kty} key ({type(error).__name__})") from error

    def encrypt(token: str, typ: str | None, iss: str) -> str:
        typ_header = {} if typ is None else {"typ": typ}
        header = {"alg": str(alg), "enc": str(enc), "cty": "JWT", **typ_header, **kid_header, "iss": iss}
        try:
            return jwe.encrypt_compact(header, token, public, registry=registry)
        except (JoseError, TypeError) as error:
            raise ValueError(f"cannot be encrypted to ({type(error).__name__})") from error

    return encrypt


class ClientKeyReader:
    """Reads JWK Sets of clients."""

    def __init__(self) -> None:
        self._reader = DocumentReader(MAX_SET_BYTES)

    async def read(self, source: ClientKeysSource) -> IssuerDocument | DocumentIssue:
        """Return a client's JWK Set, or the reason why it cannot be read. Never raises."""
        route = source.route
        if route.withheld is not None:
            return DocumentIssue(text=route.withheld)
        return await self._reader.read(
            source.uri, egress=route.egress, tls=route.tls, within=READ_TIMEOUT_SECONDS, proxy=route.proxy
        )

    async def close(self) -> None:
        """Stop reading TLS files."""
        await self._reader.close()


ReadKeys = Callable[[ClientKeysSource], Awaitable[IssuerDocument | DocumentIssue]]
"""Fetches a client's JWK Set. Never raises, and bounds its own time."""

_EncrypterKey: TypeAlias = tuple[KeyManagement, ContentEncryption]


@dataclass(slots=True)
class _KeySet:
    """The keys of one `jwks_uri`, or the keys in a client's registration. Times are seconds of a monotonic clock.

    `keys`: the used keys, None until the set was read. `fault`: why the last reading failed. `due`: when the set is to
    be read again. `read_at`: when `keys` were read. `doubted_at`: when a 400 last caused a reading.
    `encrypters`: for each algorithm its encrypter, or the reason why no key suits.
    """

    keys: Sequence[PublishedKey] | None = None
    fault: str | None = None
    due: float = float("-inf")
    read_at: float = float("-inf")
    doubted_at: float = float("-inf")
    reading: asyncio.Task[None] | None = None
    encrypters: dict[_EncrypterKey, Encrypt | str] = field(default_factory=dict)


class ClientEncryption:
    """Encrypts the tokens of deliveries, with cached keys. `monotonic` is a clock that never jumps."""

    def __init__(self, read: ReadKeys, monotonic: Callable[[], float]) -> None:
        self._read = read
        self._monotonic = monotonic
        self._sets: OrderedDict[ClientKeysSource | tuple[PublishedKey, ...], _KeySet] = OrderedDict()

    async def encrypt(self, client: Client, encryption: Encryption, token: str) -> str:
        """Return the token as a JWE. Raises InternalFault(cause=encryption) if no key of the client is available."""
        source = encryption.keys
        key_set = self._set_of(source)
        if isinstance(source, ClientKeysSource):
            await self._refresh(source, key_set)
        encrypt = self._encrypt_for(encryption, key_set)
        try:
            return encrypt(token, client.token.typ, client.iss)
        except ValueError as error:
            _raise_fault(source, f"has a key that {error}")

    def explain_rejection(self, encryption: Encryption) -> str | None:
        """Return why a 400 may result from an outdated key of the client; otherwise None.

        None if the keys were read after the last 400 that caused a reading, or are part of the registration.

        It starts a new reading of the client's keys, at most every DOUBT_INTERVAL_SECONDS.
        """
        source = encryption.keys
        key_set = self._sets.get(source)
        if not isinstance(source, ClientKeysSource) or key_set is None:
            return None
        now = self._monotonic()
        if now - key_set.doubted_at >= DOUBT_INTERVAL_SECONDS:
            key_set.doubted_at = now
            self._start_reading(source, key_set)
        if key_set.read_at >= key_set.doubted_at:
            return None
        state = "are read again" if key_set.fault is None else f"cannot be read: {key_set.fault}"
        return f"it answered 400, perhaps since it has another key by now; its keys at {source.uri} {state}"

    async def close(self) -> None:
        """End the readings."""
        readings = [key_set.reading for key_set in self._sets.values() if key_set.reading is not None]
        for reading in readings:
            reading.cancel()
        await asyncio.gather(*readings, return_exceptions=True)

    def _set_of(self, source: ClientKeysSource | tuple[PublishedKey, ...]) -> _KeySet:
        key_set = self._sets.get(source)
        if key_set is not None:
            self._sets.move_to_end(source)
            return key_set
        if len(self._sets) >= MAX_SETS:
            oldest = next((key for key, key_set in self._sets.items() if key_set.reading is None), None)
            if oldest is not None:
                del self._sets[oldest]
        key_set = self._sets[source] = _KeySet() if isinstance(source, ClientKeysSource) else _KeySet(keys=source)
        return key_set

    async def _refresh(self, source: ClientKeysSource, key_set: _KeySet) -> None:
        """Read the set if it is due. Wait for a reading in progress, unless the last reading has failed."""
        if self._monotonic() >= key_set.due:
            self._start_reading(source, key_set)
        if key_set.reading is not None and key_set.fault is None:
            await asyncio.shield(key_set.reading)

    def _start_reading(self, source: ClientKeysSource, key_set: _KeySet) -> None:
        if key_set.reading is None:
            key_set.reading = shared_task(self._read_set(source, key_set))

    async def _read_set(self, source: ClientKeysSource, key_set: _KeySet) -> None:
        try:
            document = await self._read(source)
        finally:
            key_set.reading = None
        now = self._monotonic()
        keys = document.text if isinstance(document, DocumentIssue) else read_jwks(document.content)
        if isinstance(keys, str):
            if keys != key_set.fault:
                structlog.get_logger().warning("client_keys_unread", jwks_uri=source.uri, reason=keys)
            key_set.fault, key_set.due = keys, now + RETRY_SECONDS
            return
        assert isinstance(document, IssuerDocument), "it was read"
        fresh_seconds = DEFAULT_FRESH_SECONDS
        if document.fresh_seconds is not None:
            fresh_seconds = min(max(document.fresh_seconds, MIN_FRESH_SECONDS), MAX_FRESH_SECONDS)
        key_set.fault, key_set.due, key_set.read_at = None, now + fresh_seconds, now
        used = keep_used_keys(keys)
        if used != key_set.keys:
            key_set.keys, key_set.encrypters = used, {}

    def _encrypt_for(self, encryption: Encryption, key_set: _KeySet) -> Encrypt:
        source, kind = encryption.keys, (encryption.alg, encryption.enc)
        if key_set.keys is None:
            _raise_fault(source, f"cannot be read: {key_set.fault}")
        encrypter = key_set.encrypters.get(kind)
        if encrypter is None:
            encrypter = key_set.encrypters[kind] = _make_encrypter(key_set.keys, encryption)
        if isinstance(encrypter, str):
            key_set.due = min(key_set.due, key_set.read_at + RETRY_SECONDS)
            _raise_fault(source, encrypter)
        return encrypter


def _make_encrypter(keys: Sequence[PublishedKey], encryption: Encryption) -> Encrypt | str:
    key = encryption_key(keys, encryption.alg)
    if isinstance(key, str):
        return key
    try:
        return compact_encrypter(key, encryption.alg, encryption.enc)
    except ValueError as error:
        return f"has a key that {error}"


def _raise_fault(source: ClientKeysSource | tuple[PublishedKey, ...], reason: str) -> NoReturn:
    raise InternalFault(Cause.ENCRYPTION, format_key_fault(source, reason))
