"""Uses a key at a signer, which returns only signatures. All signers share this code.

A signer's fault defers the issuer's deliveries. It never causes a bad token, and never stops other issuers:

- Each signature has its own time limit, and a bounded number run at a time. A delivery that would wait long for its
  turn is deferred instead, since it would take the room of other issuers' deliveries.
- Each signature is verified by the public half, and each algorithm once before the first token: a wrong hash, padding
  or salt is a fault here, not a 400 at every client.
- After a fault the signer gets no requests (`SignerCircuit`) except a check.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from notifier.model.client import Algorithm
from notifier.model.durations import format_duration
from notifier.tokens.jws import PublicKey, is_signed_by
from notifier.tokens.published_keys import algorithms_of, jwk_of
from notifier.tokens.signer import PublicHalf, SignatureObserver, SignatureResult, SignerBackend, SignerError

FIRST_PAUSE_SECONDS, NEXT_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 1.0, 2.0, 30.0
MAX_QUEUE_SECONDS = 0.5
"""Seconds that a signature may be expected to wait for its turn.

A waiting delivery takes room that other issuers' deliveries need: it is better to defer it.
"""

_WEIGHT = 0.1  # of the newest signature in the mean
CHECK_INTERVAL_SECONDS = 300.0  # seconds from one look at a key that is well to the next
PUBLIC_KEY_TIMEOUT_SECONDS = 10.0  # seconds for the public half: the first time, a place has to log in
_TEST_MESSAGE = b"notifier tries this key"


class SignerCircuit:
    """What is known of one key at its place: whether it can be asked, since when not, and how fast it is.

    After a fault nobody asks the place for 1 s. Then a look tries it, and after that every 2 s: deliveries that wait
    for the key come once a look finds it well. A fault that somebody must correct is looked at every 30 s only, since a
    wrong secret that is sent often locks accounts. A throttled service answers its one look, so it is asked again after
    each second: at its own rate, and not 500 times a second. It may ask to be left alone for up to 30 s. Times are
    seconds of a steady clock.
    """

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._faults = 0
        self._seconds = 0.0  # mean of a signature
        self.opened = float("-inf")
        self.next_check_at = float("-inf")
        """When it may be checked again, if it is open."""
        self.is_open = False

    def on_failure(self, began: float, now: float, wait: float | None, result: SignatureResult) -> None:
        """Note a fault. Of several requests at the same time only the first fault counts."""
        if self.is_open and began < self.opened:
            return
        self.is_open, self.opened = True, now
        self._faults += 1
        pause = FIRST_PAUSE_SECONDS if self._faults == 1 else NEXT_PAUSE_SECONDS
        if result is SignatureResult.WRONG:  # it stays so until somebody corrects it
            pause = MAX_PAUSE_SECONDS
        self.next_check_at = now + max(pause, min(wait or 0.0, MAX_PAUSE_SECONDS))

    def on_success(self, began: float, seconds: float) -> None:
        """Note a signature that was asked at `began`. One that was asked before the last fault proves nothing."""
        self._seconds += (_WEIGHT if self._seconds else 1.0) * (seconds - self._seconds)
        if began >= self.opened:
            self.is_open, self._faults = False, 0

    @property
    def signatures_per_second(self) -> float:
        """How many signatures it makes a second, as far as is known."""
        return self._concurrency / self._seconds if self._seconds else float("inf")

    def is_crowded(self, waiting: int) -> bool:
        """Return True if another signature, behind so many that wait, would wait too long for its turn."""
        return waiting * self._seconds > MAX_QUEUE_SECONDS * self._concurrency


_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningBounds:
    """The seconds for one signature, and the number of concurrent signatures."""

    timeout: float
    concurrency: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SignerFault:
    """What is wrong with a key at its place, and `since` when (epoch seconds)."""

    text: str
    result: SignatureResult
    since: float


class ExternalKey:
    """One key at its signer, identified by `kind` and `name`. `steady` and `clock` return seconds.

    It is unusable until the first check. Then `half` is its public half, `algorithms` are those by which it signs, and
    `fault` is its present fault.
    """

    def __init__(
        self,
        backend: SignerBackend,
        kind: str,
        name: str,
        bounds: SigningBounds,
        observe: SignatureObserver,
        steady: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._backend = backend
        self.kind = kind
        self.name = f"{kind} {name}"
        self._bounds = bounds
        self._observe = observe
        self._steady = steady
        self._clock = clock
        self._slots = asyncio.Semaphore(bounds.concurrency)
        self._waiting = 0
        self._circuit = SignerCircuit(bounds.concurrency)
        self._next_check_at = float("-inf")
        self._check_lock = asyncio.Lock()
        self.half: PublicHalf | None = None
        self.algorithms: frozenset[Algorithm] = frozenset()
        self.fault: SignerFault | None = None
        self.changed: Callable[[], None] = lambda: None
        """Called when the key gets a fault, and when `check_soon` makes a check due."""

    @property
    def signatures_per_second(self) -> float:
        """Return the number of signatures per second, as far as it is known."""
        return self._circuit.signatures_per_second

    def due(self, now: float) -> float:
        """Return the seconds until the next check."""
        return max(0.0, (self._circuit.next_check_at if self.fault is not None else self._next_check_at) - now)

    def check_soon(self) -> None:
        """Check the key now if it has a fault, which may have been corrected."""
        if self.fault is not None:
            self._circuit.next_check_at = self._steady()
            self.changed()

    async def check(self) -> None:
        """Request the public half and a signature; the first time, one by each algorithm. Never raises."""
        async with self._check_lock:
            began = self._steady()
            self._next_check_at = began + CHECK_INTERVAL_SECONDS
            try:
                await self._update(await self._public())
            except SignerError as fault:
                self._on_failure(fault, began)
            else:
                if not self._circuit.is_open:  # a signature may have failed meanwhile
                    self.fault = None

    async def sign(self, alg: Algorithm, message: bytes) -> bytes:
        """Return the signature in the form of JWS, verified. Raises SignerError."""
        assert self.half is not None  # nobody knows its `kid` before
        self._refuse()
        if self._circuit.is_crowded(self._waiting):
            raise SignerError("more signatures are asked of it than it makes")
        self._waiting += 1
        try:
            async with self._slots:
                self._refuse()  # it may have failed while this one waited
                began = self._steady()
                try:
                    return await self._request_signature(alg, message, self.half.key)
                except SignerError as fault:
                    self._on_failure(fault, began)
                    raise
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        """Release all resources of the signer."""
        await self._backend.close()

    def _refuse(self) -> None:
        if self._circuit.is_open and self.fault is not None:
            raise SignerError(self.fault.text, self.fault.result)

    async def _public(self) -> PublicHalf:
        began = self._steady()
        try:
            return await _await_signer(PUBLIC_KEY_TIMEOUT_SECONDS, self._backend.public())
        except SignerError as fault:
            self._observe(self.kind, fault.result, self._steady() - began)
            raise

    async def _update(self, half: PublicHalf) -> None:
        if self.half is not None:
            if jwk_of(self.half.key) != jwk_of(half.key):
                text = "another key is there under this name now, which clients do not know: if it is to sign, "
                text += "publish it, and set not_before of its entry a day ahead"
                raise SignerError(text, SignatureResult.WRONG)
            await self._request_signature(min(self.algorithms), _TEST_MESSAGE, half.key)
            self.half = half
            return
        able = algorithms_of(half.key)
        if not able:
            text = "such a key cannot be used: RSA of 2048 bits or more, P-256, P-384, P-521 or Ed25519"
            raise SignerError(text, SignatureResult.WRONG)
        lacking = {alg: text for alg, text in half.lacking.items() if alg in able}
        for alg in sorted(able - lacking.keys()):
            try:
                await self._request_signature(alg, _TEST_MESSAGE, half.key)
            except SignerError as fault:
                if fault.result not in (SignatureResult.WRONG, SignatureResult.UNVERIFIED):
                    raise
                lacking[alg] = str(fault)
        if not able - lacking.keys():
            raise SignerError("; ".join(dict.fromkeys(lacking.values())), SignatureResult.WRONG)
        self.algorithms = able - lacking.keys()
        self.half = replace(half, lacking=lacking)

    async def _request_signature(self, alg: Algorithm, message: bytes, key: PublicKey) -> bytes:
        """Request one signature, which `key` must verify. Raises SignerError."""
        began = self._steady()
        try:
            signature = await _await_signer(self._bounds.timeout, self._backend.sign(alg, message))
            _verify(key, alg, message, signature)
        except SignerError as fault:
            self._observe(self.kind, fault.result, self._steady() - began)
            raise
        seconds = self._steady() - began
        self._circuit.on_success(began, seconds)
        self._observe(self.kind, SignatureResult.OK, seconds)
        return signature

    def _on_failure(self, fault: SignerError, began: float) -> None:
        self._circuit.on_failure(began, self._steady(), fault.wait, fault.result)
        since = self._clock() if self.fault is None else self.fault.since
        was_well = self.fault is None
        self.fault = SignerFault(text=str(fault), result=fault.result, since=since)
        if was_well:
            self.changed()


def _verify(key: PublicKey, alg: Algorithm, message: bytes, signature: bytes) -> None:
    if not is_signed_by(key, alg, message, signature):
        raise SignerError(f"its signature by {alg} does not verify, and is not used", SignatureResult.UNVERIFIED)


async def _await_signer(seconds: float, request: Awaitable[_T]) -> _T:
    """Await a signer for at most so many seconds. Raises SignerError."""
    try:
        async with asyncio.timeout(seconds):
            return await request
    except SignerError:
        raise
    except TimeoutError:
        raise SignerError(f"no answer within {format_duration(seconds)}", SignatureResult.SLOW) from None
    except Exception as error:  # vendors' libraries may raise anything, and must not end the worker
        raise SignerError(f"its library failed ({type(error).__name__})") from error
