"""Fetch the signing certificates of Amazon SNS, and confirm subscriptions.

Anybody can post a message that names a certificate. So certificates are fetched one at a time, two per second, only
from the server of the configured topic (`SnsTopic`), and the clients' egress rules apply.

An attacker invents names, while SNS sends many messages with the same name, and each again after a 503. So each name is
queued once, however many messages have it. Names requested repeatedly are fetched first, in order of age, so a genuine
name never waits for later ones. After a failed fetch, a certificate is not fetched for RETRY_AFTER_SECONDS.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog
from aiohttp.abc import AbstractResolver
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import RSAAlgorithm

from notifier.model.client import EgressPolicy, TlsFiles
from notifier.model.moment import MinuteLimit
from notifier.network.http.client_contexts import TlsContexts
from notifier.network.http.json_client import JsonClient, NoAnswer
from notifier.network.http.json_parts import Bounds
from notifier.network.http.name_resolver import NameResolver
from notifier.tokens.foreign_keys import rsa_fault

REQUEST_TIMEOUT_SECONDS = 5.0  # for a certificate or a confirmation; SNS waits for 15
MAX_BODY_BYTES = 32 * 1024  # a certificate has 2 KiB
MAX_CACHED_CERTIFICATES = 16
FETCH_INTERVAL_SECONDS = 0.5
MAX_QUEUED_CERTIFICATES = 512  # beyond, the oldest that was requested only once is dropped
MAX_AWAITED_CERTIFICATES = 32  # messages for further certificates get a 503 at once
MESSAGE_WAIT_SECONDS = 10.0  # SNS sends the message again 20 s later
RETRY_AFTER_SECONDS = 10.0  # until a failed fetch is repeated


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateUnavailable:
    """The message cannot be verified yet, because its certificate could not be fetched."""

    text: str = "The certificate of SNS cannot be read; send the message again"


class _QueuedCertificate:
    """A queued certificate. `requested_again`: several messages requested it. `waiting_count`: messages that wait."""

    def __init__(self) -> None:
        self.requested_again = False
        self.waiting_count = 0
        self.result: asyncio.Future[RSAPublicKey | CertificateUnavailable] = asyncio.get_running_loop().create_future()


class SnsServer:
    """Fetches and caches certificates.

    `egress` returns the current rules. Without a `resolver`, aiodns resolves names; without `tls`, the system's
    authorities are trusted. `clock` returns epoch seconds, `steady` seconds of a monotonic clock.
    """

    def __init__(
        self,
        egress: Callable[[], EgressPolicy],
        *,
        resolver: AbstractResolver | None = None,
        tls: TlsFiles | None = None,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._egress = egress
        self._resolver = resolver
        self._tls = TlsFiles() if tls is None else tls
        self._contexts = TlsContexts()
        self._clock, self._steady, self._pause = clock, steady, pause
        self._keys: OrderedDict[str, tuple[RSAPublicKey, float]] = OrderedDict()
        self._queued: dict[str, _QueuedCertificate] = {}  # by address, the oldest first
        self._retry_at: dict[str, float] = {}  # by address, until when
        self._fetching: asyncio.Task[None] | None = None
        self._next_fetch_at = float("-inf")
        self._log_limit = MinuteLimit(steady)

    async def fetch_key(self, certificate: str) -> RSAPublicKey | CertificateUnavailable:
        """Return the key of the certificate at this address. Never raises."""
        if (cached := self._cached_key(certificate)) is not None:
            return cached
        if self._steady() < self._retry_at.get(certificate, float("-inf")):
            return CertificateUnavailable()
        queued = self._enqueue(certificate)
        awaited_count = sum(each.waiting_count > 0 for each in self._queued.values())
        if queued is None or (queued.waiting_count == 0 and awaited_count >= MAX_AWAITED_CERTIFICATES):
            return CertificateUnavailable()
        queued.waiting_count += 1
        if self._fetching is None or self._fetching.done():
            self._fetching = asyncio.create_task(self._fetch_queued())
        try:
            async with asyncio.timeout(MESSAGE_WAIT_SECONDS):
                return await asyncio.shield(queued.result)
        except TimeoutError:
            return CertificateUnavailable()
        finally:
            queued.waiting_count -= 1

    async def confirm(self, address: str) -> str | None:
        """Confirm a subscription by a GET of this address. Return None, or why it failed, without the address."""
        answer = await self._get(address, whole=False)
        return answer if isinstance(answer, str) else None

    async def close(self) -> None:
        """Stop fetching. Waiting messages are answered with 503."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])
        for certificate in list(self._queued):
            self._resolve(certificate, CertificateUnavailable())
        await self._contexts.close()

    def _enqueue(self, certificate: str) -> _QueuedCertificate | None:
        """Queue the certificate. Return None if the queue is full."""
        if (queued := self._queued.get(certificate)) is not None:
            queued.requested_again = True
            return queued
        if len(self._queued) >= MAX_QUEUED_CERTIFICATES:
            once = next((name for name, each in self._queued.items() if not each.requested_again), None)
            if once is None:
                return None
            self._resolve(once, CertificateUnavailable())
        return self._queued.setdefault(certificate, _QueuedCertificate())

    async def _fetch_queued(self) -> None:
        """Fetch until the queue is empty."""
        while self._queued:
            if (wait := self._next_fetch_at - self._steady()) > 0:
                await self._pause(wait)
            oldest = next(iter(self._queued))
            certificate = next((name for name, each in self._queued.items() if each.requested_again), oldest)
            read: RSAPublicKey | str = "it was not read to the end"
            try:
                read = await self._fetch(certificate)
            finally:
                self._next_fetch_at = self._steady() + FETCH_INTERVAL_SECONDS
                if isinstance(read, str):
                    self._on_fetch_failed(certificate, read)
                self._resolve(certificate, CertificateUnavailable() if isinstance(read, str) else read)

    def _resolve(self, certificate: str, result: RSAPublicKey | CertificateUnavailable) -> None:
        queued = self._queued.pop(certificate, None)  # it may have been dropped during the fetch
        if queued is not None:
            queued.result.set_result(result)

    def _on_fetch_failed(self, certificate: str, reason: str) -> None:
        now = self._steady()
        self._retry_at = {name: until for name, until in self._retry_at.items() if until > now}
        self._retry_at[certificate] = now + RETRY_AFTER_SECONDS
        self._log_failure(reason)

    def _cached_key(self, certificate: str) -> RSAPublicKey | None:
        key, until = self._keys.get(certificate, (None, 0.0))
        return key if until >= self._clock() else None

    async def _fetch(self, certificate: str) -> RSAPublicKey | str:
        """Fetch a certificate, cache and return its key, or return the reason of a failure."""
        pem = await self._get(certificate, whole=True)
        if isinstance(pem, str):
            return pem
        try:
            read = x509.load_pem_x509_certificate(pem)
            key = read.public_key()
        except (ValueError, UnsupportedAlgorithm):
            return "the answer is not a PEM certificate"
        now = datetime.fromtimestamp(self._clock(), UTC)
        if not read.not_valid_before_utc <= now <= read.not_valid_after_utc:
            return "the certificate is not valid at this time"
        if not isinstance(key, RSAPublicKey):
            return "the certificate has no RSA key"
        if (fault := rsa_fault(RSAAlgorithm.to_jwk(key, as_dict=True))) is not None:
            return f"the certificate's key {fault}"
        self._keys[certificate] = key, read.not_valid_after_utc.timestamp()
        self._keys.move_to_end(certificate)
        while len(self._keys) > MAX_CACHED_CERTIFICATES:
            self._keys.popitem(last=False)
        return key

    async def _get(self, address: str, *, whole: bool) -> bytes | str:
        """Return the body of a 200 response (empty unless `whole`), or the reason of a failure."""
        resolver = self._resolver or NameResolver()
        client = JsonClient(
            Bounds(answer=MAX_BODY_BYTES), self._tls, egress=self._egress(), resolver=resolver, read=_read_raw,
            share=self._contexts,
        )  # fmt: skip
        try:
            answer = await client.ask("GET", address, {"Accept": "*/*"}, within=REQUEST_TIMEOUT_SECONDS, whole=whole)
        except NoAnswer as fault:
            return str(fault)
        finally:
            await client.close()
            if self._resolver is None:
                await resolver.close()
        return (answer.content or b"") if answer.status == 200 else f"answered {answer.status}"

    def _log_failure(self, reason: str) -> None:
        if self._log_limit.allows(reason):
            structlog.get_logger().warning("sns_certificate_unread", reason=reason)


async def _read_raw(body: bytes, _kind: str, _bounds: Bounds) -> Any:
    return body
