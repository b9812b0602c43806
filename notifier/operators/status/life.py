"""Returns when a pending delivery expires, and whether its request names one session, for lists and `status`."""

from collections.abc import Callable

from notifier.delivery.ages import expires_at
from notifier.model.delivery import Delivery
from notifier.model.frozen import frozen
from notifier.model.logout_token import has_session
from notifier.model.registry import Registry


@frozen
class Life:
    """`expires`: when it is given up, in epoch seconds; later if it waits through no fault of its client.

    Without `has_sid` the request ends all sessions of its user, and so is sent for a short time only.
    """

    expires: float
    has_sid: bool


LifeOf = Callable[[Delivery], Life | None]


def life_of(delivery: Delivery, registry: Registry) -> Life | None:
    """Return its life by the current registry. None if its client is unknown, or no worker has taken it yet."""
    client = registry.client_of(delivery)
    if client is None or delivery.first_taken_at is None:
        return None
    now = delivery.first_taken_at + delivery.waits.seconds  # by the wall clock alone
    return Life(expires=expires_at(delivery, client, now), has_sid=has_session(delivery, client))
