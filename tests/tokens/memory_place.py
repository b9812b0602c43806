"""A signer in memory with a real key; the test sets whether its signatures are valid."""

import asyncio
from collections.abc import Callable, Mapping

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from notifier.model.client import Algorithm
from notifier.tokens.external_key import ExternalKey
from notifier.tokens.jws import PrivateKey, bytes_signer
from notifier.tokens.signer import PublicHalf, SignatureResult, SignerError
from tests.tokens.key_folder import pem


class MemoryPlace:
    """Implement `SignerBackend`. `fault` is raised, `hangs` never answers, `spoilt` changes each signature."""

    def __init__(self, kind: str = "ES256", lacking: Mapping[Algorithm, str] | None = None) -> None:
        self.key = private(kind)
        self.lacking = lacking or {}
        self.fault: SignerError | None = None
        self.hangs = False
        self.held: asyncio.Event | None = None
        self.spoilt: Callable[[Algorithm, bytes], bytes] = lambda _alg, signature: signature
        self.asked: list[Algorithm] = []
        self.running = self.most = 0
        self.closed = False

    async def public(self) -> PublicHalf:
        if self.fault is not None:
            raise self.fault
        return PublicHalf(key=self.key.public_key(), lacking=self.lacking)

    async def sign(self, alg: Algorithm, message: bytes) -> bytes:
        self.asked.append(alg)
        if self.fault is not None:
            raise self.fault
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if self.hangs:
                await asyncio.Event().wait()
            if self.held is not None:
                await self.held.wait()
        finally:
            self.running -= 1
        return self.spoilt(alg, bytes_signer(self.key, alg)(message))

    async def close(self) -> None:
        self.closed = True


def private(kind: str) -> PrivateKey:
    """Return the cached key of this algorithm."""
    key = load_pem_private_key(pem(kind), password=None)
    assert isinstance(key, RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey)
    return key


class Times:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class SignerHarness:
    """A key in such a signer, with its reported events."""

    def __init__(self, place: MemoryPlace, *, timeout: float = 60.0, concurrency: int = 2) -> None:
        self.place = place
        self.times = Times()
        self.results: list[SignatureResult] = []
        self.key = ExternalKey(
            place, "memory", "k", self._tell,
            timeout=timeout, concurrency=concurrency, monotonic=self.times, clock=self.times,
        )  # fmt: skip

    def _tell(self, _kind: str, result: SignatureResult, _seconds: float) -> None:
        self.results.append(result)
