"""When to try again: the backoff between attempts, and how a delay is written as hops through the delay queues.

With the defaults (base 2 s, factor 3, max_delay 1 h) the waits are 2 s, 6 s, 18 s, 54 s, 2 m 42 s, 8 m 6 s, 24 m 18 s,
then an hour each until `max_age`; every one ± 25 %, so that clients that failed together do not come back together.

A delay queue has one constant time to live, so that no message waits behind a longer one. There is one for each power
of two seconds up to 65,536; three hops come within 13 % of any delay, and each hop is a pass through the broker.
"""

import math
from collections.abc import Callable
from typing import Literal

from notifier.domain.client import RetryPolicy
from notifier.domain.message import HOPS

Jitter = Callable[[], float]
"""A number drawn evenly from [0, 1)."""

MOST_HOPS = 3
SOON = 1.0  # seconds: what is due within the shortest delay queue's time is due now


def backoff(policy: RetryPolicy, tries: int, jitter: Jitter) -> float:
    """Seconds to wait after `tries` failed attempts (1, 2, …): `base · factor^(tries-1)`, capped, with jitter."""
    # The exponent is bounded since 3.0 ** 700 is an OverflowError, and any cap is reached long before.
    raw = min(policy.max_delay, policy.base * policy.factor ** min(max(tries, 1) - 1, 64))
    return raw * (1 + policy.jitter * (2 * jitter() - 1))


def hops(seconds: float, rounding: Literal["down", "up"] = "down", most: int = MOST_HOPS) -> tuple[int, ...]:
    """The delay as at most `most` delay queues, longest first: 45 s → (32, 8, 4) down, (32, 16) up.

    Never empty: the shortest delay is one second. Down is right for a backoff, where a little early does no harm; up
    where the client itself named the time (`Retry-After`).
    """
    whole = max(1, int(seconds) if rounding == "down" else math.ceil(min(seconds, most * HOPS[-1])))
    parts: list[int] = []
    while whole > HOPS[-1] and len(parts) < most - 1:
        parts.append(HOPS[-1])
        whole -= HOPS[-1]
    left = most - len(parts)
    while rounding == "up" and whole.bit_count() > left and whole < HOPS[-1]:
        whole += whole & -whole  # clears the lowest bit upwards: the next sum that needs fewer powers of two
    for _ in range(left):
        if not whole:
            break
        hop = min(1 << (whole.bit_length() - 1), HOPS[-1])
        parts.append(hop)
        whole -= hop
    return tuple(parts)
