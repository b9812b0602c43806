"""How simulated clients behave: well, down, half well, overloaded.

A behaviour is a function (moment, chance) → (seconds until the attempt ends, result of the request). Some have a
memory, so each run makes its own.
"""

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from notifier.model.client import Client
from notifier.model.outcome import HttpResponse, Reason, TransportFailure, TransportResult

Step = tuple[float, TransportResult]
Behaviour = Callable[[float, random.Random], Step]

ISS = "https://id.example"
OK = HttpResponse(status=200)
UNAVAILABLE = HttpResponse(status=503)
THROTTLED = HttpResponse(status=429)
NOBODY = TransportFailure(reason=Reason.CONNECT, ambiguous=False, text="refused")
SILENT = TransportFailure(reason=Reason.TIMEOUT, ambiguous=True, text="no answer")
NEVER = 1e9  # seconds: it ends at the client's timeout


def client(name: str, **more: object) -> Client:
    """Return a registered client with its name in the URI."""
    return Client(iss=ISS, client_id=name, backchannel_logout_uri=f"https://{name}.example/", **more)  # type: ignore[arg-type]


def names(count: int) -> list[str]:
    """c0, c1, …"""
    return [f"c{number}" for number in range(count)]


def well(_now: float, chance: random.Random) -> Step:
    """Accepts within 3 to 7 ms."""
    return 0.003 + 0.004 * chance.random(), OK


def refuses(_now: float, _chance: random.Random) -> Step:
    """Nobody listens."""
    return 0.001, NOBODY


def answers_503(_now: float, _chance: random.Random) -> Step:
    """A load balancer without a backend. It answers at its usual length."""
    return 0.25, UNAVAILABLE


def hangs(_now: float, _chance: random.Random) -> Step:
    """Nothing comes back."""
    return NEVER, SILENT


def crawls(_now: float, _chance: random.Random) -> Step:
    """Accepts, but takes nearly the whole timeout."""
    return 4.5, OK


def steady(seconds: float, wire: TransportResult = OK) -> Behaviour:
    """Always the same."""
    return lambda _now, _chance: (seconds, wire)


def partly(share: float, bad: Step, good: Step) -> Behaviour:
    """Each request meets a bad instance with that probability."""
    return lambda _now, chance: bad if chance.random() < share else good


def every_third(bad: Step, good: Step) -> Behaviour:
    """Requests meet three instances in turn, one of which is bad."""
    turn = itertools.count()
    return lambda _now, _chance: bad if next(turn) % 3 == 0 else good


def between(since: float, until: float, bad: Behaviour, good: Behaviour = well) -> Behaviour:
    """Bad for a while."""
    return lambda now, chance: (bad if since <= now < until else good)(now, chance)


def flaps(period: float) -> Behaviour:
    """Well for a period, silent for the next."""
    return lambda now, chance: (well, hangs)[int(now / period) % 2](now, chance)


def wakes(end: float, seconds: float) -> Behaviour:
    """From `end` on it accepts a share of the requests, which grows from nothing to all."""
    return lambda now, chance: (answers_503 if chance.random() > (now - end) / seconds else well)(now, chance)


@dataclass(slots=True)
class LimitedRate:
    """Accepts so many a second and refuses the rest at once."""

    rate: float
    refusal: TransportResult
    left: float = 0.0
    at: float = 0.0

    def __call__(self, now: float, _chance: random.Random) -> Step:
        self.left = min(self.rate, self.left + (now - self.at) * self.rate)
        self.at = now
        if self.left < 1:
            return 0.002, self.refusal
        self.left -= 1
        return 0.005, OK


@dataclass(slots=True)
class LimitedThreads:
    """Works on so many at a time, `each` seconds a request, and refuses what finds no thread."""

    count: int
    each: float
    refusal: TransportResult
    ends: list[float] = field(default_factory=list)

    def __call__(self, now: float, _chance: random.Random) -> Step:
        self.ends = [end for end in self.ends if end > now]
        if len(self.ends) >= self.count:
            return 0.002, self.refusal
        self.ends.append(now + self.each)
        return self.each, OK
