"""The signer `pkcs11`: sign with a key in a PKCS#11 token, such as an HSM, by processes that run `pkcs11_process`.

Threads cannot be used instead. Of the two Python libraries, one crashes with a second thread, and the other holds the
interpreter lock while the HSM signs; and a thread whose call hangs cannot be ended. A process that does not answer, or
whose answer leaves its session in doubt, is killed. Another is started when it is needed.
"""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_public_key

from notifier.features.signers import pkcs11_process
from notifier.features.signers.pkcs11_process import ALGORITHMS, NEEDED, SIGN
from notifier.features.signers.pkcs11_session import KeyName, SigningRefused, SigningSession, TokenAddress
from notifier.model.client import Algorithm
from notifier.model.errors import ConfigurationError
from notifier.model.own_thread import FileTimeoutError, read_in_thread
from notifier.model.shared_resources import shared_lock, shared_slots
from notifier.settings.secret_text import read_secret
from notifier.tokens.signer import PublicHalf, SignatureResult, SignerError

_T = TypeVar("_T")

REQUESTS_PER_PROCESS = 2
"""The requests sent to a process at a time: it signs one while the other is in its pipe, so that it is never idle."""
_EXIT_TIMEOUT_SECONDS = 2.0  # for killed processes to end, after the last key was closed
_ALGORITHM_NUMBERS: Mapping[str, int] = {alg: number for number, alg in enumerate(ALGORITHMS)}
_PIN_ERRORS = frozenset({"PinIncorrect", "PinInvalid", "PinLenRange"})  # after these, the PIN is not tried again
_WRONG_TEXTS: Mapping[str, str] = {
    "PinIncorrect": "the PIN is wrong",
    "PinInvalid": "the PIN is wrong",
    "PinLenRange": "the PIN is too short or too long",
    "PinExpired": "the PIN has expired",
    "PinLocked": "the PIN is locked, after too many wrong ones",
    "PinFinalTry": "",
    "UserPinNotInitialized": "the token has no PIN of a user yet",
    "NoSuchModule": "",
    "NoSuchToken": "",
    "NoSuchKey": "",
    "KeyTypeInconsistent": "such a key cannot sign so",
    "MechanismInvalid": "the token does not have the mechanism",
    "MechanismParamInvalid": "the token does not take the parameters",
    "SessionCount": "the token allows fewer sessions; lower signing.concurrency",
    "ModuleNotFoundError": "needs python-pkcs11: pip install 'logout-notifier[pkcs11]' (the image has it)",
}
"""Errors that an operator must correct, and for each the text if the process reports none."""
_HARMLESS_ERRORS = frozenset({"MechanismInvalid", "MechanismParamInvalid"})  # the session can still be used


