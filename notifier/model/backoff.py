"""Computes waits: the backoff between two attempts, and the wait of a deferral.

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
"""Down for a backoff, which may be slightly early; up if the client gave the time (`Retry-After`)."""

MIN_WAIT_SECONDS = 1.0  # seconds: the shortest wait. A delivery due within it is due now
MAX_LATE_FACTOR = 8 / 7  # a queue takes at most this multiple of the wait, if it rounds up
MIN_EARLY_FACTOR = 7 / 8  # a queue takes at least this multiple of the wait, if it rounds down
MAX_DEFERRAL_SECONDS = 65_536
_HAIR = 1e-3  # seconds: tolerance for rounding errors of moments. 64 s must not become 65
_ON_ITS_WAY = 0.01  # seconds between the decision to wait and the publish: 512 s must not become 511


def compute_backoff(policy: RetryPolicy, tries: int, jitter: Jitter) -> float:
    """Return the wait in seconds after `tries` (1, 2, …) failures: `base · factor^(tries-1)`, capped, with jitter."""
    # The exponent is bounded: 3.0 ** 700 raises OverflowError, and any cap is reached long before.
    raw = min(policy.max_delay, policy.base * policy.factor ** min(max(tries, 1) - 1, 64))
    return raw * (1 + policy.jitter * (2 * jitter() - 1))


def whole_seconds(seconds: float, rounding: Rounding) -> int:
    """Return the wait in whole seconds, at least one."""
    return max(1, int(seconds + _ON_ITS_WAY) if rounding == "down" else math.ceil(seconds - _HAIR))


def deferral_wait(seconds: float, rounding: Rounding = "down") -> int:
    """Return the seconds until a deferral is due: a power of two, so that RabbitMQ keeps it in one delay queue.

    If rounded down, the delivery is due early, after at least half of the time, and is decided again.
    """
    whole = whole_seconds(min(seconds, MAX_DEFERRAL_SECONDS), rounding)
    return 1 << (whole.bit_length() - 1 if rounding == "down" else (whole - 1).bit_length())


def one_pass(seconds: float, rounding: Rounding = "down") -> float:
    """Return the wait rounded to a power of two, which one pass through one delay queue takes exactly."""
    exponent = math.log2(seconds + _HAIR) if rounding == "down" else math.ceil(math.log2(seconds))
    return 2.0 ** math.floor(exponent)
