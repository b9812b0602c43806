"""Results of connecting to a client without sending it anything."""

from dataclasses import dataclass

from notifier.model.outcome import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """Connected to `address` (the proxy's, if there is one). `expires`: end of the certificate, in epoch seconds."""

    address: str
    proxy: bool = False
    expires: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreached:
    """Not connected. `text` says why."""

    reason: Reason
    text: str
