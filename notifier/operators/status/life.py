"""When a pending delivery expires, and whether its token has a `sid`, for lists and `notifier status`."""

from collections.abc import Callable

from notifier.delivery.ages import expires_at
from notifier.model.delivery import Delivery
from notifier.model.frozen import frozen
from notifier.model.logout_token import has_session
from notifier.model.registry import Registry


@frozen
class Life:
    """`expires`: epoch seconds when the delivery is given up; deferrals that its client did not cause extend it.

    A token without `sid` ends all sessions of the user, so the delivery has a shorter life.
    """

    expires: float
    has_sid: bool


LifeOf = Callable[[Delivery], Life | None]


def life_of(delivery: Delivery, registry: Registry) -> Life | None:
    """Return a delivery's life by the current registry; None if its client is unknown or no worker has taken it."""
    client = registry.client_of(delivery)
    if client is None or delivery.first_taken_at is None:
        return None
    now = delivery.first_taken_at + delivery.waits.seconds  # by the wall clock only
    return Life(expires=expires_at(delivery, client, now), has_sid=has_session(delivery, client))
