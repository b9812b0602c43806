"""Computes when a pending delivery expires, and whether its token has a `sid`, for lists and `notifier status`."""

from collections.abc import Callable

from notifier.model.ages import expires_at
from notifier.model.delivery import Delivery
from notifier.model.logout_token import has_session
from notifier.model.record import record
from notifier.model.registry import Registry


@record
class Lifetime:
    """When a delivery expires, and whether its token has a `sid`.

    `expires` is the time in epoch seconds at which the delivery is given up. A deferral that the client did not cause
    extends it. A token without `sid` ends all sessions of the user, so its delivery has a shorter lifetime.
    """

    expires: float
    has_sid: bool


GetLifetime = Callable[[Delivery], Lifetime | None]
"""Returns the lifetime of a delivery; None if it is unknown."""


def lifetime_of(delivery: Delivery, registry: Registry) -> Lifetime | None:
    """Return the lifetime of a delivery; None if the registry lacks its client or no worker has received it yet."""
    client = registry.client_of(delivery)
    progress = delivery.progress
    if client is None or progress.first_taken_at is None:
        return None
    now = progress.first_taken_at + progress.waits.seconds  # when the last wait ends, by the measured waits
    return Lifetime(expires=expires_at(delivery, client, now), has_sid=has_session(delivery, client))
