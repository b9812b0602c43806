"""Keeps the processes that sign with the keys of one PKCS#11 token (`pkcs11_process`), and has its keys as places.

These are processes and not threads, since of the two libraries one crashes at the second thread, the other keeps the
interpreter's lock while the HSM signs, and a call that hangs keeps its thread for ever. A process that gives no answer,
or an answer that leaves its session in doubt, is killed, and another is started when it is needed.
"""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_public_key

from notifier.features.signers import pkcs11_process
from notifier.features.signers.pkcs11_process import ALGORITHMS, NEEDED, SIGN
from notifier.features.signers.pkcs11_session import KeyName, SigningRefused, SigningSession, TokenAddress
from notifier.model.client import Algorithm
from notifier.model.errors import ConfigurationError
from notifier.settings.secret_text import read_secret
from notifier.tokens.signer import PublicHalf, SignatureResult, SignerError

_T = TypeVar("_T")

REQUESTS_PER_PROCESS = 2
"""Requests in one process: one being signed and one in its pipe, so that it never waits for the worker."""
_EXIT_TIMEOUT_SECONDS = 2.0  # for killed processes to end, at the stop
_NUMBERS: Mapping[str, int] = MappingProxyType({alg: number for number, alg in enumerate(ALGORITHMS)})
_REJECTED = frozenset({"PinIncorrect", "PinInvalid", "PinLenRange"})  # rejected once, and not tried again
_WRONG_TEXTS: Mapping[str, str] = MappingProxyType(
    {
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
)
"""Errors that an operator must correct, with the text to use if the process reports none."""
_LASTING_ERRORS = frozenset({"MechanismInvalid", "MechanismParamInvalid"})  # the session is as good as before


class Pkcs11Token:
    """A token and `size` processes for it. Several keys may share it; each calls `join` and `leave`."""

    def __init__(self, address: TokenAddress, size: int) -> None:
        self._address = address
        self._size = size
        self._slots = asyncio.Semaphore(REQUESTS_PER_PROCESS * size)
        self._starting = asyncio.Lock()
        self._sessions: set[SigningSession] = set()
        self._idle: deque[SigningSession] = deque()  # each as often as it can take a request
        self._count = 0  # including starting processes
        self._dying: set[SigningSession] = set()
        self._users = 0
        self._rejected: tuple[str, int] | None = None

    def join(self) -> None:
        """Note that another key uses the token."""
        self._users += 1

    async def leave(self) -> None:
        """Note that a key no longer uses the token. After the last key the processes end."""
        self._users -= 1
        if self._users > 0:
            return
        for session in list(self._sessions):
            self._discard(session)
        with suppress(TimeoutError):
            async with asyncio.timeout(_EXIT_TIMEOUT_SECONDS):
                await asyncio.gather(*(session.gone.wait() for session in self._dying))

    async def find(self, key: KeyName) -> tuple[bytes, frozenset[str]]:
        """Return the public half of a key as DER, and the mechanisms of the token. Starts all processes.

        Raises SignerError.
        """

        async def find_public(session: SigningSession) -> tuple[bytes, frozenset[str]]:
            return (await session.find(key)).public, session.mechanisms

        public = await self._use(find_public)
        while self._count < self._size:
            self._idle.extend([await self._start()] * REQUESTS_PER_PROCESS)
        return public

    async def sign(self, key: KeyName, alg: Algorithm, message: bytes) -> bytes:
        """Raises SignerError."""

        async def request(session: SigningSession) -> bytes:
            public = await session.find(key)
            return await session.request(SIGN, bytes((public.number, _NUMBERS[alg])) + message)

        return await self._use(request)

    async def _use(self, request: Callable[[SigningSession], Awaitable[_T]]) -> _T:
        """Use a process. End it unless all went well: a late answer could reach the next request."""
        async with self._slots:
            session = await self._acquire()
            try:
                answer = await request(session)
            except SigningRefused as refused:
                if refused.name in _LASTING_ERRORS:
                    self._release(session)
                else:
                    self._discard(session)
                raise _fault(refused) from None
            except BaseException:
                self._discard(session)
                raise
            self._release(session)
            return answer

    def _release(self, session: SigningSession) -> None:
        if session in self._sessions:  # another user may have ended it
            self._idle.append(session)

    async def _acquire(self) -> SigningSession:
        while True:
            if (session := self._pop_idle()) is not None:
                return session
            if self._count < self._size:
                session = await self._start()
                self._idle.extend([session] * (REQUESTS_PER_PROCESS - 1))
                return session
            async with self._starting:  # another request starts one
                await asyncio.sleep(0)

    def _pop_idle(self) -> SigningSession | None:
        """Return an idle process. Forget processes that have ended meanwhile."""
        while self._idle:
            session = self._idle.popleft()
            if session in self._sessions and session.is_running:
                return session
            self._discard(session)
        return None

    async def _start(self) -> SigningSession:
        """Start a process and log in, one at a time: with a wrong PIN each would use up a try."""
        self._count += 1
        try:
            async with self._starting:
                session = await self._log_in(await asyncio.to_thread(self._pin))
        except BaseException:
            self._count -= 1
            raise
        self._sessions.add(session)
        return session

    async def _log_in(self, pin: tuple[str, int]) -> SigningSession:
        if pin == self._rejected:
            raise SignerError(f"the PIN is wrong; {self._reason_not_tried()}", SignatureResult.WRONG)
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
            await session.open(self._address, pin[0])
        except SigningRefused as refused:
            self._end_session(session)
            if refused.name not in _REJECTED:
                raise _fault(refused) from None
            self._rejected = pin
            raise SignerError(
                f"{_WRONG_TEXTS[refused.name]}; {self._reason_not_tried()}", SignatureResult.WRONG
            ) from None
        except BaseException:
            self._end_session(session)
            raise
        return session

    def _pin(self) -> tuple[str, int]:
        """Return the PIN, and when its file was written."""
        path = self._address.pin_file
        try:
            return read_secret(path).strip(), path.stat().st_mtime_ns
        except (OSError, ConfigurationError):
            raise SignerError(f"{path} cannot be read, or does not hold one line", SignatureResult.WRONG) from None

    def _reason_not_tried(self) -> str:
        return f"it is not tried again until {self._address.pin_file} changes, since tokens lock after a few tries"

    def _discard(self, session: SigningSession) -> None:
        if session in self._sessions:
            self._sessions.discard(session)
            self._count -= 1
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
        """Fetch the public half. Raises SignerError."""
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
        return PublicHalf(key=key, lacking=lacking)  # type: ignore[arg-type]  # of another kind it is refused there

    async def sign(self, alg: Algorithm, message: bytes) -> bytes:
        """Sign. Raises SignerError."""
        return await self._token.sign(self._key, alg, message)

    async def close(self) -> None:
        """Stop using the token."""
        if self._joined:
            self._joined = False
            await self._token.leave()


def _fault(refused: SigningRefused) -> SignerError:
    if refused.name in _WRONG_TEXTS:
        return SignerError(refused.text or _WRONG_TEXTS[refused.name], SignatureResult.WRONG)
    return SignerError(f"the module answered {refused.name}; its process is started anew")
