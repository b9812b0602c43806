"""Shares the processing time of the listeners between parties: the bearers of a token, and all who have none.

Within a party groups alternate: the connections of each network that are new, were useful, only read, or were refused.
So a source of events, a page or a probe, which have no token of the API, do not wait for many connections that are
refused all the time.

The rounds of the event loop stay short: uvloop accepts one new connection per round, and other threads, such as that
of the embedded queue, continue between rounds.
"""

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Generator
from http import HTTPStatus
from itertools import islice
from socket import AF_INET6, inet_pton
from typing import Any, Generic, TypeVar, cast

from notifier.model.shared_resources import shared_bound
from notifier.network.listeners.authorization import Tokens, find_token

CONNECTIONS_PER_ROUND = shared_bound(2)  # that pass on a further piece or request in one round of the event loop
REST_AFTER_REFUSAL = 6.0  # times its measured time; aiohttp takes as much again
REST_AFTER_READ = 1.0  # the same of a request that only reads something
MAX_REST_SECONDS = 0.2
_TIMER_SECONDS = 0.001  # the resolution of uvloop's timers

_READING_METHODS = ("GET", "HEAD", "OPTIONS")
T = TypeVar("T")
TakeTurn = Callable[[], None]
_CREDENTIALS = re.compile(rb"\r\nAuthorization:[ \t]*Bearer ([^\r\n]*)\r\n", re.IGNORECASE)


def rest_factor_after(method: str, status: int) -> float:
    """Return how many times as long as it took the party of a request rests after it. Useful requests cost no rest."""
    if status >= HTTPStatus.BAD_REQUEST:
        return REST_AFTER_REFUSAL
    return REST_AFTER_READ if method in _READING_METHODS else 0.0


class StepTimer(Generic[T]):
    """Awaits a coroutine, and measures how long it ran, without the time for which it waited."""

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self.seconds = 0.0
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, T]:
        act: Callable[[Any], Any] = self._coroutine.send
        value: Any = None
        while True:
            began = time.monotonic()
            try:
                awaited = act(value)
            except StopIteration as end:
                return cast("T", end.value)
            finally:
                self.seconds += time.monotonic() - began
            try:
                value = yield awaited
                act = self._coroutine.send
            except BaseException as error:  # noqa: BLE001  passed on: the coroutine is cancelled
                value, act = error, self._coroutine.throw


def network_of(peer: tuple[Any, ...] | None) -> str:
    """Return the IPv4 address of a peer, or the first 64 bits of its IPv6 address: one host has all of those."""
    host = str(peer[0]).partition("%")[0] if peer else ""
    return inet_pton(AF_INET6, host)[:8].hex() if ":" in host else host


class Party:
    """Those who take turns together, groups of them by turns. They rest after requests that bring nothing."""

    def __init__(self) -> None:
        self._acts: OrderedDict[str, OrderedDict[TakeTurn, None]] = OrderedDict()  # by group
        self.rests_until = 0.0

    def add(self, act: TakeTurn, group: str) -> None:
        """Let `act` be taken."""
        self._acts.setdefault(group, OrderedDict())[act] = None

    def remove(self, act: TakeTurn, group: str) -> bool:
        """Let `act` not be taken. Return whether it was waiting."""
        acts = self._acts.get(group)
        if acts is None or act not in acts:
            return False
        del acts[act]
        if not acts:
            del self._acts[group]
        return True

    def take(self) -> TakeTurn | None:
        """Remove and return the oldest act of the next group."""
        if not self._acts:
            return None
        group, acts = self._acts.popitem(last=False)
        act, _ = acts.popitem(last=False)
        if acts:
            self._acts[group] = acts
        return act

    @property
    def is_waiting(self) -> bool:
        """True if acts are waiting."""
        return bool(self._acts)

    def rest(self, seconds: float, factor: float) -> None:
        """Rest after a request whose handling took so many seconds, `factor` times as long."""
        now = time.monotonic()
        self.rests_until = min(max(self.rests_until, now) + factor * seconds, now + MAX_REST_SECONDS)


