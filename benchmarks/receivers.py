"""The clients of a benchmark: one uvloop process with a port for each on 127.0.0.1.

Started by `rig.receivers`; takes commands as JSON lines on stdin, answers each with one on stdout, ends with stdin.
Raw protocols, and nothing but flaky clients' tokens is decoded while a run lasts: what is measured is the worker.
"""

import asyncio
import base64
import contextlib
import gc
import json
import resource
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs

import uvloop

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
FAILS_EVERY = 4  # deliveries of a flaky client
BACKLOG = 1024


class Kind(StrEnum):
    """How a client behaves."""

    ANSWER = "answer"  # 200, after `seconds`
    HANG = "hang"  # takes connections and requests, and never answers
    REFUSE = "refuse"  # nobody listens
    FLAKY = "flaky"  # answers 503 to the first attempt of each fourth of its deliveries


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """A kind, and the seconds until it answers."""

    kind: Kind = Kind.ANSWER
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Hit:
    """One request: when it was complete (monotonic), at which client, its token, and whether it gets a 200."""

    at: float
    client: int
    body: bytes
    answered: bool


def event_of(body: bytes) -> int:
    """Return the number of the event: the end of the token's `sid`."""
    payload = parse_qs(body)[b"logout_token"][0].split(b".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))
    return int(claims["sid"].rpartition("-")[2])


@dataclass(slots=True)
class Played:
    """One client: its port, how it behaves, who is connected, how many requests came, and if flaky for which events."""

    number: int
    port: int = 0
    behaviour: Behaviour = Behaviour()
    server: asyncio.Server | None = None
    connections: "set[Connection]" = field(default_factory=set)
    hits: int = 0
    events: set[int] = field(default_factory=set)

    def on_flaky_request(self, event: int) -> bool:
        """Record a request of a flaky client, and return True if it gets a 200."""
        is_first = event not in self.events
        self.events.add(event)
        return not is_first or len(self.events) % FAILS_EVERY > 0

    async def listen(self, hits: list[Hit]) -> None:
        """Take connections, always at the same port."""
        if self.server is None:
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", self.port))
            self.port = sock.getsockname()[1]
            loop = asyncio.get_running_loop()
            self.server = await loop.create_server(lambda: Connection(self, hits), sock=sock, backlog=BACKLOG)

    async def play(self, behaviour: Behaviour, hits: list[Hit]) -> None:
        """Change the behaviour."""
        self.behaviour = behaviour
        if behaviour.kind is not Kind.REFUSE:
            await self.listen(hits)
        elif self.server is not None:
            self.server.close()
            self.server = None
            for connection in list(self.connections):
                connection.transport.abort()


class Connection(asyncio.Protocol):
    """One connection of the worker's."""

    transport: asyncio.Transport

    def __init__(self, client: Played, hits: list[Hit]) -> None:
        self._client = client
        self._hits = hits
        self._data = b""
        self._pending = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is not a subclass
        self._client.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Of asyncio."""
        self._client.connections.discard(self)
        self._end()

    def data_received(self, data: bytes) -> None:
        """Of asyncio."""
        self._data += data
        head, end, body = self._data.partition(b"\r\n\r\n")
        if not end:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) >= length:
            self._data = body[length:]
            self._request(body[:length])

    def _request(self, body: bytes) -> None:
        client, behaviour = self._client, self._client.behaviour
        is_flaky = behaviour.kind is Kind.FLAKY
        answers = client.on_flaky_request(event_of(body)) if is_flaky else behaviour.kind is Kind.ANSWER
        self._hits.append(Hit(time.monotonic(), client.number, body, answers))
        client.hits += 1
        self._pending = True
        if answers and behaviour.seconds:
            asyncio.get_running_loop().call_later(behaviour.seconds, self._answer)
        elif answers or is_flaky:
            self._answer(OK if answers else UNAVAILABLE)

    def _answer(self, answer: bytes = OK) -> None:
        if self._pending and not self.transport.is_closing():
            self.transport.write(answer)
            self._end()

    def _end(self) -> None:
        if self._pending:
            self._pending = False


@dataclass(slots=True)
class Company:
    """All clients, and the commands that they obey."""

    clients: list[Played] = field(default_factory=list)
    hits: list[Hit] = field(default_factory=list)

    async def obey(self, command: Mapping[str, Any]) -> object:
        """Obey one command, and return the answer."""
        match command:
            case {"do": "open", "clients": number}:
                for _ in range(number - len(self.clients)):
                    self.clients.append(client := Played(number=len(self.clients)))
                    await client.listen(self.hits)
                return [client.port for client in self.clients]
            case {"do": "play", "clients": chosen, "kind": kind, "seconds": seconds}:
                behaviour = Behaviour(kind=Kind(kind), seconds=seconds)
                for number in chosen:
                    await self.clients[number].play(behaviour, self.hits)
                return None
            case {"do": "count"}:
                return [client.hits for client in self.clients]
            case {"do": "write", "file": file}:
                await asyncio.to_thread(write, Path(file), tuple(self.hits))
                return None
            case {"do": "forget"}:
                self.hits.clear()
                for client in self.clients:
                    client.hits = 0
                    client.events.clear()
                return None
            case _:
                raise ValueError(f"unknown command {command}")


def write(file: Path, hits: tuple[Hit, ...]) -> None:
    """Write a line for each request: event, client, moment, and 1 if it was answered."""
    file.write_text("".join(f"{event_of(hit.body)} {hit.client} {hit.at:.6f} {hit.answered:d}\n" for hit in hits))


async def main() -> None:
    """Obey commands until stdin ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    company = Company()
    async for line in reader:
        answer = await company.obey(json.loads(line))
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    gc.disable()  # a search for cycles holds all of them for 40 ms
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(main())
