"""Fetch the signing certificates of Amazon SNS, and confirm subscriptions.

Anyone can post a message with a certificate URL. Certificates are therefore fetched one at a time, two per second, only
from the SNS server of the configured topic (`SnsTopic`), and by the egress rules of clients.

An attacker may invent URLs. SNS sends many messages with the same URL, and sends each again after a 503. Therefore a
URL is queued once, and URLs of several messages are fetched first, the oldest first, so that invented URLs do not delay
a genuine one. After a failed fetch, a URL is not fetched for RETRY_AFTER_SECONDS.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import structlog
from aiohttp.abc import AbstractResolver
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import RSAAlgorithm

from notifier.model.client import EgressPolicy, TlsFiles
from notifier.model.moment import MinuteLimit
from notifier.model.shared_resources import shared_bound, shared_future
from notifier.network.http.client_contexts import TlsContexts
from notifier.network.http.json_client import JsonClient, NoAnswer
from notifier.network.http.json_parts import Bounds
from notifier.network.http.pem_files import parse_certificates
from notifier.tokens.foreign_keys import find_rsa_fault

REQUEST_TIMEOUT_SECONDS = 5.0  # for a certificate or a confirmation; SNS waits for 15
MAX_BODY_BYTES = 32 * 1024  # a certificate has 2 KiB
MAX_CACHED_CERTIFICATES = shared_bound(16)
FETCH_INTERVAL_SECONDS = 0.5
MAX_QUEUED_CERTIFICATES = shared_bound(512)  # above, the oldest URL with one message is dropped
MAX_AWAITED_CERTIFICATES = shared_bound(32)  # messages with further URLs are answered with 503 at once
MESSAGE_WAIT_SECONDS = 10.0  # for a certificate; after a 503, SNS sends the message again 20 s later
RETRY_AFTER_SECONDS = 10.0  # from a failed fetch of a URL to the next


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateUnavailable:
    """A message cannot be verified yet, since its certificate was not fetched."""

    text: str = "The certificate of SNS cannot be read; send the message again"


class _QueuedCertificate:
    """A certificate to fetch. `is_repeated`: several messages have its URL. `waiting_count`: requests that wait."""

    def __init__(self) -> None:
        self.is_repeated = False
        self.waiting_count = 0
        self.result: asyncio.Future[RSAPublicKey | CertificateUnavailable] = shared_future()


class SnsServer:
    """Fetches certificates, and caches their public keys by URL.

    `egress` returns the current egress policy. The default of `resolver` is `NameResolver`, that of `tls` the system's
    certificate authorities. `clock` returns epoch seconds, `monotonic` never jumps, `pause` sleeps.
    """

    def __init__(
        self,
        egress: Callable[[], EgressPolicy],
        *,
        resolver: AbstractResolver | None = None,
        tls: TlsFiles | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._egress = egress
        self._resolver = resolver
        self._tls = TlsFiles() if tls is None else tls
        self._contexts = TlsContexts()
        self._clock, self._monotonic, self._pause = clock, monotonic, pause
        self._keys: OrderedDict[str, tuple[RSAPublicKey, float]] = OrderedDict()  # key, and the certificate's end
        self._queued: dict[str, _QueuedCertificate] = {}  # by URL, the oldest first
        self._retry_at: dict[str, float] = {}  # by URL
        self._fetch_task: asyncio.Task[None] | None = None
        self._next_fetch_at = float("-inf")
        self._log_limit = MinuteLimit(monotonic)

    async def fetch_key(self, url: str) -> RSAPublicKey | CertificateUnavailable:
        """Return the public key of the certificate at a URL. Wait up to MESSAGE_WAIT_SECONDS for it. Never raises."""
        cached = self._find_key(url)
        if cached is not None:
            return cached
        if self._monotonic() < self._retry_at.get(url, float("-inf")):
            return CertificateUnavailable()
        queued = self._enqueue(url)
        awaited_count = sum(certificate.waiting_count > 0 for certificate in self._queued.values())
        # The queue is full, or requests already wait for the maximum number of other URLs.
        if queued is None or (queued.waiting_count == 0 and awaited_count >= MAX_AWAITED_CERTIFICATES):
            return CertificateUnavailable()
        queued.waiting_count += 1
        if self._fetch_task is None or self._fetch_task.done():
            self._fetch_task = asyncio.create_task(self._fetch_queued())
        try:
            async with asyncio.timeout(MESSAGE_WAIT_SECONDS):
                return await asyncio.shield(queued.result)
        except TimeoutError:
            return CertificateUnavailable()
        finally:
            queued.waiting_count -= 1

    async def confirm(self, url: str) -> str | None:
        """Confirm a subscription by a GET of its URL. Return the error, without the URL; None if it is confirmed."""
        result = await self._get(url, whole=False)
        return result if isinstance(result, str) else None

    async def close(self) -> None:
        """Stop fetching. Waiting requests get CertificateUnavailable."""
        if self._fetch_task is not None:
            self._fetch_task.cancel()
            await asyncio.wait([self._fetch_task])
        for url in list(self._queued):
            self._dequeue(url, CertificateUnavailable())
        await self._contexts.close()

    def _enqueue(self, url: str) -> _QueuedCertificate | None:
        """Return the queued certificate of a URL. Add it if necessary; None if the queue is full of repeated URLs."""
        queued = self._queued.get(url)
        if queued is not None:
            queued.is_repeated = True
            return queued
        if len(self._queued) >= MAX_QUEUED_CERTIFICATES:
            droppable = next((other for other, entry in self._queued.items() if not entry.is_repeated), None)
            if droppable is None:
                return None
            self._dequeue(droppable, CertificateUnavailable())
        return self._queued.setdefault(url, _QueuedCertificate())

    async def _fetch_queued(self) -> None:
        """Fetch certificates until the queue is empty."""
        while self._queued:
            wait = self._next_fetch_at - self._monotonic()
            if wait > 0:
                await self._pause(wait)
            oldest = next(iter(self._queued))
            url = next((url for url, queued in self._queued.items() if queued.is_repeated), oldest)
            result: RSAPublicKey | str = "it was not read to the end"
            try:
                result = await self._fetch(url)
            finally:  # also after a cancellation
                self._next_fetch_at = self._monotonic() + FETCH_INTERVAL_SECONDS
                if isinstance(result, str):
                    self._on_fetch_failed(url, result)
                self._dequeue(url, CertificateUnavailable() if isinstance(result, str) else result)

    def _dequeue(self, url: str, result: RSAPublicKey | CertificateUnavailable) -> None:
        """Remove a URL from the queue, and return the result to the requests that wait."""
        queued = self._queued.pop(url, None)  # it may have been dropped during the fetch
        if queued is not None:
            queued.result.set_result(result)

    def _on_fetch_failed(self, url: str, reason: str) -> None:
        now = self._monotonic()
        self._retry_at = {failed: retry_at for failed, retry_at in self._retry_at.items() if retry_at > now}
        self._retry_at[url] = now + RETRY_AFTER_SECONDS
        if self._log_limit.allows(reason):
            self._log_limit.on_logged(reason)
            structlog.get_logger().warning("sns_certificate_unread", reason=reason)

    def _find_key(self, url: str) -> RSAPublicKey | None:
        """Return the cached key of a certificate that has not expired."""
        key, valid_until = self._keys.get(url, (None, 0.0))
        return key if valid_until >= self._clock() else None

    async def _fetch(self, url: str) -> RSAPublicKey | str:
        """Fetch a certificate. Cache and return its public key, or return the error."""
        pem = await self._get(url, whole=True)
        if isinstance(pem, str):
            return pem
        try:
            certificate, *_ = parse_certificates(pem)
            key = certificate.parsed.public_key()
        except (ValueError, UnsupportedAlgorithm):
            return "the answer is not a PEM certificate"
        if not certificate.valid_from <= self._clock() <= certificate.valid_until:
            return "the certificate is not valid at this time"
        if not isinstance(key, RSAPublicKey):
            return "the certificate has no RSA key"
        fault = find_rsa_fault(RSAAlgorithm.to_jwk(key, as_dict=True))
        if fault is not None:
            return f"the certificate's key {fault}"
        self._keys[url] = key, certificate.valid_until
        self._keys.move_to_end(url)
        while len(self._keys) > MAX_CACHED_CERTIFICATES:
            self._keys.popitem(last=False)
        return key

    async def _get(self, url: str, *, whole: bool) -> bytes | str:
        """Return the body of a 200 response, or the error as a string. The body is read only with `whole`."""
        client = JsonClient(
            Bounds(answer=MAX_BODY_BYTES), self._tls, egress=self._egress(), resolver=self._resolver, read=_read_raw,
            share=self._contexts,
        )  # fmt: skip
        try:
            answer = await client.ask("GET", url, {"Accept": "*/*"}, within=REQUEST_TIMEOUT_SECONDS, whole=whole)
        except NoAnswer as fault:
            return str(fault)
        finally:
            await client.close()
        return (answer.content or b"") if answer.status == 200 else f"answered {answer.status}"


async def _read_raw(body: bytearray, _kind: str, _bounds: Bounds) -> Any:
    return bytes(body)
