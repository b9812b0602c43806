"""Computes when a pending message expires, and whether its token has a `sid`, for lists and `notifier status`."""

from collections.abc import Callable

from notifier.delivery.circuit import MAX_OPEN_SECONDS
from notifier.delivery.deferrals import OVERDUE_SECONDS
from notifier.delivery.fetches import COUNT_SECONDS
from notifier.delivery.verdict import CLIENT_CAUSES
from notifier.messages.replacements import MAX_GRACE_SECONDS
from notifier.model.ages import expires_at
from notifier.model.delivery import Delivery
from notifier.model.documents.documents import EventDocument
from notifier.model.logout_token import has_session
from notifier.model.message import MAX_PARKED_SECONDS
from notifier.model.outcome import Cause
from notifier.model.record import copy_record, record
from notifier.model.registry import Registry

_INTERNAL_CAUSES = frozenset(cause.value for cause in Cause if cause not in CLIENT_CAUSES)


@record
class Lifetime:
    """When a delivery or event expires, and whether the delivery's token has a `sid`.

    `expires` is the time in epoch seconds at which it is given up, if the reason of its wait lasts until then. A token
    without `sid` ends all sessions of the user, so its delivery has a shorter lifetime. `has_sid` is None for an event.
    """

    expires: float
    has_sid: bool | None


GetLifetime = Callable[[Delivery | EventDocument], Lifetime | None]
"""Returns the lifetime of a pending delivery or event; None if it is unknown."""


def lifetime_of(pending: Delivery | EventDocument, registry: Registry) -> Lifetime | None:
    """Return the lifetime of a delivery or event; None if no worker has received it yet.

    Also None for a delivery whose client became unknown after its last wait began, as its grace begins when that ends.
    """
    if isinstance(pending, EventDocument):
        grace = min(registry.grace, MAX_GRACE_SECONDS)
        return None if pending.unknown_since is None else Lifetime(expires=pending.unknown_since + grace, has_sid=None)
    progress, client = pending.progress, registry.client_of(pending)
    is_unknown, taken_at = client is None or client.logout_uri is None, progress.first_taken_at
    if taken_at is None or (is_unknown and progress.unknown_since is None):
        return None
    client = client or registry.default_of(pending.iss)
    if progress.deferred_for in _INTERNAL_CAUSES:  # further waits do not count as age either, up to `max_paused`
        pending = copy_record(pending, progress=copy_record(progress, uncounted_seconds=client.retry.max_paused))
    expires = expires_at(pending, client, taken_at + progress.waits.seconds)  # when the last wait ends, as measured
    if is_unknown and progress.unknown_since is not None:
        expires = min(expires, progress.unknown_since + registry.grace)
    return Lifetime(expires=max(expires, taken_at), has_sid=has_session(pending, client))


def lifetime_in_pause(pending: Delivery | EventDocument, registry: Registry, now: float) -> Lifetime | None:
    """Return the lifetime if the client of the delivery is paused from now on; None as `lifetime_of`.

    The time of a pause does not count as age, but of a parked delivery only once it has left its bucket: when the
    client's next probe is overdue or, if the client requested a delay, after that. Until then it may expire.
    """
    lifetime = lifetime_of(pending, registry)
    if lifetime is None or not isinstance(pending, Delivery):
        return lifetime
    progress = pending.progress
    leaves_at = now + MAX_OPEN_SECONDS + OVERDUE_SECONDS + COUNT_SECONDS
    if progress.delayed_by_client:
        leaves_at = (progress.waits.since or now) + MAX_PARKED_SECONDS
    if progress.parked and lifetime.expires < leaves_at:
        return lifetime
    return lifetime_of(copy_record(pending, progress=copy_record(progress, deferred_for=Cause.PAUSED.value)), registry)
