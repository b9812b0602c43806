"""Uses an external key: a key in an HSM or key service (the signer), which returns signatures but not the key.

A fault of a signer defers the issuer's deliveries. It never causes an invalid token, and never delays other issuers:

- Each signature has a time limit, and a bounded number of requests run at a time. A delivery that would wait long for a
  free request is deferred instead, because it would hold memory that deliveries of other issuers need.
- Each signature is verified with the public half, and each algorithm once before the first token. A wrong hash, padding
  or salt is therefore a fault here, and not a 400 at each client.
- After a fault the signer gets no requests except a check (see `SignerCircuit`).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from notifier.model.client import Algorithm
from notifier.model.durations import format_duration
from notifier.model.errors import describe_error
from notifier.model.shared_resources import shared_lock, shared_slots
from notifier.tokens.jws import PublicKey, is_signed_by
from notifier.tokens.published_keys import algorithms_of, jwk_of
from notifier.tokens.signer import PublicHalf, SignatureObserver, SignatureResult, SignerBackend, SignerError

FIRST_PAUSE_SECONDS, NEXT_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 1.0, 2.0, 30.0
MAX_QUEUE_SECONDS = 0.5
"""A delivery whose signature is expected to wait longer for a free request is deferred."""

_NEWEST_WEIGHT = 0.1  # of the newest signature in the mean duration
CHECK_INTERVAL_SECONDS = 300.0  # between two checks of a key without a fault
PUBLIC_KEY_TIMEOUT_SECONDS = 10.0  # for the public half: the first request may include a login
_TEST_MESSAGE = b"notifier tries this key"


class SignerCircuit:
    """The circuit of one external key: closed while the signer may get requests, open after a fault.

    While the circuit is open, only checks are sent: the first after FIRST_PAUSE_SECONDS, then one every
    NEXT_PAUSE_SECONDS. If the result is WRONG, an operator must correct the cause, so that checks follow every
    MAX_PAUSE_SECONDS only: a wrong secret that is sent often locks accounts. The signer may request a longer pause, up
    to MAX_PAUSE_SECONDS. The first success closes the circuit. The circuit also measures the rate of signatures. Times
    are seconds of a monotonic clock.
    """

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._fault_count = 0
        self._mean_seconds = 0.0  # of a signature
        self.opened_at = float("-inf")
        self.next_check_at = float("-inf")
        """The time of the next check while the circuit is open."""
        self.is_open = False

    def on_failure(self, began_at: float, now: float, wait: float | None, result: SignatureResult) -> None:
        """Open the circuit after a failed request. Of concurrent requests only the first failure counts.

        `wait`: the seconds until the next request, if the signer has returned them.
        """
        if self.is_open and began_at < self.opened_at:
            return
        self.is_open, self.opened_at = True, now
        self._fault_count += 1
        pause = FIRST_PAUSE_SECONDS if self._fault_count == 1 else NEXT_PAUSE_SECONDS
        if result is SignatureResult.WRONG:
            pause = MAX_PAUSE_SECONDS
        self.next_check_at = now + max(pause, min(wait or 0.0, MAX_PAUSE_SECONDS))

    def on_success(self, began_at: float, seconds: float) -> None:
        """Close the circuit after a signature, unless its request began before the last failure."""
        weight = _NEWEST_WEIGHT if self._mean_seconds else 1.0
        self._mean_seconds += weight * (seconds - self._mean_seconds)
        if began_at >= self.opened_at:
            self.is_open, self._fault_count = False, 0

    @property
    def signatures_per_second(self) -> float:
        """The rate of signatures by the mean duration; infinite before the first signature."""
        return self._concurrency / self._mean_seconds if self._mean_seconds else float("inf")

    def is_crowded(self, waiting: int) -> bool:
        """Return True if a further signature would wait too long behind this number of waiting signatures."""
        return waiting * self._mean_seconds > MAX_QUEUE_SECONDS * self._concurrency


_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignerFault:
    """The fault of an external key. `since`: when the key failed first (epoch seconds)."""

    text: str
    result: SignatureResult
    since: float


class ExternalKey:
    """One key at a signer of this `kind`. `monotonic` is a clock that never jumps, `clock` epoch seconds.

    The key is unusable until the first check. Then `half` is its public half, and `algorithms` are the algorithms by
    which it signs. `fault` is its current fault. `timeout`: seconds for one signature. `concurrency`: the number of
    concurrent signatures.
    """

    def __init__(
        self,
        backend: SignerBackend,
        kind: str,
        name: str,
        observe: SignatureObserver,
        *,
        timeout: float,
        concurrency: int,
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._backend = backend
        self.kind = kind
        self.name = f"{kind} {name}"
        self._timeout = timeout
        self._observe = observe
        self._monotonic = monotonic
        self._clock = clock
        self._slots = shared_slots(concurrency)
        self._waiting = 0
        self._circuit = SignerCircuit(concurrency)
        self._next_check_at = float("-inf")
        self._check_lock = shared_lock()
        self.half: PublicHalf | None = None
        self.algorithms: frozenset[Algorithm] = frozenset()
        self.fault: SignerFault | None = None
        self.changed: Callable[[], None] = lambda: None
        """Called when the key gets a fault, and when `check_soon` makes a check due."""

    @property
    def signatures_per_second(self) -> float:
        """The rate of signatures; infinite before the first signature."""
        return self._circuit.signatures_per_second

    def seconds_until_check(self, now: float) -> float:
        """Return the seconds until the next check; 0 if it is due."""
        check_at = self._next_check_at if self.fault is None else self._circuit.next_check_at
        return max(0.0, check_at - now)

    def check_soon(self) -> None:
        """Make the next check due now if the key has a fault, because the fault may have been corrected."""
        if self.fault is not None:
            self._circuit.next_check_at = self._monotonic()
            self.changed()

    async def check(self) -> None:
        """Request the public half and a test signature, at the first check one by each algorithm. Never raises."""
        async with self._check_lock:
            began_at = self._monotonic()
            self._next_check_at = began_at + CHECK_INTERVAL_SECONDS
            try:
                await self._update(await self._fetch_public_half())
            except SignerError as fault:
                self._on_failure(fault, began_at)
            else:
                if not self._circuit.is_open:  # a signature may have failed meanwhile
                    self.fault = None

    async def sign(self, alg: Algorithm, message: bytes) -> bytes:
        """Return the verified signature of the message, in the form of JWS. Raises SignerError."""
        assert self.half is not None, "callers need the half first, for its kid"
        self._raise_if_open()
        if self._circuit.is_crowded(self._waiting):
            raise SignerError("more signatures are asked of it than it makes")
        self._waiting += 1
        try:
            async with self._slots:
                self._raise_if_open()  # the circuit may have opened during the wait
                began_at = self._monotonic()
                try:
                    return await self._request_signature(alg, message, self.half.key)
                except SignerError as fault:
                    self._on_failure(fault, began_at)
                    raise
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        """Release all resources of the signer."""
        await self._backend.close()

    def _raise_if_open(self) -> None:
        if self._circuit.is_open and self.fault is not None:
            raise SignerError(self.fault.text, self.fault.result)

    async def _fetch_public_half(self) -> PublicHalf:
        began_at = self._monotonic()
        try:
            return await _await_signer(PUBLIC_KEY_TIMEOUT_SECONDS, self._backend.public())
        except SignerError as fault:
            self._observe(self.kind, fault.result, self._monotonic() - began_at)
            raise

    async def _update(self, half: PublicHalf) -> None:
        """Store the public half after test signatures: by each algorithm, or by one if a half is known already.

        Raises SignerError if the key differs from the known half, or cannot be used.
        """
        if self.half is not None:
            if jwk_of(self.half.key) != jwk_of(half.key):
                text = "another key is there under this name now, which clients do not know: if it is to sign, "
                text += "publish it, and set not_before of its entry a day ahead"
                raise SignerError(text, SignatureResult.WRONG)
            await self._request_signature(min(self.algorithms), _TEST_MESSAGE, half.key)
            self.half = half
            return
        possible = algorithms_of(half.key)
        if not possible:
            text = "such a key cannot be used: RSA of 2048 bits or more, P-256, P-384, P-521 or Ed25519"
            raise SignerError(text, SignatureResult.WRONG)
        lacking = {alg: reason for alg, reason in half.lacking.items() if alg in possible}
        for alg in sorted(possible - lacking.keys()):
            try:
                await self._request_signature(alg, _TEST_MESSAGE, half.key)
            except SignerError as fault:
                if fault.result not in (SignatureResult.WRONG, SignatureResult.UNVERIFIED):
                    raise
                lacking[alg] = str(fault)
        usable = possible - lacking.keys()
        if not usable:
            raise SignerError("; ".join(dict.fromkeys(lacking.values())), SignatureResult.WRONG)
        self.algorithms = usable
        self.half = replace(half, lacking=lacking)

    async def _request_signature(self, alg: Algorithm, message: bytes, key: PublicKey) -> bytes:
        """Request one signature, and verify it with `key`. Raises SignerError."""
        began_at = self._monotonic()
        try:
            signature = await _await_signer(self._timeout, self._backend.sign(alg, message))
            _verify(key, alg, message, signature)
        except SignerError as fault:
            self._observe(self.kind, fault.result, self._monotonic() - began_at)
            raise
        seconds = self._monotonic() - began_at
        self._circuit.on_success(began_at, seconds)
        self._observe(self.kind, SignatureResult.OK, seconds)
        return signature

    def _on_failure(self, fault: SignerError, began_at: float) -> None:
        self._circuit.on_failure(began_at, self._monotonic(), fault.wait, fault.result)
        previous_fault = self.fault
        since = self._clock() if previous_fault is None else previous_fault.since
        self.fault = SignerFault(text=str(fault), result=fault.result, since=since)
        if previous_fault is None:
            self.changed()


def _verify(key: PublicKey, alg: Algorithm, message: bytes, signature: bytes) -> None:
    if not is_signed_by(key, alg, message, signature):
        raise SignerError(f"its signature by {alg} does not verify, and is not used", SignatureResult.UNVERIFIED)


async def _await_signer(seconds: float, request: Awaitable[_T]) -> _T:
    """Await the answer of a signer for at most this number of seconds. Raises SignerError."""
    try:
        async with asyncio.timeout(seconds):
            return await request
    except SignerError:
        raise
    except TimeoutError:
        raise SignerError(f"no answer within {format_duration(seconds)}", SignatureResult.SLOW) from None
    except Exception as error:  # vendors' libraries may raise anything, and must not end the worker
        raise SignerError(f"its library failed ({describe_error(error)})") from error
