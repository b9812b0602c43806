"""The results of asking a place of keys for a signature."""

from collections.abc import Callable
from enum import StrEnum
from typing import TypeAlias


class SignatureResult(StrEnum):
    """How a place of keys answered. It is the metric label too."""

    OK = "ok"
    SLOW = "slow"  # nothing within 2 s
    AWAY = "away"  # it cannot sign now: throttled, sealed, crashed, not reached
    WRONG = "wrong"  # it will not sign until somebody corrects something: no such key, no permission, a wrong PIN
    UNVERIFIED = "unverified"  # the public key does not verify what it signed


SignatureObserver: TypeAlias = Callable[[str, SignatureResult, float], None]
"""Receives the kind of place, its result, and the seconds that it took."""
