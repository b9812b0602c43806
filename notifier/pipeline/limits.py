"""The bounds of one worker."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """`max_in_flight` attempts at a time; `slot_wait` and `shutdown_grace` in seconds."""

    max_in_flight: int = 512
    slot_wait: float = 1.0
    shutdown_grace: float = 20.0
