"""Servers shared by all pytest-xdist processes of a test run.

The leading process starts each server on first use, and ends all with the run. A test process requests a server over a
loopback socket and receives a pickled description, such as a node that it can query and command but not kill. A test
that breaks a node must boot another.
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
"""The leader's address, and the secret that authorizes requests."""
SHARED = pytest.StashKey["SharedServers | AskedServers"]()
"""Whom to ask, of a run's configuration."""


class SharedServers:
    """Servers in the process that leads a run. `makers`: by name, the context that starts a server and ends it."""

    def __init__(self, makers: Mapping[str, Maker]) -> None:
        self._makers = makers
        self._started: dict[str, Any] = {}
        self._one: defaultdict[str, threading.Lock] = defaultdict(
            threading.Lock
        )  # two may start at once, but none twice
        self._running = contextlib.ExitStack()

    def ask(self, name: str) -> Any:
        """Return the server of this name, started if not running. Raise the start's exception."""
        with self._one[name]:
            if name not in self._started:
                self._started[name] = self._running.enter_context(self._makers[name]())
            return self._started[name]

    def listen(self) -> Address:
        """Answer requests of the run's processes from now on."""
        key = secrets.token_bytes(16)
        listener = Listener(("127.0.0.1", 0), authkey=key)
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return cast("tuple[str, int]", listener.address), key

    def _accept(self, listener: Listener) -> None:
        while True:
            with contextlib.suppress(OSError, EOFError):
                threading.Thread(target=self._answer, args=(listener.accept(),), daemon=True).start()

    def _answer(self, asker: Connection) -> None:
        with asker, contextlib.suppress(OSError):  # the process has ended
            try:
                asker.send((True, self.ask(asker.recv())))
            except Exception as why:  # noqa: BLE001  the asker raises it
                asker.send((False, why))

    def end(self) -> None:
        """End all running servers."""
        self._running.close()


class AskedServers:
    """Servers in a process that runs tests for a leader."""

    def __init__(self, address: Address) -> None:
        self._address = address

    def ask(self, name: str) -> Any:
        """Return the leader's answer. Raise the leader's exception."""
        place, key = self._address
        with Client(place, authkey=key) as leader:
            leader.send(name)
            well, answer = leader.recv()
        if not well:
            raise answer
        return answer