class Parties:
    """The parties of a listener: one of each token, one of connections whose last request was useful, the strangers."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._bearers: dict[str, Party] = {}
        self.useful = Party()
        self.strangers = Party()

    def bearer_in(self, head: bytes | bytearray) -> Party | None:
        """Return the party of the token in the head of a request; None without a known token."""
        tokens = self._tokens()
        credentials = _CREDENTIALS.search(head) if tokens else None
        token = None if tokens is None or credentials is None else find_token(credentials[1].strip(), tokens)
        return None if token is None else self._bearers.setdefault(token.name, Party())


class Turns:
    """Calls the functions of parties: CONNECTIONS_PER_ROUND in each round of the event loop.

    Each is the oldest of the next party that does not rest.
    """

    def __init__(self) -> None:
        self._waiting: OrderedDict[Party, None] = OrderedDict()
        self._next_round: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None  # while all parties rest

    def add(self, party: Party, act: TakeTurn, group: str = "") -> None:
        """Call `act` once, unless it is removed from the party, as its connection has ended."""
        party.add(act, group)
        self._waiting[party] = None
        self._schedule()

    def _schedule(self) -> None:
        if self._next_round is not None or not self._waiting:
            return
        loop = asyncio.get_running_loop()
        rest = min(party.rests_until for party in self._waiting) - time.monotonic()
        if rest < _TIMER_SECONDS:
            self._next_round = loop.call_soon(self._run_round)
        else:  # also instead of a timer for others, who may rest for longer
            if self._timer is not None:
                self._timer.cancel()
            self._timer = loop.call_later(rest, self._run_round)

    def _run_round(self) -> None:
        for handle in filter(None, (self._next_round, self._timer)):
            handle.cancel()
        self._next_round = self._timer = None
        rested = time.monotonic() + _TIMER_SECONDS
        ready = (party for party in self._waiting if party.rests_until < rested)
        try:
            for party in list(islice(ready, CONNECTIONS_PER_ROUND)):
                self._waiting.move_to_end(party)
                if (act := party.take()) is not None:
                    act()
                if not party.is_waiting:
                    self._waiting.pop(party, None)
        finally:  # an error of one connection ends no turns of others
            self._schedule()


class Seat:
    """The place of a connection among the turns. `act` is called in its turns."""

    def __init__(self, turns: Turns, parties: Parties, act: TakeTurn) -> None:
        self._turns = turns
        self._parties = parties
        self._act = act
        self._party = parties.strangers
        self._network = self._group = ""
        self.knows_head = False  # of the request that is awaited or answered
        self._bearer: Party | None = None  # of the last head
        self._seconds = 0.0  # of the turns for the current request

    def on_connection(self, peer: tuple[Any, ...] | None) -> None:
        """Take turns with the connections of this peer's network."""
        self._network = self._group = network_of(peer)

    def wait_for_turn(self) -> None:
        """Call `act` in the next turn."""
        self._turns.add(self._party, self._take_turn, self._group)

    def leave(self) -> None:
        """Take no more turns. A request without an answer of a handler, such as a broken head, counts as refused."""
        self._party.remove(self._take_turn, self._group)
        self._party.rest(self._seconds, REST_AFTER_REFUSAL)
        self._seconds = 0.0

    def on_head(self, head: bytes | bytearray) -> None:
        """Take turns as the bearer of the token in this head, if it is known, and not as the bearer of the last one."""
        self.knows_head = True
        self._bearer = self._parties.bearer_in(head)
        useful = self._party is self._parties.useful
        self._join(self._bearer or (self._party if useful else self._parties.strangers), self._group)

    def on_answer(self, seconds: float, rest_factor: float) -> None:
        """Record that the handler of the request ran for so many seconds. Unless it was useful, the party rests."""
        self.knows_head = False
        party = self._bearer or (self._parties.strangers if rest_factor else self._parties.useful)
        party.rest(self._seconds + seconds, rest_factor)
        self._seconds = 0.0
        self._join(party, f"{self._network} {rest_factor}")

    def _join(self, party: Party, group: str) -> None:
        if party is not self._party or group != self._group:
            was_waiting = self._party.remove(self._take_turn, self._group)
            self._party, self._group = party, group
            if was_waiting:
                self.wait_for_turn()

    def _take_turn(self) -> None:
        began = time.monotonic()
        self._act()
        self._seconds += time.monotonic() - began
