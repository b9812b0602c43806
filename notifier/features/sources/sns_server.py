"""Fetch the signing certificates of Amazon SNS, and confirm subscriptions.

Anybody can post a message that names a certificate. So certificates are fetched one at a time, two per second, only
from the server of the configured topic (`SnsTopic`), and the clients' egress rules apply.

An attacker invents names, while SNS sends many messages with the same name, and each again after a 503. So each name is
queued once, however many messages have it. Names requested repeatedly are fetched first, in order of age, so a genuine
name never waits for later ones. A certificate that could not be fetched is not tried again for LEFT_ALONE seconds.
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
from notifier.network.http.client_contexts import TlsContexts
from notifier.network.http.json_client import JsonClient, NoAnswer
from notifier.network.http.json_parts import Bounds
from notifier.network.http.name_resolver import NameResolver
from notifier.tokens.foreign_keys import rsa_fault

WITHIN = 5.0  # seconds for a certificate, and for a confirmation; SNS waits for 15
BODY_LIMIT = 32 * 1024  # bytes; a certificate has 2 KiB
KEPT = 16  # certificates
EVERY = 0.5  # seconds between two fetches
MOST_WANTED = 512  # queued certificates; beyond, the oldest that was requested only once is dropped
MOST_WAITING = 32  # certificates that messages wait for; messages for others get a 503 at once
PATIENCE = 10.0  # seconds that a message waits; SNS sends it again 20 s later
LEFT_ALONE = 10.0  # seconds until a certificate that could not be fetched is tried again
_TOLD_EVERY = 60.0  # seconds between equal log lines


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateAway:
    """The message cannot be verified yet, because its certificate could not be fetched."""

    text: str = "The certificate of SNS cannot be read; send the message again"


class _QueuedCertificate:
    """A queued certificate. `again`: several messages requested it. `waiting` counts the messages that wait for it."""

    def __init__(self) -> None:
        self.again = False
        self.waiting = 0
        self.result: asyncio.Future[RSAPublicKey | CertificateAway] = asyncio.get_running_loop().create_future()


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
        self._wanted: dict[str, _QueuedCertificate] = {}  # by address, the oldest first
        self._left_alone: dict[str, float] = {}  # by address, until when
        self._reading: asyncio.Task[None] | None = None
        self._due = float("-inf")
        self._told: tuple[str, float] = ("", float("-inf"))

    async def key(self, certificate: str) -> RSAPublicKey | CertificateAway:
        """Return the key of the certificate at this address. Never raises."""
        if (kept := self._kept(certificate)) is not None:
            return kept
        if self._steady() < self._left_alone.get(certificate, float("-inf")):
            return CertificateAway()
        wanted = self._want(certificate)
        waited_for = sum(each.waiting > 0 for each in self._wanted.values())
        if wanted is None or (wanted.waiting == 0 and waited_for >= MOST_WAITING):
            return CertificateAway()
        wanted.waiting += 1
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read_wanted())
        try:
            async with asyncio.timeout(PATIENCE):
                return await asyncio.shield(wanted.result)
        except TimeoutError:
            return CertificateAway()
        finally:
            wanted.waiting -= 1

    async def confirm(self, address: str) -> str | None:
        """Confirm a subscription by a GET of this address. Return None, or why it failed, without the address."""
        answer = await self._asked(address, whole=False)
        return answer if isinstance(answer, str) else None

    async def close(self) -> None:
        """Stop fetching. Waiting messages are answered with 503."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])
        for certificate in list(self._wanted):
            self._settle(certificate, CertificateAway())
        await self._contexts.close()

    def _want(self, certificate: str) -> _QueuedCertificate | None:
        """Queue the certificate. Return None if the queue is full."""
        if (wanted := self._wanted.get(certificate)) is not None:
            wanted.again = True
            return wanted
        if len(self._wanted) >= MOST_WANTED:
            once = next((name for name, each in self._wanted.items() if not each.again), None)
            if once is None:
                return None
            self._settle(once, CertificateAway())
        return self._wanted.setdefault(certificate, _QueuedCertificate())

    async def _read_wanted(self) -> None:
        """Fetch until the queue is empty."""
        while self._wanted:
            if (wait := self._due - self._steady()) > 0:
                await self._pause(wait)
            oldest = next(iter(self._wanted))
            certificate = next((name for name, each in self._wanted.items() if each.again), oldest)
            read: RSAPublicKey | str = "it was not read to the end"
            try:
                read = await self._read(certificate)
            finally:
                self._due = self._steady() + EVERY
                if isinstance(read, str):
                    self._leave_alone(certificate, read)
                self._settle(certificate, CertificateAway() if isinstance(read, str) else read)

    def _settle(self, certificate: str, result: RSAPublicKey | CertificateAway) -> None:
        wanted = self._wanted.pop(certificate, None)  # it may have been dropped during the fetch
        if wanted is not None:
            wanted.result.set_result(result)

    def _leave_alone(self, certificate: str, reason: str) -> None:
        now = self._steady()
        self._left_alone = {name: until for name, until in self._left_alone.items() if until > now}
        self._left_alone[certificate] = now + LEFT_ALONE
        self._tell(reason)

    def _kept(self, certificate: str) -> RSAPublicKey | None:
        key, until = self._keys.get(certificate, (None, 0.0))
        return key if until >= self._clock() else None

    async def _read(self, certificate: str) -> RSAPublicKey | str:
        """Fetch a certificate, cache and return its key, or return the reason of a failure."""
        pem = await self._asked(certificate, whole=True)
        if isinstance(pem, str):
            return pem
        try:
            read = x509.load_pem_x509_certificate(pem)
            key = read.public_key()
        except (ValueError, UnsupportedAlgorithm):
            return "the answer is no certificate in PEM"
        now = datetime.fromtimestamp(self._clock(), UTC)
        if not read.not_valid_before_utc <= now <= read.not_valid_after_utc:
            return "the certificate is not valid at this time"
        if not isinstance(key, RSAPublicKey):
            return "the certificate has no RSA key"
        if (fault := rsa_fault(RSAAlgorithm.to_jwk(key, as_dict=True))) is not None:
            return f"the certificate's key {fault}"
        self._keys[certificate] = key, read.not_valid_after_utc.timestamp()
        self._keys.move_to_end(certificate)
        while len(self._keys) > KEPT:
            self._keys.popitem(last=False)
        return key

    async def _asked(self, address: str, *, whole: bool) -> bytes | str:
        """Return the body of a 200 response (empty unless `whole`), or the reason of a failure."""
        resolver = self._resolver or NameResolver()
        client = JsonClient(
            Bounds(answer=BODY_LIMIT), self._tls, egress=self._egress(), resolver=resolver, read=_as_it_is,
            share=self._contexts,
        )  # fmt: skip
        try:
            answer = await client.ask("GET", address, {"Accept": "*/*"}, within=WITHIN, whole=whole)
        except NoAnswer as fault:
            return str(fault)
        finally:
            await client.close()
            if self._resolver is None:
                await resolver.close()
        return (answer.content or b"") if answer.status == 200 else f"answered {answer.status}"

    def _tell(self, reason: str) -> None:
        text, at = self._told
        if reason != text or self._steady() - at >= _TOLD_EVERY:
            self._told = reason, self._steady()
            structlog.get_logger().warning("sns_certificate_unread", reason=reason)


async def _as_it_is(body: bytes, _kind: str, _bounds: Bounds) -> Any:
    return body
