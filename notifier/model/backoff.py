"""Computes the seconds to wait: the backoff between two attempts, and the wait of a deferral.

With the defaults (base 2 s, factor 3, max_delay 1 h) the waits are 2 s, 6 s, 18 s, 54 s, 2 m 42 s, 8 m 6 s, 24 m 18 s,
then an hour each until `max_age`. Each is ± 25 %, so that clients that failed together are not retried together.
"""

import math
from collections.abc import Callable
from typing import Literal

from notifier.model.client import RetryPolicy

Jitter = Callable[[], float]
"""Returns a uniformly distributed number from [0, 1)."""

Rounding = Literal["down", "up"]
"""How a wait is rounded: down for a backoff, which may be slightly early; up for a time that the client requested."""

MIN_WAIT_SECONDS = 1.0  # the shortest wait; a delivery that is due sooner is due now
MAX_LATE_FACTOR = 8 / 7  # with rounding up, a wait in queues takes at most this multiple of the seconds
MIN_EARLY_FACTOR = 7 / 8  # with rounding down, a wait in queues takes at least this multiple of the seconds
MAX_DEFERRAL_SECONDS = 65_536
_ROUNDING_ERROR_SECONDS = 1e-3  # tolerated in computed moments: 64 s must not become 65
# From the decision to wait to the publish: 512 s must not become 511, which are three delay queues. A busy machine
# takes longer, so a long wait may last longer by this share, by half a second at most.
_PUBLISH_SECONDS, _PUBLISH_SHARE, _MAX_PUBLISH_SECONDS = 0.01, 1 / 1024, 0.5


def compute_backoff(policy: RetryPolicy, failures: int, jitter: Jitter) -> float:
    """Return the seconds to wait after the given number of failures, with jitter.

    Without jitter they are `base · factor^(failures-1)`, at most `max_delay`.
    """
    exponent = min(max(failures, 1) - 1, 64)  # bounded, since 3.0 ** 700 raises OverflowError
    seconds = min(policy.max_delay, policy.base * policy.factor**exponent)
    return seconds * (1 + policy.jitter * (2 * jitter() - 1))


def whole_seconds(seconds: float, rounding: Rounding) -> int:
    """Return the seconds rounded to a whole number, at least one."""
    if rounding == "up":
        return max(1, math.ceil(seconds - _ROUNDING_ERROR_SECONDS))
    if (share := seconds * _PUBLISH_SHARE) < _PUBLISH_SECONDS:
        return max(1, int(seconds + _PUBLISH_SECONDS))
    return int(seconds + min(share, _MAX_PUBLISH_SECONDS))


def deferral_wait(seconds: float, rounding: Rounding = "down") -> int:
    """Return the seconds of a deferral, rounded to a power of two, so that it takes one delay queue of RabbitMQ.

    If rounded down, the delivery returns after at least half of the requested seconds, and is admitted again.
    """
    whole = whole_seconds(min(seconds, MAX_DEFERRAL_SECONDS), rounding)
    return 1 << (whole.bit_length() - 1 if rounding == "down" else (whole - 1).bit_length())


def one_hop(seconds: float, rounding: Rounding = "down") -> float:
    """Return the seconds rounded to a power of two, the exact delay of a single delay queue."""
    exponent = math.log2(seconds + _ROUNDING_ERROR_SECONDS) if rounding == "down" else math.ceil(math.log2(seconds))
    return 2.0 ** math.floor(exponent)
