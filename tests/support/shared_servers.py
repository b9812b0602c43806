"""Servers that a whole run of tests shares, though pytest-xdist makes it of several processes.

The process that leads the run starts each when a test first asks for it, and ends all of them with the run. A process
that runs tests asks the leader over a socket of the loopback interface. It gets what describes the server: a node, say,
as it is pickled, which can be asked and commanded there, and not killed. Only who must break a node boots another.
"""

import contextlib
import secrets
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from multiprocessing.connection import Client, Connection, Listener
from typing import Any, cast

import pytest

Maker = Callable[[], contextlib.AbstractContextManager[Any]]
Address = tuple[tuple[str, int], bytes]
"""Where the leader listens, and what proves that one may ask."""
SHARED = pytest.StashKey["SharedServers | AskedServers"]()
"""Whom to ask, of a run's configuration."""


class SharedServers:
    """Of the process that leads a run. `makers`: by name, what starts a server and ends it."""

    def __init__(self, makers: Mapping[str, Maker]) -> None:
        self._makers = makers
        self._started: dict[str, Any] = {}
        self._one: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)  # two may start at once, none twice
        self._running = contextlib.ExitStack()

    def ask(self, name: str) -> Any:
        """The server of this name, started if it does not run yet. Raises what its start raises."""
        with self._one[name]:
            if name not in self._started:
                self._started[name] = self._running.enter_context(self._makers[name]())
            return self._started[name]

    def listen(self) -> Address:
        """Answer the processes of the run from now on."""
        key = secrets.token_bytes(16)
        listener = Listener(("127.0.0.1", 0), authkey=key)
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return cast("tuple[str, int]", listener.address), key

    def _accept(self, listener: Listener) -> None:
        while True:
            with contextlib.suppress(OSError, EOFError):
                threading.Thread(target=self._answer, args=(listener.accept(),), daemon=True).start()

    def _answer(self, asker: Connection) -> None:
        with asker, contextlib.suppress(OSError):  # a process that has ended meanwhile
            try:
                asker.send((True, self.ask(asker.recv())))
            except Exception as why:  # noqa: BLE001  the asker raises it
                asker.send((False, why))

    def end(self) -> None:
        """End what runs."""
        self._running.close()


class AskedServers:
    """Of a process that runs tests for a leader."""

    def __init__(self, address: Address) -> None:
        self._address = address

    def ask(self, name: str) -> Any:
        """As the leader answers. Raises what it raised."""
        place, key = self._address
        with Client(place, authkey=key) as leader:
            leader.send(name)
            well, answer = leader.recv()
        if not well:
            raise answer
        return answer
