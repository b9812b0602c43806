"""Shares the processing time of the listeners between parties: the bearers of a token, and all who have none.

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
from typing import Any, Generic, TypeVar, cast

from notifier.model.shared_resources import shared_bound
from notifier.network.listeners.authorization import Tokens, find_token

CONNECTIONS_PER_ROUND = shared_bound(2)  # that pass on a further piece or request in one round of the event loop
REST_AFTER_REFUSAL = 10.0  # times its measured time; aiohttp takes as much again
REST_AFTER_READ = 1.0  # the same of a request that only reads something
MAX_REST_SECONDS = 0.2
_TIMER_SECONDS = 0.001  # the resolution of uvloop's timers

_READING_METHODS = ("GET", "HEAD", "OPTIONS")
T = TypeVar("T")
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


class Party:
    """Those who take turns together. They rest after requests that bring nothing."""

    def __init__(self) -> None:
        self.acts: OrderedDict[Callable[[], None], None] = OrderedDict()
        self.rests_until = 0.0

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

    def add(self, party: Party, act: Callable[[], None]) -> None:
        """Call `act` once, unless it is removed from the party's `acts`, as its connection has ended."""
        party.acts[act] = None
        self._waiting[party] = None
        self._schedule()

    def _schedule(self) -> None:
        if self._next_round is not None or not self._waiting:
            return
        loop = asyncio.get_running_loop()
        rest = min(party.rests_until for party in self._waiting) - time.monotonic()
        if rest < _TIMER_SECONDS:
            self._next_round = loop.call_soon(self._run_round)
        elif self._timer is None:
            self._timer = loop.call_later(rest, self._run_round)

    def _run_round(self) -> None:
        for handle in filter(None, (self._next_round, self._timer)):
            handle.cancel()
        self._next_round = self._timer = None
        rested = time.monotonic() + _TIMER_SECONDS
        ready = (party for party in self._waiting if party.rests_until < rested)
        for party in list(islice(ready, CONNECTIONS_PER_ROUND)):
            if party.acts:
                party.acts.popitem(last=False)[0]()
            if party.acts:
                self._waiting.move_to_end(party)
            else:
                self._waiting.pop(party, None)
        self._schedule()


class Seat:
    """The place of a connection among the turns. `act` is called in its turns."""

    def __init__(self, turns: Turns, parties: Parties, act: Callable[[], None]) -> None:
        self._turns = turns
        self._parties = parties
        self._act = act
        self._party = parties.strangers
        self._bearer: Party | None = None  # of the last head
        self._seconds = 0.0  # of the turns for the current request

    def wait_for_turn(self) -> None:
        """Call `act` in the next turn."""
        self._turns.add(self._party, self._take_turn)

    def leave(self) -> None:
        """Take no more turns."""
        self._party.acts.pop(self._take_turn, None)

    def on_head(self, head: bytes | bytearray) -> None:
        """Take turns as the bearer of the token in this head, if it is known."""
        self._bearer = self._parties.bearer_in(head)
        self._join(self._bearer or self._party)

    def on_answer(self, seconds: float, rest_factor: float) -> None:
        """Record that the handler of the request ran for so many seconds. Unless it was useful, the party rests."""
        party = self._bearer or (self._parties.strangers if rest_factor else self._parties.useful)
        party.rest(self._seconds + seconds, rest_factor)
        self._seconds = 0.0
        self._join(party)

    def _join(self, party: Party) -> None:
        if party is not self._party:
            was_waiting = self._take_turn in self._party.acts
            self.leave()
            self._party = party
            if was_waiting:
                self.wait_for_turn()

    def _take_turn(self) -> None:
        began = time.monotonic()
        self._act()
        self._seconds += time.monotonic() - began
