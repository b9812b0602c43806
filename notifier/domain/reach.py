"""What it takes to reach a client, tried without sending it anything."""

from dataclasses import dataclass

from notifier.domain.outcome import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """Connected to `address`, of the proxy where there is one. `expires`: when the certificate ends, epoch seconds."""

    address: str
    proxy: bool = False
    expires: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreached:
    """Not connected; `text` says why."""

    reason: Reason
    text: str
