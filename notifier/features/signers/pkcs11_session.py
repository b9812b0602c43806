"""The worker's end of a process that signs with the keys of one PKCS#11 token (`pkcs11_process`).

It is a protocol of asyncio and does not use streams, which cost the worker 40 µs more for each signature.
"""

import asyncio
import json
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from notifier.features.signers.pkcs11_process import DONE, FIND, HEAD, OPEN
from notifier.tokens.signer import SignerError

_MAX_ANSWER_BYTES = 65_536  # bytes of an answer


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenAddress:
    """Which token to use, and where its PIN is."""

    module: Path
    token: str
    pin_file: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyName:
    """How a key of a token is found. `id` is hexadecimal. One of the two may be left out."""

    label: str | None
    id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _FoundKey:
    """A key as one process knows it: its number there, and its public half as DER."""

    number: int
    public: bytes


class SigningSession(asyncio.SubprocessProtocol):
    """One process with its session. It answers requests in order."""

    def __init__(self) -> None:
        self.mechanisms: frozenset[str] = frozenset()
        self.gone = asyncio.Event()
        self._transport: asyncio.SubprocessTransport
        self._requests: asyncio.WriteTransport
        self._received = bytearray()
        self._waiting_answers: deque[asyncio.Future[tuple[bytes, bytes]]] = deque()
        self._found: dict[KeyName, _FoundKey] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The process runs."""
        self._transport = cast("asyncio.SubprocessTransport", transport)  # uvloop's is of no class of asyncio
        self._requests = cast("asyncio.WriteTransport", self._transport.get_pipe_transport(0))

    def pipe_data_received(self, _: int, data: bytes) -> None:
        """Pass each complete answer to its request."""
        self._received += data
        while len(self._received) >= HEAD.size:
            length, status = HEAD.unpack_from(self._received)
            if length > _MAX_ANSWER_BYTES or not self._waiting_answers:
                self._end("its process gave an answer that is none")
                return
            end = HEAD.size + length
            if len(self._received) < end:
                return
            waiting = self._waiting_answers.popleft()
            if not waiting.done():
                waiting.set_result((status, bytes(self._received[HEAD.size : end])))
            del self._received[:end]

    def connection_lost(self, _: Exception | None) -> None:
        """The process is gone, and all that it wrote was read."""
        code = self._transport.get_returncode() or 0
        self._end(f"its process ended{f' by signal {-code}' if code < 0 else ''}; another is started")
        self.gone.set()

    def kill(self) -> None:
        """End the process. `gone` is set when it has ended."""
        with suppress(ProcessLookupError):
            self._transport.kill()

    @property
    def is_running(self) -> bool:
        """False once the process is known to have ended."""
        return self._transport.get_returncode() is None

    async def open(self, address: TokenAddress, pin: str) -> None:
        asked = {"module": str(address.module), "token": address.token, "pin": pin}
        self.mechanisms = frozenset(json.loads(await self.request(OPEN, json.dumps(asked).encode())))

    async def find(self, key: KeyName) -> _FoundKey:
        if key not in self._found:
            reply = json.loads(await self.request(FIND, json.dumps({"label": key.label, "id": key.id}).encode()))
            self._found[key] = _FoundKey(number=reply["number"], public=bytes.fromhex(reply["public"]))
        return self._found[key]

    async def request(self, kind: bytes, body: bytes) -> bytes:
        """Send one request and return its answer. Raises SignerError or SigningRefused."""
        if self.gone.is_set():
            raise SignerError("its process ended; another is started")
        waiting: asyncio.Future[tuple[bytes, bytes]] = asyncio.get_running_loop().create_future()
        self._waiting_answers.append(waiting)
        self._requests.write(HEAD.pack(len(body), kind) + body)
        status, answer = await waiting
        if status == DONE:
            return answer
        name, text = json.loads(answer)
        raise SigningRefused(name, text)

    def _end(self, why: str) -> None:
        while self._waiting_answers:
            waiting = self._waiting_answers.popleft()
            if not waiting.done():
                waiting.set_exception(SignerError(why))


class SigningRefused(Exception):  # noqa: N818  an answer
    """The process answered with a fault: the name of the library's error, and the process's text."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(name)
        self.name = name
        self.text = text