class Pkcs11Token:
    """A token, and up to `size` processes that are logged in to it. Keys share it; each calls `join` and `leave`."""

    def __init__(self, address: TokenAddress, size: int) -> None:
        self._address = address
        self._size = size
        self._slots = shared_slots(REQUESTS_PER_PROCESS * size)
        self._start_lock = shared_lock()
        self._sessions: set[SigningSession] = set()
        self._idle: deque[SigningSession] = deque()  # each once for every further request that it can receive
        self._process_count = 0  # including starting processes
        self._dying: set[SigningSession] = set()
        self._key_count = 0
        self._rejected: tuple[str, int] | None = None  # PIN, and the modification time of its file

    def join(self) -> None:
        """Count a key that uses the token."""
        self._key_count += 1

    async def leave(self) -> None:
        """Count a key that no longer uses the token. After the last key, end the processes."""
        self._key_count -= 1
        if self._key_count > 0:
            return
        for session in list(self._sessions):
            self._discard(session)
        with suppress(TimeoutError):
            async with asyncio.timeout(_EXIT_TIMEOUT_SECONDS):
                await asyncio.gather(*(session.gone.wait() for session in self._dying))

    async def find(self, key: KeyName) -> tuple[bytes, frozenset[str]]:
        """Return the public key as DER, and the mechanisms of the token. Start all processes. Raises SignerError."""

        async def find_key(session: SigningSession) -> tuple[bytes, frozenset[str]]:
            return (await session.find(key)).public, session.mechanisms

        found = await self._use_process(find_key)
        while self._process_count < self._size:
            self._idle.extend([await self._start_process()] * REQUESTS_PER_PROCESS)
        return found

    async def sign(self, key: KeyName, alg: Algorithm, message: bytes) -> bytes:
        """Return the signature of a message in the form of JWS. Raises SignerError."""

        async def request_signature(session: SigningSession) -> bytes:
            number = (await session.find(key)).number
            return await session.request(SIGN, bytes((number, _ALGORITHM_NUMBERS[alg])) + message)

        return await self._use_process(request_signature)

    async def _use_process(self, request: Callable[[SigningSession], Awaitable[_T]]) -> _T:
        """Return the result of a request to a process. Raises SignerError.

        After an error that is not harmless, or a cancellation, end the process: the next request could receive the late
        answer.
        """
        async with self._slots:
            session = await self._acquire()
            try:
                answer = await request(session)
            except SigningRefused as refusal:
                if refusal.name in _HARMLESS_ERRORS:
                    self._release(session)
                else:
                    self._discard(session)
                raise _to_signer_error(refusal) from None
            except BaseException:
                self._discard(session)
                raise
            self._release(session)
            return answer

    def _release(self, session: SigningSession) -> None:
        if session in self._sessions:  # another request may have ended it
            self._idle.append(session)

    async def _acquire(self) -> SigningSession:
        """Return a process that can receive a request. Start one if all are busy. Raises SignerError."""
        while True:
            session = self._pop_idle()
            if session is not None:
                return session
            if self._process_count < self._size:
                session = await self._start_process()
                self._idle.extend([session] * (REQUESTS_PER_PROCESS - 1))
                return session
            async with self._start_lock:  # wait for the process that another request starts
                await asyncio.sleep(0)

    def _pop_idle(self) -> SigningSession | None:
        """Return a process that can receive a request; None without one. Discard those that have ended."""
        while self._idle:
            session = self._idle.popleft()
            if session in self._sessions and session.is_running:
                return session
            self._discard(session)
        return None

    async def _start_process(self) -> SigningSession:
        """Start a process and log in. Only one logs in at a time, since each uses up a try if the PIN is wrong."""
        self._process_count += 1
        try:
            async with self._start_lock:
                pin, modified_at = await self._read_pin()
                session = await self._log_in(pin, modified_at)
        except BaseException:
            self._process_count -= 1
            raise
        self._sessions.add(session)
        return session

    async def _log_in(self, pin: str, modified_at: int) -> SigningSession:
        """Return a new process that is logged in. Raises SignerError, also for a PIN that was rejected before."""
        if (pin, modified_at) == self._rejected:
            raise SignerError(f"the PIN is wrong; {self._explain_no_try()}", SignatureResult.WRONG)
        environ = {name: value for name, value in os.environ.items() if not name.startswith("NOTIFIER_")}
        _, session = await asyncio.get_running_loop().subprocess_exec(
            SigningSession,
            sys.executable,
            "-P",
            pkcs11_process.__file__,
            stdin=PIPE,
            stdout=PIPE,
            stderr=None,
            env=environ,
        )
        try:
            await session.open(self._address, pin)
        except SigningRefused as refusal:
            self._end_session(session)
            if refusal.name not in _PIN_ERRORS:
                raise _to_signer_error(refusal) from None
            self._rejected = (pin, modified_at)
            text = f"{_WRONG_TEXTS[refusal.name]}; {self._explain_no_try()}"
            raise SignerError(text, SignatureResult.WRONG) from None
        except BaseException:
            self._end_session(session)
            raise
        return session

    async def _read_pin(self) -> tuple[str, int]:
        """Return the PIN, and the modification time of its file in nanoseconds. Raises SignerError."""
        path = self._address.pin_file
        try:
            return await read_in_thread(str(path), lambda: (read_secret(path).strip(), path.stat().st_mtime_ns))
        except FileTimeoutError as error:
            raise SignerError(str(error), SignatureResult.AWAY) from None
        except (OSError, ConfigurationError):
            raise SignerError(f"{path} cannot be read, or does not hold one line", SignatureResult.WRONG) from None

    def _explain_no_try(self) -> str:
        return f"it is not tried again until {self._address.pin_file} changes, since tokens lock after a few tries"

    def _discard(self, session: SigningSession) -> None:
        if session in self._sessions:
            self._sessions.discard(session)
            self._process_count -= 1
            self._end_session(session)

    def _end_session(self, session: SigningSession) -> None:
        self._dying = {dying for dying in self._dying if not dying.gone.is_set()} | {session}
        session.kill()


class Pkcs11Key:
    """One key of a token. Satisfies `SignerBackend`."""

    def __init__(self, token: Pkcs11Token, key: KeyName) -> None:
        self._token = token
        self._key = key
        self._joined = False

    async def public(self) -> PublicHalf:
        """Return the public key and the algorithms that the token lacks. Raises SignerError."""
        if not self._joined:
            self._joined = True
            self._token.join()
        der, mechanisms = await self._token.find(self._key)
        try:
            key = load_der_public_key(der)
        except (ValueError, UnsupportedAlgorithm):
            raise SignerError("its public key cannot be read", SignatureResult.WRONG) from None
        lacking = {
            Algorithm(alg): f"the token does not have the mechanism CKM_{name}"
            for alg, name in NEEDED.items()
            if name not in mechanisms
        }
        return PublicHalf(key=key, lacking=lacking)  # type: ignore[arg-type]  # the caller refuses other types

    async def sign(self, alg: Algorithm, message: bytes) -> bytes:
        """Return the signature of a message in the form of JWS. Raises SignerError."""
        return await self._token.sign(self._key, alg, message)

    async def close(self) -> None:
        """Stop using the token."""
        if self._joined:
            self._joined = False
            await self._token.leave()


def _to_signer_error(refusal: SigningRefused) -> SignerError:
    if refusal.name in _WRONG_TEXTS:
        return SignerError(refusal.text or _WRONG_TEXTS[refusal.name], SignatureResult.WRONG)
    return SignerError(f"the module answered {refusal.name}; its process is started anew")
