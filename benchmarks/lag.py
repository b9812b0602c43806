"""Measures how long a worker's event loop is held up: a thread asks `/livez` every 2 ms over one connection.

It shows what every request feels: a stall of the loop, and the switches of Python's lock that a thread beside it
costs. An idle loop answers in well under a millisecond.
"""

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from yarl import URL

from benchmarks import figures

EVERY = 0.002
PATIENCE = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lag:
    """The answers' times in milliseconds."""

    asked: int
    p50: float
    p99: float
    max: float


class Questions:
    """Asks `/livez`, and keeps when it asked and how many seconds the answer took."""

    def __init__(self, ops: str) -> None:
        url = URL(ops)
        assert url.host is not None
        assert url.port is not None
        self._address = url.host, url.port
        self._request = f"GET /livez HTTP/1.1\r\nHost: {url.host}\r\n\r\n".encode()
        self._end = threading.Event()
        self.times: list[tuple[float, float]] = []

    def ask(self) -> None:
        """Ask until `end`."""
        with socket.create_connection(self._address, timeout=PATIENCE) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while not self._end.is_set():
                asked = time.monotonic()
                sock.sendall(self._request)
                if not sock.recv(65536):
                    return
                self.times.append((asked, time.monotonic() - asked))
                self._end.wait(EVERY)

    def end(self) -> None:
        """Ask no more."""
        self._end.set()

    def lag(self, since: float = 0.0, until: float = float("inf")) -> Lag:
        """The lag between two moments of the monotonic clock."""
        return lag_of([took for asked, took in self.times if since <= asked <= until])


def lag_of(seconds: Sequence[float]) -> Lag:
    """The lag of these answers."""
    found = [1000 * each for each in seconds]
    p50, p99, most = (figures.percentile(found, share) for share in (0.5, 0.99, 1))
    return Lag(asked=len(found), p50=p50, p99=p99, max=most)


@contextmanager
def questions(ops: str) -> Iterator[Questions]:
    """Ask in a thread while the block lasts."""
    asked = Questions(ops)
    thread = threading.Thread(target=asked.ask)
    thread.start()
    try:
        yield asked
    finally:
        asked.end()
        thread.join()
