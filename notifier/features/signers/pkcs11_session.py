"""The worker's connection to a process that signs with a PKCS#11 token (`pkcs11_process`), over its pipes.

It is an asyncio protocol, since asyncio's streams would cost 40 µs more for each signature.
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

_MAX_ANSWER_BYTES = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenAddress:
    """The vendor's library, the label of the token in it, and the file with the token's PIN."""

    module: Path
    token: str
    pin_file: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyName:
    """The label and the hexadecimal ID of a key in a token. One of the two may be None."""

    label: str | None
    id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _FoundKey:
    """A key that a process has found: its number in this process, and the public key as DER."""

    number: int
    public: bytes


class SigningSession(asyncio.SubprocessProtocol):
    """One process that is logged in to a token. It answers requests in their order.

    `mechanisms`: of the token, after `open`. `gone` is set when the process has ended.
    """

    def __init__(self) -> None:
        self.mechanisms: frozenset[str] = frozenset()
        self.gone = asyncio.Event()
        self._transport: asyncio.SubprocessTransport
        self._requests: asyncio.WriteTransport
        self._received = bytearray()
        self._pending_answers: deque[asyncio.Future[tuple[bytes, bytes]]] = deque()
        self._found_keys: dict[KeyName, _FoundKey] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transports of the started process."""
        self._transport = cast("asyncio.SubprocessTransport", transport)  # uvloop's class does not inherit from it
        self._requests = cast("asyncio.WriteTransport", self._transport.get_pipe_transport(0))

    def pipe_data_received(self, _: int, data: bytes) -> None:
        """Collect output of the process, and return each complete answer to its request."""
        self._received += data
        while len(self._received) >= HEAD.size:
            length, status = HEAD.unpack_from(self._received)
            if length > _MAX_ANSWER_BYTES or not self._pending_answers:
                self._fail_requests("its process gave an answer that is none")
                return
            frame_end = HEAD.size + length
            if len(self._received) < frame_end:
                return
            pending = self._pending_answers.popleft()
            if not pending.done():
                pending.set_result((status, bytes(self._received[HEAD.size : frame_end])))
            del self._received[:frame_end]

    def connection_lost(self, _: Exception | None) -> None:
        """Fail the remaining requests. asyncio calls this after the process has ended and its output was read."""
        code = self._transport.get_returncode() or 0
        cause = f" by signal {-code}" if code < 0 else ""
        self._fail_requests(f"its process ended{cause}; another is started")
        self.gone.set()

    def kill(self) -> None:
        """Kill the process, and return at once. `gone` is set when the process has ended."""
        with suppress(ProcessLookupError):
            self._transport.kill()

    @property
    def is_running(self) -> bool:
        """Return False when the process has ended."""
        return self._transport.get_returncode() is None

    async def open(self, address: TokenAddress, pin: str) -> None:
        """Log in to the token. Raises SignerError or SigningRefused."""
        body = {"module": str(address.module), "token": address.token, "pin": pin}
        self.mechanisms = frozenset(json.loads(await self.request(OPEN, json.dumps(body).encode())))

    async def find(self, key: KeyName) -> _FoundKey:
        """Return a key, which the process finds once. Raises SignerError or SigningRefused."""
        if key not in self._found_keys:
            reply = json.loads(await self.request(FIND, json.dumps({"label": key.label, "id": key.id}).encode()))
            self._found_keys[key] = _FoundKey(number=reply["number"], public=bytes.fromhex(reply["public"]))
        return self._found_keys[key]

    async def request(self, kind: bytes, body: bytes) -> bytes:
        """Send a request and return its answer. Raises SigningRefused, or SignerError if the process ends."""
        if self.gone.is_set():
            raise SignerError("its process ended; another is started")
        pending: asyncio.Future[tuple[bytes, bytes]] = asyncio.get_running_loop().create_future()
        self._pending_answers.append(pending)
        self._requests.write(HEAD.pack(len(body), kind) + body)
        status, answer = await pending
        if status == DONE:
            return answer
        name, text = json.loads(answer)
        raise SigningRefused(name, text)

    def _fail_requests(self, text: str) -> None:
        while self._pending_answers:
            pending = self._pending_answers.popleft()
            if not pending.done():
                pending.set_exception(SignerError(text))


class SigningRefused(Exception):  # noqa: N818  an answer
    """The process answered with an error. `name`: of the library's exception. `text`: may be empty."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(name)
        self.name = name
        self.text = text
