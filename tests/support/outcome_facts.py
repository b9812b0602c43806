"""Facts of attempts, for tests of observers."""

from typing import Any

from notifier.delivery.facts import Attempted, LogoutDelivered
from notifier.model.delivery import Delivery
from notifier.model.outcome import Delivered, Outcome

_USUAL: dict[str, Any] = {"number": 1, "jti": "j", "alg": "RS256", "seconds": 0.02, "at": 1000.0}


def attempted(delivery: Delivery, outcome: Outcome, **more: Any) -> Attempted:
    """Return the fact that an attempt had this outcome."""
    if isinstance(outcome, Delivered):
        return delivered(delivery, outcome=outcome, **more)
    return Attempted(delivery=delivery, outcome=outcome, **_USUAL | more)


def delivered(delivery: Delivery, **more: Any) -> LogoutDelivered:
    """Return the fact that an attempt succeeded."""
    return LogoutDelivered(
        delivery=delivery, **{"outcome": Delivered(status=200), "propagation": None, **_USUAL, **more}
    )
